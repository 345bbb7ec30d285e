"""The sampler of the DDPM paper."""

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, TimeSteps, expand_like


class Ancestral(Sampler):
    r"""Draw :math:`x_s \sim p_\theta(x_s \mid x_t)`: Algorithm 2 of Ho et al. 2020.

    The mean is that of :math:`q(x_s \mid x_t, \hat x_0)`, the variance the model's. With fewer than
    T steps each spans several time steps, as in Nichol and Dhariwal 2021, section 4.
    """

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
        """Go from x_t to x_s; the last step, to clean data, adds no noise."""
        x0, _, v = denoise(x_t, t)
        mean, _ = schedule.posterior(x0, x_t, t, s)
        std = schedule.reverse_variance(v, t, s).sqrt() * expand_like((s >= 0).to(x_t), x_t)
        return mean + std * noise.draw(x_t.shape[1:]).to(x_t), None
