"""The forward process: how much signal and how much noise is left at each time step."""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_ddpm.shapes import Factors, PerTime, Samples, TimeSteps, expand_like


class NoiseSchedule(nn.Module, ABC):
    r"""The forward process :math:`q`, given by what it leaves of signal and adds of noise.

    .. math:: q(x_t \mid x_0) = \mathcal N(x_t; \alpha_t x_0, \sigma_t^2 I)

    (Kingma et al. 2021, arXiv 2107.00630, eq. 1; in the terms of Ho et al. 2020, arXiv 2006.11239,
    eq. 4, :math:`\alpha_t^2 = \bar\alpha_t` and :math:`\sigma_t^2 = 1 - \bar\alpha_t`. Their
    :math:`\alpha_t = 1 - \beta_t` is not used here.) Time steps count from 0 to T - 1, the paper's
    1 to T; ``t = -1`` is clean data, with alpha 1 and sigma 0. Times in between are allowed.
    """

    T: int
    """The number of time steps."""

    @abstractmethod
    def alpha_sigma(self, t: TimeSteps) -> tuple[PerTime, PerTime]:
        """The factors of signal and noise at ``t``, (b) or 0-d, integer or real, -1 to T - 1.

        They are on t's device. All else follows from this method.
        """

    def add_noise(self, x0: Samples, noise: Samples, t: TimeSteps) -> Samples:
        r"""Draw :math:`x_t = \alpha_t x_0 + \sigma_t \epsilon` from q(x_t | x_0)."""
        alpha, sigma = self.alpha_sigma(t)
        return expand_like(alpha, x0) * x0 + expand_like(sigma, x0) * noise

    def transition(self, t: TimeSteps, s: TimeSteps) -> tuple[PerTime, PerTime]:
        r"""Factor and variance of the forward process from time steps s to t, s < t.

        .. math::
            q(x_t \mid x_s) = \mathcal N(\alpha_{t|s} x_s, \sigma_{t|s}^2 I), \quad
            \alpha_{t|s} = \alpha_t / \alpha_s, \quad
            \sigma_{t|s}^2 = \sigma_t^2 - \alpha_{t|s}^2 \sigma_s^2

        (Kingma et al. 2021, appendix A; for s = t - 1 the variance is the DDPM's :math:`\beta_t`.)
        """
        alpha_t, sigma_t = self.alpha_sigma(t)
        alpha_s, sigma_s = self.alpha_sigma(s)
        alpha_ts = alpha_t / alpha_s
        return alpha_ts, (sigma_t**2 - alpha_ts**2 * sigma_s**2).clamp(min=0)

    def posterior(
        self, x0: Samples, x_t: Samples, t: TimeSteps, s: TimeSteps
    ) -> tuple[Samples, PerTime]:
        r"""Mean (b, c, \*spatial) and variance of the Gaussian q(x_s | x_t, x_0), s < t.

        For s = t - 1 this is eq. 7 of Ho et al. 2020, with the variance :math:`\tilde\beta_t`; for
        any s < t it is Bayes' rule (Kingma et al. 2021, appendix A).
        """
        _, sigma_t = self.alpha_sigma(t)
        alpha_s, sigma_s = self.alpha_sigma(s)
        alpha_ts, variance_ts = self.transition(t, s)
        weight_x_t = alpha_ts * sigma_s**2 / sigma_t**2
        weight_x0 = alpha_s * variance_ts / sigma_t**2
        mean = expand_like(weight_x_t, x_t) * x_t + expand_like(weight_x0, x0) * x0
        return mean, variance_ts * sigma_s**2 / sigma_t**2

    def reverse_variance(
        self, large: Factors | Samples, t: TimeSteps, s: TimeSteps
    ) -> Factors | Samples:
        r"""Variance of :math:`p_\theta(x_s \mid x_t)`, s < t, in the shape of ``large``, or wider.

        .. math:: \beta_{t|s}^v \, \tilde\beta_{t|s}^{1-v}

        (Nichol and Dhariwal 2021, arXiv 2102.09672, eq. 15): ``large``, their v, is 0 for the
        paper's fixed small variance and 1 for the fixed large one. At s = -1, where
        :math:`\tilde\beta` is zero, it is that of s = 0 instead, as in the code of both papers.
        """
        beta = self.transition(t, s)[1]
        t, s = t.clamp(min=1), s.clamp(min=0)
        sigma_t, sigma_s = self.alpha_sigma(t)[1], self.alpha_sigma(s)[1]
        beta_tilde = self.transition(t, s)[1] * sigma_s**2 / sigma_t**2
        return expand_like(beta, large) ** large * expand_like(beta_tilde, large) ** (1 - large)


