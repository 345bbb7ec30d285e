"""The sampler of the DDPM paper."""

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, TimeSteps, expand_like


class AncestralSampler(Sampler):
    r"""Draw :math:`x_s \sim q(x_s \mid x_t, \hat x_0)`: Algorithm 2 of Ho et al. 2020.

    With all T steps the variance is the paper's :math:`\tilde\beta_t` (eq. 7). With fewer steps
    the same posterior spans several time steps, as in Nichol and Dhariwal 2021, section 4.
    """

    def step(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x_t: Images,
        t: TimeSteps,
        s: TimeSteps,
        noise: SampleNoise,
    ) -> Images:
        """Go from x_t to x_s; the last step, to clean data, has no variance."""
        mean, variance = schedule.posterior(denoise(x_t, t).x0, x_t, t, s)
        std = expand_like(variance.sqrt(), x_t)
        return mean + std * noise.draw(x_t.shape[1:]).to(x_t)
