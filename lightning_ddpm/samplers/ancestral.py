"""The sampler of the DDPM paper."""

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import Noise
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.shapes import Samples, TimeSteps


class Ancestral(Sampler):
    r"""Draw :math:`x_s \sim p_\theta(x_s \mid x_t)`: Algorithm 2 of Ho et al. 2020.

    The mean is that of :math:`q(x_s \mid x_t, \hat x_0)`, the variance the model's. With fewer than
    T steps each spans several time steps, as in Nichol and Dhariwal 2021, section 4.
    """

    def step(
        self, denoise: Denoise, x_t: Samples, t: TimeSteps, s: TimeSteps, state: None, noise: Noise
    ) -> tuple[Samples, None]:
        """Go from x_t to x_s; the last step, to clean data, adds no noise."""
        x0, _, large = denoise(x_t, t)
        mean, _ = denoise.schedule.posterior(x0, x_t, t, s)
        if s < 0:
            return mean, None
        std = denoise.schedule.reverse_variance(large, t, s).sqrt()
        return mean + std * noise.like(x_t), None
