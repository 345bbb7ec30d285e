r"""The variational bound on the negative log-likelihood, in bits per dimension.

.. math::
    -\log_2 p_\theta(x_0) \le L_T + \sum_{t=1}^{T-1} L_t + L_0

(Ho et al. 2020, arXiv 2006.11239, eq. 5; time steps counted from 0). The medium's decoder says what
it is the bound of: of images, the 256 grey levels as they are. Figures for binarised MNIST, in nats
an image, and for densities of images with added uniform noise measure something else.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_ddpm.denoiser import Denoise, Prediction
from lightning_ddpm.noise import SampleNoise, low_discrepancy
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import PerSample, Samples, TimeSteps, expand_like

Decoder = Callable[[Samples, Samples, Tensor], Samples]
"""``decoder(x0, mean, std)`` is the log-probability, in nats, of each value of the data, given the
Gaussian of the last step: ``Medium.log_likelihood``."""


def gaussian_kl(mean_q: Tensor, variance_q: Tensor, mean_p: Tensor, variance_p: Tensor) -> Tensor:
    """KL(q || p) of two Gaussians, element by element, in nats."""
    ratio = variance_q / variance_p
    return (ratio - 1 - ratio.log() + (mean_q - mean_p) ** 2 / variance_p) / 2


def bound_term(
    prediction: Prediction,
    schedule: NoiseSchedule,
    x0: Samples,
    x_t: Samples,
    t: TimeSteps,
    decoder: Decoder,
) -> PerSample:
    """The bound's term (b) of time steps ``t`` (b), in bits per dimension.

    Where t > 0 it is the divergence of p(x_{t-1} | x_t) from the true posterior, where t = 0 the
    code length of the data themselves (Ho et al. 2020, eq. 5).

    Args:
        prediction: what the model says of ``x_t``.
        schedule: the forward process.
        x0: the clean samples.
        x_t: the samples noised to ``t`` (b).
        t: from 0 to T - 1.
        decoder: of L_0.
    """
    s = t - 1
    mean_q, _ = schedule.posterior(x0, x_t, t, s)
    mean_p, _ = schedule.posterior(prediction.x0, x_t, t, s)
    variance_p = schedule.reverse_variance(prediction.large, t, s)
    small = expand_like(torch.zeros_like(t).to(x0), x0)
    variance_q = schedule.reverse_variance(small, t, s)
    divergence = gaussian_kl(mean_q, variance_q, mean_p, variance_p)
    code_length = -decoder(x0, mean_p, variance_p.sqrt())
    term = torch.where((t == 0).reshape(small.shape), code_length, divergence)
    return term.flatten(1).mean(1) / math.log(2)


def prior_term(schedule: NoiseSchedule, x0: Samples) -> PerSample:
    """L_T (b): the divergence of q(x_T | x_0) from N(0, I), in bits per dimension."""
    alpha, sigma = schedule.alpha_sigma(torch.tensor(schedule.T - 1))
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
    alpha, sigma = schedule.alpha_sigma(torch.arange(schedule.T, dtype=torch.float64))
    log_snr = 2 * (alpha / sigma).clamp(min=1e-5).log()
    steps = log_snr[:-1] - log_snr[1:]
    return (steps / steps.sum() + 1 / len(steps)) / 2


@torch.no_grad()
def estimate_bound(
    denoise: Denoise,
    x0: Samples,
    index: Sequence[int],
    decoder: Decoder,
    seed: int = 0,
    draws: int = 4,
) -> Bound:
    """Estimate the bound of each sample from ``draws`` time steps and t = 0.

    Noise and time steps belong to the sample and not to the batch. Any run of samples is spread
    evenly over all time steps.

    Args:
        denoise: the model.
        x0: clean samples (b, c, *spatial).
        index: each sample's place in its split.
        decoder: of L_0.
        seed: the seed of all noise.
        draws: how many time steps of each sample.
    """
    schedule = denoise.schedule
    density = time_density(schedule)
    edges = density.cumsum(0)[:-1]
    noise = SampleNoise(seed, index)

    def term(t: TimeSteps) -> PerSample:
        x_t = schedule.add_noise(x0, noise.like(x0), t)
        return bound_term(denoise(x_t, t), schedule, x0, x_t, t, decoder)

    L_0 = term(torch.zeros(len(x0), dtype=torch.long, device=x0.device))
    places = torch.tensor(index)[:, None] * draws + torch.arange(draws)
    t = torch.searchsorted(edges, low_discrepancy(places)) + 1  # (b, draws)
    L_t = torch.stack([term(column.to(x0.device)) for column in t.unbind(1)], dim=1)
    weight = (1 / density[t - 1]).to(L_t)
    return Bound(prior_term(schedule, x0), L_0, L_t, t.to(x0.device), weight)
