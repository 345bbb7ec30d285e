r"""The variational bound on the negative log-likelihood, in bits per dimension.

.. math::
    -\log_2 p_\theta(x_0) \le L_T + \sum_{t=1}^{T-1} L_t + L_0

(Ho et al. 2020, arXiv 2006.11239, eq. 5; time steps counted from 0). It is that of 8-bit images as
they are, 256 grey levels and no padding. Figures for binarised MNIST, in nats an image, and for
densities of images with added uniform noise measure something else.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric

from lightning_ddpm.denoiser import Denoise, Prediction
from lightning_ddpm.noise import SampleNoise, evenly
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, PerSample, TimeSteps, expand_like


def gaussian_kl(mean_q: Tensor, variance_q: Tensor, mean_p: Tensor, variance_p: Tensor) -> Tensor:
    """KL(q || p) of two Gaussians, element by element, in nats."""
    ratio = variance_q / variance_p
    return (ratio - 1 - ratio.log() + (mean_q - mean_p) ** 2 / variance_p) / 2


def decoder_log_likelihood(x0: Images, mean: Images, std: Tensor) -> Images:
    """Log-probability, in nats, of each 8-bit grey level under a Gaussian (Ho et al. 2020, eq. 13).

    A level's bin reaches halfway to its neighbours; the first and the last one have no end, so
    that the 256 probabilities sum to one.

    Args:
        x0: images of 256 levels in [-1, 1].
        mean: of the Gaussian, in the shape of ``x0``.
        std: of the Gaussian, broadcast over ``x0``.
    """
    low, high = (x0 - 1 / 255 - mean) / std, (x0 + 1 / 255 - mean) / std
    # Left of the mean, where log_ndtr keeps its precision; by symmetry right of it as well.
    left, right = torch.where(low + high > 0, -high, low), torch.where(low + high > 0, -low, high)
    log_right = torch.special.log_ndtr(right)
    inside = log_right + (-torch.expm1(torch.special.log_ndtr(left) - log_right)).log()
    darkest, brightest = x0 < -1 + 1 / 255, x0 > 1 - 1 / 255
    outside = torch.special.log_ndtr(torch.where(darkest, high, -low))
    return torch.where(darkest | brightest, outside, inside)


def bound_term(
    prediction: Prediction, schedule: NoiseSchedule, x0: Images, x_t: Images, t: TimeSteps
) -> PerSample:
    """The bound's term (b) of time steps ``t`` (b), in bits per dimension.

    Where t > 0 it is the divergence of p(x_{t-1} | x_t) from the true posterior, where t = 0 the
    code length of the image itself (Ho et al. 2020, eq. 5).

    Args:
        prediction: what the model says of ``x_t``.
        schedule: the forward process.
        x0: the clean images, of 256 levels in [-1, 1].
        x_t: the images noised to ``t``.
        t: from 0 to T - 1.
    """
    s = t - 1
    mean_q, _ = schedule.posterior(x0, x_t, t, s)
    mean_p, _ = schedule.posterior(prediction.x0, x_t, t, s)
    variance_p = schedule.reverse_variance(prediction.v, t, s)
    small = expand_like(torch.zeros_like(t).to(x0), x0)
    variance_q = schedule.reverse_variance(small, t, s)
    divergence = gaussian_kl(mean_q, variance_q, mean_p, variance_p)
    code_length = -decoder_log_likelihood(x0, mean_p, variance_p.sqrt())
    term = torch.where((t == 0).reshape(small.shape), code_length, divergence)
    return term.flatten(1).mean(1) / math.log(2)


def prior_term(schedule: NoiseSchedule, x0: Images) -> PerSample:
    """L_T (b): the divergence of q(x_T | x_0) from N(0, I), in bits per dimension."""
    alpha, sigma = schedule.alpha[-1], schedule.sigma[-1]
    divergence = gaussian_kl(alpha * x0, sigma**2, torch.zeros_like(x0), torch.ones_like(sigma))
    return divergence.flatten(1).mean(1) / math.log(2)


class Bound(NamedTuple):
    """The bound's parts, in bits per dimension.

    ``L_T`` and ``L_0`` (b) are exact up to the noise of x_t. ``L_t`` (b, draws) are single terms at
    the time steps ``t``, and ``weight`` is how many terms each stands for: the mean over draws of
    ``weight * L_t`` is an unbiased estimate of the sum over all t from 1 to T - 1.
    """

    L_T: PerSample
    L_0: PerSample
    L_t: Float[Tensor, "b draws"]
    t: Int[Tensor, "b draws"]
    weight: Float[Tensor, "b draws"]


def time_density(schedule: NoiseSchedule) -> Float[Tensor, " times"]:
    """Probabilities of the time steps 1 to T - 1 for estimating the sum of L_t.

    Half uniform in t and half in the logarithm of the signal-to-noise ratio, over which L_t changes
    little: no term is large and rare.
    """
    log_snr = 2 * (schedule.alpha[1:] / schedule.sigma[1:]).clamp(min=1e-5).log()
    steps = log_snr[:-1] - log_snr[1:]
    return (steps / steps.sum() + 1 / len(steps)) / 2


@torch.no_grad()
def estimate_bound(
    denoise: Denoise,
    schedule: NoiseSchedule,
    x0: Images,
    index: Sequence[int],
    seed: int = 0,
    draws: int = 4,
) -> Bound:
    """Estimate the bound of each image from ``draws`` time steps and t = 0.

    Noise and time steps belong to the image and not to the batch. Any run of images is spread
    evenly over all time steps.

    Args:
        denoise: the model.
        schedule: its forward process.
        x0: images (b, c, *spatial) of 256 levels in [-1, 1].
        index: each image's place in its split.
        seed: the seed of all noise.
        draws: how many time steps of each image.
    """
    density = time_density(schedule).cpu().double()
    edges = density.cumsum(0)[:-1]
    noise = SampleNoise(seed, index)

    def term(t: TimeSteps) -> PerSample:
        x_t = schedule.add_noise(x0, noise.draw(x0.shape[1:]).to(x0), t)
        return bound_term(denoise(x_t, t), schedule, x0, x_t, t)

    L_0 = term(torch.zeros(len(x0), dtype=torch.long, device=x0.device))
    places = torch.tensor(index)[:, None] * draws + torch.arange(draws)
    t = torch.searchsorted(edges, evenly(places)) + 1  # (b, draws)
    L_t = torch.stack([term(column.to(x0.device)) for column in t.unbind(1)], dim=1)
    weight = (1 / density[t - 1]).to(L_t)
    return Bound(prior_term(schedule, x0), L_0, L_t, t.to(x0.device), weight)


class VariationalBound(Metric):
    """The mean over images of estimated bounds, with its parts, and the terms over t.

    Args:
        T: the schedule's number of time steps.
    """

    rows: list[Tensor]
    sums: Tensor
    counts: Tensor

    def __init__(self, T: int) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("sums", torch.zeros(T), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(T), dist_reduce_fx="sum")

    def update(self, bound: Bound) -> None:
        """Add the bounds of a batch."""
        L_t = (bound.weight * bound.L_t).mean(1)
        self.rows.append(torch.stack([bound.L_T, L_t, bound.L_0], dim=1))
        for t, terms in ((torch.zeros_like(bound.t[:, 0]), bound.L_0), (bound.t, bound.L_t)):
            self.sums.index_add_(0, t.flatten(), terms.flatten())
            self.counts.index_add_(0, t.flatten(), torch.ones_like(terms).flatten())

    def compute(self) -> tuple[dict[str, Tensor], Float[Tensor, " T"]]:
        """The figures in bits per dimension, and the mean term of each t, nan where none was drawn.

        ``bits_per_dim_ci95`` is the half-width of the 95% confidence interval of the mean over
        images. It is a little too wide: it takes the images' time steps to be independent.
        """
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        total, parts = rows.sum(1), rows.mean(0)
        figures = {
            "bits_per_dim": total.mean(),
            "bits_per_dim_ci95": 1.96 * total.std() / len(total) ** 0.5,
        } | dict(zip(("L_T", "L_t", "L_0"), parts, strict=True))
        return figures, self.sums / self.counts
