"""Denoising diffusion implicit models."""

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, TimeSteps, expand_like


class DDIM(Sampler):
    r"""Noise the predicted image again, but less, with the noise that was predicted.

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
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x_t: Images,
        t: TimeSteps,
        s: TimeSteps,
        state: None,
        noise: SampleNoise,
    ) -> tuple[Images, None]:
        """Go from x_t to x_s; with eta = 0 also up, to s > t."""
        x0, epsilon, _ = denoise(x_t, t)
        if self.eta == 0:
            return schedule.add_noise(x0, epsilon, s), None
        alpha, sigma = schedule.alpha_sigma(s)
        variance = self.eta**2 * schedule.posterior(x0, x_t, t, s)[1]
        old = expand_like((sigma**2 - variance).clamp(min=0).sqrt(), x0)
        new = expand_like(variance.sqrt(), x0) * noise.draw(x_t.shape[1:]).to(x_t)
        return expand_like(alpha, x0) * x0 + old * epsilon + new, None
