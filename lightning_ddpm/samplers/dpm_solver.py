"""A second-order multistep solver."""

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import Noise
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.shapes import Samples, Scalar, TimeSteps

State = tuple[Samples, Scalar] | None


class DPMSolver(Sampler):
    r"""DPM-Solver++(2M): extrapolate the predicted sample from this step and the one before.

    .. math::
        x_s = \frac{\sigma_s}{\sigma_t} e^{-\eta h} x_t + \alpha_s (1 - e^{-(1 + \eta) h}) D
              + \sigma_s \sqrt{1 - e^{-2 \eta h}} \, z, \quad
        D = \hat x_0 + \frac{h}{2 h'} (\hat x_0 - \hat x_0')

    with :math:`h = \lambda_s - \lambda_t`, :math:`\lambda = \log(\alpha / \sigma)`, a dash for the
    step before, and :math:`z \sim \mathcal N(0, I)` (Lu et al. 2022, arXiv 2211.01095, algorithm 2,
    which is eta = 0, and the same paper's SDE-DPM-Solver++(2M), which is eta = 1). Second order at
    one call of the network a step. The first step and the last, to clean data, are first order:
    DDIM's, or with eta = 1 ancestral sampling's with the fixed small variance.

    Args:
        steps: number of denoising steps, at most the schedule's T.
        eta: how much of the noise is new, from 0 to 1. New noise mends errors of the network.

    Raises:
        ValueError: if ``eta`` is out of range.
    """

    def __init__(self, steps: int | None = 20, eta: float = 0.0) -> None:
        super().__init__(steps)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be from 0 to 1, got {eta}")
        self.eta = eta

    def step(
        self, denoise: Denoise, x_t: Samples, t: TimeSteps, s: TimeSteps, state: State, noise: Noise
    ) -> tuple[Samples, State]:
        """Go from x_t to x_s; the state is the predicted sample and lambda of the step before."""
        x0 = denoise(x_t, t).x0
        (alpha_t, sigma_t), (alpha_s, sigma_s) = map(denoise.schedule.alpha_sigma, (t, s))
        lambda_t, lambda_s = (alpha_t / sigma_t).log(), (alpha_s / sigma_s).log()
        direction = x0
        if state is not None and s >= 0:  # at clean data lambda is infinite
            x0_before, lambda_before = state
            ratio = (lambda_s - lambda_t) / (lambda_t - lambda_before)
            direction = x0 + ratio / 2 * (x0 - x0_before)
        decay = (sigma_s / sigma_t * alpha_t / alpha_s) ** self.eta  # exp(-eta h)
        shrink = sigma_s / sigma_t * decay
        # alpha_s (1 - exp(-(1 + eta) h)), without the infinite lambdas
        gain = alpha_s - alpha_t * shrink
        x_s = shrink * x_t + gain * direction
        if self.eta > 0:
            x_s = x_s + sigma_s * (1 - decay**2).sqrt() * noise.like(x_t)
        return x_s, (x0, lambda_t)
