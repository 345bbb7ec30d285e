"""Denoising diffusion implicit models."""

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import Noise
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.shapes import Samples, TimeSteps


class DDIM(Sampler):
    r"""Noise the predicted sample again, but less, with the noise that was predicted.

    .. math::
        x_s = \alpha_s \hat x_0 + \sqrt{\sigma_s^2 - \eta^2 \tilde\beta_{t|s}} \, \hat\epsilon
              + \eta \sqrt{\tilde\beta_{t|s}} \, z, \quad z \sim \mathcal N(0, I)

    (Song et al. 2020, arXiv 2010.02502, eq. 12 and 16). First order and deterministic with eta = 0;
    with eta = 1 ancestral sampling with the fixed small variance.

    Args:
        steps: number of denoising steps, at most the schedule's T.
        eta: how much of the noise is new, from 0 to 1.

    Raises:
        ValueError: if ``eta`` is out of range.
    """

    def __init__(self, steps: int | None = 50, eta: float = 0.0) -> None:
        super().__init__(steps)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be from 0 to 1, got {eta}")
        self.eta = eta

    def step(
        self, denoise: Denoise, x_t: Samples, t: TimeSteps, s: TimeSteps, state: None, noise: Noise
    ) -> tuple[Samples, None]:
        """Go from x_t to x_s; with eta = 0 also up, to s > t."""
        x0, epsilon, _ = denoise(x_t, t)
        if self.eta == 0:
            return denoise.schedule.add_noise(x0, epsilon, s), None
        alpha, sigma = denoise.schedule.alpha_sigma(s)
        variance = self.eta**2 * denoise.schedule.posterior(x0, x_t, t, s)[1]
        old = (sigma**2 - variance).clamp(min=0).sqrt()
        return alpha * x0 + old * epsilon + variance.sqrt() * noise.like(x_t), None
