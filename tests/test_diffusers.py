"""Single steps against diffusers' schedulers, for the same inputs."""

from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from gaussian import Known

from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver, Sampler
from lightning_ddpm.schedule import LinearSchedule
from lightning_ddpm.shapes import expand_like

OPTIONS = {"prediction_type": "sample", "timestep_spacing": "trailing"}
SCHEDULE = LinearSchedule()
SHAPE = (2, 1, 8, 8)


class Given(SampleNoise):
    """Noise that is given."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.noise = noise

    def draw(self, shape) -> torch.Tensor:
        return self.noise


def guess(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Some image that depends on both."""
    return torch.tanh(0.7 * x_t + 1 - expand_like(t.float(), x_t) / 500)


def largest_difference(sampler: Sampler, theirs, v: float = 0, **options) -> float:
    """Of all steps, each from the images that diffusers came to; absolute and relative."""
    x, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    if isinstance(sampler, DDIM | DPMSolver):
        options["variance_noise"] = noise
    # diffusers multiplies up alpha_bar in float32, which alone costs it 8e-5 near t = 0.
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    theirs.betas, theirs.alphas, theirs.alphas_cumprod = betas, 1 - betas, (1 - betas).cumprod(0)
    theirs.set_timesteps(sampler.steps)
    times, state, differences = sampler.timesteps(SCHEDULE), None, []
    assert theirs.timesteps.tolist() == times[:-1]

    denoise = Known(SCHEDULE, guess, v)
    for t, s in pairwise(map(torch.tensor, times)):
        if isinstance(sampler, Ancestral):
            options["generator"] = torch.Generator().manual_seed(1)
            noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
        ours, state = sampler.step(denoise, x, t, s, state, Given(noise))
        x = theirs.step(guess(x, t), t, x, **options).prev_sample
        # With the large variance diffusers adds noise to the last images, if steps span several t.
        if s >= 0 or v == 0 or sampler.steps == 1000:
            differences.append(((ours - x).abs() / (1 + x.abs())).max().item())
    assert len(differences) >= len(times) - 2
    return max(differences)


@pytest.mark.parametrize(("v", "variance"), [(0, "fixed_small"), (1, "fixed_large")])
@pytest.mark.parametrize("steps", [20, 1000])
def test_ancestral(v: int, variance: str, steps: int) -> None:
    theirs = DDPMScheduler(variance_type=variance, clip_sample=False, **OPTIONS)
    assert largest_difference(Ancestral(steps), theirs, v) < 1e-5


@pytest.mark.parametrize(
    ("steps", "eta"), [(20, 0.0), (20, 0.4), (20, 1.0), (1000, 0.0), (1000, 1.0)]
)
def test_ddim(steps: int, eta: float) -> None:
    theirs = DDIMScheduler(clip_sample=False, **OPTIONS)
    assert largest_difference(DDIM(steps, eta), theirs, eta=eta) < 1e-5


@pytest.mark.parametrize(("eta", "algorithm"), [(0, "dpmsolver++"), (1, "sde-dpmsolver++")])
@pytest.mark.parametrize("steps", [20, 100])
def test_dpm_solver(eta: float, algorithm: str, steps: int) -> None:
    options = {"algorithm_type": algorithm, "final_sigmas_type": "zero", **OPTIONS}
    assert largest_difference(DPMSolver(steps, eta), DPMSolverMultistepScheduler(**options)) < 1e-5
