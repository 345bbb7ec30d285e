"""How fast the samplers' error falls with the size of their steps."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from gaussian import ideal_denoiser, probability_flow

from lightning_ddpm.noise import Noise, SampleNoise
from lightning_ddpm.samplers import DDIM, DPMSolver, Heun, Sampler
from lightning_ddpm.schedule import LinearSchedule

ORDERS = {DDIM: 1, DPMSolver: 2, Heun: 2}


@pytest.mark.parametrize("cls", ORDERS)
def test_order_of_convergence(cls: type[Sampler], capsys: pytest.CaptureFixture) -> None:
    # Oracle: the probability flow of Gaussian data, which is known in closed form. The steps are
    # even in lambda, so that a step size is defined; T is large, so that they can be.
    schedule = LinearSchedule(100_000, 1e-6, 2e-4).double()
    alpha, sigma = schedule.alpha_sigma(torch.arange(schedule.T))
    log_snr = -(alpha / sigma).log()  # rises with t, for searchsorted
    x_T = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    sizes, errors = [], []
    for steps in (8, 16, 32, 64, 128):
        times = torch.searchsorted(log_snr, torch.linspace(3, -3, steps + 1).double()).tolist()
        exact = probability_flow(schedule, x_T, times[0], times[-1], 0.4, 0.5)
        denoise, noise = ideal_denoiser(schedule, 0.4, 0.5), SampleNoise(0, [0])
        x = cls().sample(denoise, x_T, noise, times)
        sizes.append(math.log(6 / steps))
        errors.append((x - exact).square().mean().sqrt().log().item())
    order = np.polyfit(sizes[1:], errors[1:], 1)[0]
    with capsys.disabled():
        print(f" {cls.__name__}: order {order:.3f}, error {math.exp(errors[-1]):.1e} in 128 steps")
    assert order == pytest.approx(ORDERS[cls], abs=0.15)


class Axes(Noise):
    """Noise of which each draw is an axis of its own, so that x has its coefficients on all."""

    def __init__(self) -> None:
        self.drawn = 0

    def draw(self, shape: Sequence[int]) -> torch.Tensor:
        self.drawn += 1
        return torch.eye(*shape, dtype=torch.float32)[None, self.drawn]

    def uniform(self) -> torch.Tensor:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(DPMSolver(eta=0.5), 2), (DPMSolver(eta=1.0), 2), (DDIM(eta=1.0), 1)],
)
def test_order_of_convergence_with_new_noise(sampler: Sampler, order: int) -> None:
    # Oracle: the variance of noised Gaussian data. The ideal denoiser is linear, so that the
    # variance of what is sampled is the sum of the squared coefficients on all noise, exactly.
    schedule, data = LinearSchedule(100_000, 1e-6, 2e-4).double(), 0.5
    alpha, sigma = schedule.alpha_sigma(torch.arange(schedule.T))
    variance, log_snr = alpha**2 * data**2 + sigma**2, -(alpha / sigma).log()
    sizes, errors = [], []
    for steps in (16, 32, 64, 128):
        times = torch.searchsorted(log_snr, torch.linspace(3, -3, steps + 1).double()).tolist()
        x = torch.zeros(1, steps + 1, dtype=torch.float64)
        x[0, 0] = variance[times[0]].sqrt()
        x = sampler.sample(ideal_denoiser(schedule, 0.0, data), x, Axes(), times)
        sizes.append(math.log(6 / steps))
        errors.append(math.log(abs(x.square().sum() - variance[times[-1]]).item()))
    assert np.polyfit(sizes, errors, 1)[0] == pytest.approx(order, abs=0.2)
