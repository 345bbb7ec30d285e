"""Data of which everything is known: the oracle of the samplers, the editing and the bound."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from lightning_ddpm.denoiser import Denoise, Prediction
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import Sampler
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import expand_like

SHAPES = [(8,), (1, 16), (2, 4, 4), (1, 3, 4, 4)]
"""Of a sample: a row of a table, a series, an image and a video."""

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@dataclass
class Known:
    """A ``Denoise`` that is told what to see: ``x0(x_t, t)``."""

    schedule: NoiseSchedule
    x0: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    large: float = 0

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor) -> Prediction:
        alpha, sigma = (expand_like(value, x_t) for value in self.schedule.alpha_sigma(t))
        x0 = self.x0(x_t, t)
        return Prediction(x0, (x_t - alpha * x0) / sigma, torch.full_like(alpha, self.large))


def ideal_denoiser(schedule: NoiseSchedule, mean: float, std: float, large: float = 0) -> Denoise:
    """E[x0 | x_t] for data N(mean, std^2 I), by conjugacy."""

    def x0(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (expand_like(value, x_t) for value in schedule.alpha_sigma(t))
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        return mean + gain * (x_t - alpha * mean)

    return Known(schedule, x0, large)


def probability_flow(
    schedule: NoiseSchedule, x: torch.Tensor, t: int, s: int, mean: float, std: float
) -> torch.Tensor:
    """Where the probability flow takes x from t to s: quantiles go to quantiles."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        [value.item() for value in schedule.alpha_sigma(torch.tensor(float(time)))]
        for time in (t, s)
    )
    std_t = (alpha_t**2 * std**2 + sigma_t**2) ** 0.5
    std_s = (alpha_s**2 * std**2 + sigma_s**2) ** 0.5
    return alpha_s * mean + (x - alpha_t * mean) * std_s / std_t


def draw(
    sampler: Sampler,
    schedule: NoiseSchedule,
    samples: int,
    mean: float,
    std: float,
    large: float = 0,
    shape: tuple[int, ...] = (1, 8, 8),
) -> torch.Tensor:
    """Samples of the ideal denoiser."""
    noise = SampleNoise(0, range(samples))
    denoise = ideal_denoiser(schedule, mean, std, large)
    return sampler.sample(denoise, noise.draw(shape), noise)
