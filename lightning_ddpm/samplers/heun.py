"""A second-order single-step solver."""

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import Noise
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.shapes import Samples, TimeSteps

LARGEST_RATIO = 10


class Heun(Sampler):
    r"""Heun's method for the probability flow: a DDIM step, corrected with the noise at its end.

    .. math::
        x_s = \tilde x_s + \alpha_s \left(\frac{\sigma_s}{\alpha_s} - \frac{\sigma_t}{\alpha_t}
              \right) \frac{\hat\epsilon(\tilde x_s, s) - \hat\epsilon(x_t, t)}{2}, \quad
        \tilde x_s = \alpha_s \hat x_0 + \sigma_s \hat\epsilon(x_t, t)

    (Karras et al. 2022, arXiv 2206.00364, algorithm 1, for a sample scaled by alpha). Second order
    at two calls of the network a step. A step that makes sigma / alpha more than ten times smaller,
    over which the noise is no straight line, is not corrected: the last one, to clean data, and the
    first ones of schedules that end in almost pure noise.

    Args:
        steps: number of denoising steps, at most the schedule's T.
    """

    def __init__(self, steps: int | None = 20) -> None:
        super().__init__(steps)

    def step(
        self, denoise: Denoise, x_t: Samples, t: TimeSteps, s: TimeSteps, state: None, noise: Noise
    ) -> tuple[Samples, None]:
        """Go from x_t to x_s."""
        x0, epsilon, _ = denoise(x_t, t)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = map(denoise.schedule.alpha_sigma, (t, s))
        x_s = denoise.schedule.add_noise(x0, epsilon, s)
        if alpha_t * sigma_s * LARGEST_RATIO < alpha_s * sigma_t:
            return x_s, None
        change = denoise(x_s, s).noise - epsilon
        return x_s + (sigma_s - alpha_s * sigma_t / alpha_t) / 2 * change, None
