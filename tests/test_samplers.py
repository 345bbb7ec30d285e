import math
from itertools import pairwise

import pytest
import torch
from conftest import concrete_classes

from lightning_ddpm import samplers
from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import Prediction
from lightning_ddpm.samplers import AncestralSampler, Sampler
from lightning_ddpm.schedule import CosineSchedule, LinearSchedule, NoiseSchedule
from lightning_ddpm.shapes import expand_like

SAMPLERS = concrete_classes(samplers, Sampler)


def gaussian_denoiser(schedule: NoiseSchedule, mean: float, std: float) -> Denoise:
    """The ideal denoiser of data N(mean, std^2 I): E[x0 | x_t] by conjugacy."""

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> Prediction:
        alpha, sigma = (expand_like(value, x_t) for value in schedule.alpha_sigma(t))
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        x0 = mean + gain * (x_t - alpha * mean)
        return Prediction(x0, (x_t - alpha * x0) / sigma)

    return denoise


def draw(sampler: Sampler, schedule: NoiseSchedule, samples: int, mean: float, std: float):
    noise = SampleNoise(0, range(samples))
    x_T = noise.draw((1, 8, 8))
    *_, x = sampler.trajectory(gaussian_denoiser(schedule, mean, std), schedule, x_T, noise)
    return x


@pytest.mark.parametrize("cls", SAMPLERS)
@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule()])
def test_gaussian_data_is_recovered(cls: type[Sampler], schedule: NoiseSchedule) -> None:
    x = draw(cls(), schedule, 200, mean=0.4, std=0.5)
    error = 0.5 / math.sqrt(x.numel())
    assert x.mean().item() == pytest.approx(0.4, abs=5 * error)
    assert x.std().item() == pytest.approx(0.5, rel=0.02)


def test_ancestral_chain_of_few_steps_has_its_exact_moments() -> None:
    # Oracle: on Gaussian data each step is linear in x_t, so mean and variance of the chain obey
    # a recursion, written out here from alpha_bar alone.
    schedule, sampler, m, s = LinearSchedule(), AncestralSampler(20), 0.4, 0.5
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    alpha_bar = torch.cat([alpha_bar, alpha_bar.new_ones(1)]).tolist()  # entry -1: clean data
    mean, variance = 0.0, 1.0
    times = sampler.timesteps(schedule)
    for t, r in pairwise(times):
        a_t, a_r = alpha_bar[t], alpha_bar[r]
        gain = math.sqrt(a_t) * s**2 / (a_t * s**2 + 1 - a_t)
        w0 = math.sqrt(a_r) * (1 - a_t / a_r) / (1 - a_t)
        w_t = math.sqrt(a_t / a_r) * (1 - a_r) / (1 - a_t)
        slope = w0 * gain + w_t
        mean = slope * mean + w0 * (1 - gain * math.sqrt(a_t)) * m
        variance = slope**2 * variance + (1 - a_t / a_r) * (1 - a_r) / (1 - a_t)
    x = draw(sampler, schedule, 2000, m, s)
    error = math.sqrt(variance / x.numel())
    assert x.mean().item() == pytest.approx(mean, abs=4 * error)
    assert x.std().item() == pytest.approx(math.sqrt(variance), rel=4 / math.sqrt(2 * x.numel()))
    assert abs(math.sqrt(variance) - s) > 0.02  # so few steps are told apart from the data


@pytest.mark.parametrize("cls", SAMPLERS)
def test_trajectory_has_an_image_for_each_step(cls: type[Sampler]) -> None:
    schedule = LinearSchedule(50)
    noise = SampleNoise(0, range(3))
    x_T = noise.draw((2, 4, 4))
    denoise = gaussian_denoiser(schedule, 0, 0.5)
    images = list(cls(steps=7).trajectory(denoise, schedule, x_T, noise))
    assert len(images) == 7
    assert all(x.shape == x_T.shape and x.dtype == torch.float32 for x in images)


@pytest.mark.parametrize("cls", SAMPLERS)
def test_samples_do_not_depend_on_the_batch(cls: type[Sampler]) -> None:
    schedule = LinearSchedule(50)
    together = draw(cls(), schedule, 5, 0, 0.5)
    alone = draw(cls(), schedule, 2, 0, 0.5)
    torch.testing.assert_close(together[:2], alone)


@pytest.mark.parametrize("cls", SAMPLERS)
@pytest.mark.parametrize("steps", [None, 1, 2, 7, 999, 1000])
def test_timesteps_go_down_from_T_to_clean_data(cls: type[Sampler], steps: int | None) -> None:
    times = cls(steps=steps).timesteps(LinearSchedule())
    assert len(times) == (steps or 1000) + 1
    assert times[0] == 999
    assert times[-1] == -1
    assert all(s < t for t, s in pairwise(times))


@pytest.mark.parametrize("steps", [0, -5, 1001])
def test_impossible_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and T = 1000, got {steps}"):
        AncestralSampler(steps).timesteps(LinearSchedule())