class BetaSchedule(NoiseSchedule):
    r"""The DDPM's forward process, given by its variances :math:`\beta_1 \dots \beta_T`.

    .. math::
        \alpha_t^2 = \bar\alpha_t = \prod_{s \le t} (1 - \beta_s), \quad
        \sigma_t^2 = 1 - \bar\alpha_t

    (Ho et al. 2020, eq. 4). In between the time steps :math:`\bar\alpha` is a straight line.

    Args:
        betas: the variances (T), each between 0 and 1, best given in float64: the tables are
            computed in its precision and the buffer is stored in float32. The last may be 1:
            x_{T-1} is then pure noise (zero terminal SNR).

    Raises:
        ValueError: if there are fewer than two variances, or one is out of range.
    """

    squares: Tensor

    def __init__(self, betas: Float[Tensor, " T"]) -> None:
        super().__init__()
        if len(betas) < 2 or not bool(((betas > 0) & (betas <= 1)).all() & (betas[:-1] < 1).all()):
            raise ValueError("a noise schedule needs T >= 2 variances, each between 0 and 1")
        self.T = len(betas)
        alpha_bar = torch.cumprod(1 - betas, dim=0)
        # Entry t + 1 belongs to time step t, so that t = -1 finds clean data in entry 0.
        clean = alpha_bar.new_tensor([[1.0, 0.0]])
        self.exact = torch.cat([clean, torch.stack([alpha_bar, 1 - alpha_bar], dim=1)])
        # Recomputed from the arguments, so not stored in checkpoints.
        self.register_buffer("squares", self.exact.float(), persistent=False)

    def alpha_sigma(self, t: TimeSteps) -> tuple[PerTime, PerTime]:
        """The factors of signal and noise at ``t``, (b) or 0-d, integer or real, -1 to T - 1.

        They have the precision of the buffer, or that of a real t, if it is higher.
        """
        # A time on the CPU does not wait for a GPU, and float64 keeps its precision.
        near = t.device == self.squares.device and t.dtype != torch.float64
        table = self.squares if near else self.exact.to(t.device)
        place = t + 1
        below = place.long()
        above = (below + 1).clamp(max=self.T)
        squares = table[below] + (place - below)[..., None] * (table[above] - table[below])
        squares = squares.to(t.dtype if t.dtype == torch.float64 else self.squares.dtype)
        alpha, sigma = squares.sqrt().unbind(-1)
        return alpha, sigma


class LinearSchedule(BetaSchedule):
    """Variances that rise linearly, as in Ho et al. 2020, section 4.

    Args:
        T: number of time steps.
        beta_start: the first variance.
        beta_end: the last variance.
    """

    def __init__(self, T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> None:
        super().__init__(torch.linspace(beta_start, beta_end, max(T, 0), dtype=torch.float64))
        self.beta_start = beta_start
        self.beta_end = beta_end


class CosineSchedule(BetaSchedule):
    r"""A squared cosine for :math:`\bar\alpha` (Nichol and Dhariwal 2021, 2102.09672, eq. 17).

    Args:
        T: number of time steps.
        offset: the paper's s, which keeps the first variances from being too small.
    """

    def __init__(self, T: int = 1000, offset: float = 0.008) -> None:
        time = torch.linspace(0, 1, max(T, 0) + 1, dtype=torch.float64)
        super().__init__(betas_of(torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2))
        self.offset = offset


class SigmoidSchedule(BetaSchedule):
    r"""A sigmoid for :math:`\bar\alpha` (Jabri et al. 2022, arXiv 2212.11972, algorithm 2).

    Args:
        T: number of time steps.
        start: where on the sigmoid t = 0 lies.
        end: where on the sigmoid t = T lies.
        tau: the temperature, which divides both; the smaller, the steeper.
    """

    def __init__(
        self, T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0
    ) -> None:
        time = torch.linspace(start, end, max(T, 0) + 1, dtype=torch.float64) / tau
        signal = torch.sigmoid(-time)
        super().__init__(betas_of((signal - signal[-1]) / (signal[0] - signal[-1])))
        self.start = start
        self.end = end
        self.tau = tau


class ZeroTerminalSNR(BetaSchedule):
    r"""Another schedule, rescaled so that its last time step is pure noise.

    :math:`\alpha_t` is shifted and scaled so that the first one stays and the last one is zero (Lin
    et al. 2023, arXiv 2305.08891, algorithm 1). Noise cannot be the target there.

    Args:
        schedule: what is rescaled; ``LinearSchedule()`` if not given.
    """

    def __init__(self, schedule: NoiseSchedule | None = None) -> None:
        schedule = schedule or LinearSchedule()
        alpha, _ = schedule.alpha_sigma(torch.arange(schedule.T, dtype=torch.float64))
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        super().__init__(betas_of(torch.cat([alpha.new_ones(1), alpha**2]), largest=1.0))
        self.schedule = schedule


class RectifiedFlow(NoiseSchedule):
    r"""A straight line from the data to the noise (Liu et al. 2022, arXiv 2209.03003, eq. 1).

    .. math:: x_t = (1 - u) \, x_0 + u \, \epsilon, \quad u = (t + 1) / T

    The last time step is pure noise, so that noise cannot be the target; ``FlowTarget`` is the
    line's own.

    Args:
        T: number of time steps.

    Raises:
        ValueError: if ``T`` is below 2.
    """

    def __init__(self, T: int = 1000) -> None:
        super().__init__()
        if T < 2:
            raise ValueError(f"a rectified flow needs T >= 2 time steps, got {T}")
        self.T = T

    def alpha_sigma(self, t: TimeSteps) -> tuple[PerTime, PerTime]:
        """The factors of signal and noise at ``t``, (b) or 0-d, integer or real, -1 to T - 1."""
        sigma = (t + 1) / self.T
        return 1 - sigma, sigma


def betas_of(alpha_bar: Float[Tensor, " times"], largest: float = 0.999) -> Float[Tensor, " T"]:
    r"""The variances (T) of a :math:`\bar\alpha` (T + 1), given up to a factor."""
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=largest)
