"""What the samplers draw."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import concrete_classes
from gaussian import Known, draw, each_shape, ideal_denoiser

from lightning_ddpm import MNISTDataModule, load_model, samplers
from lightning_ddpm.judge import DigitFeatures, frechet_distance
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver, Heun, Sampler
from lightning_ddpm.schedule import (
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    RectifiedFlow,
)

SAMPLERS = concrete_classes(samplers, Sampler)
FEW = (1, 32, 32)  # large samples, as each has a stream of noise of its own, which costs time


@pytest.mark.parametrize("cls", SAMPLERS)
@pytest.mark.parametrize("schedule", [CosineSchedule(), RectifiedFlow()])
def test_gaussian_data_is_recovered(cls: type[Sampler], schedule: NoiseSchedule) -> None:
    x = draw(cls(steps=None), schedule, 12, mean=0.4, std=0.5, shape=FEW)
    error = 0.5 / math.sqrt(x.numel())
    assert x.mean().item() == pytest.approx(0.4, abs=5 * error)
    assert x.std().item() == pytest.approx(0.5, rel=0.02)


@each_shape
@pytest.mark.parametrize(
    "sampler", [DPMSolver(20), DPMSolver(20, 0.5), DPMSolver(20, 1.0), Heun(20), DDIM(100)]
)
def test_gaussian_data_is_recovered_in_few_steps(sampler: Sampler, shape: tuple[int, ...]) -> None:
    x = draw(sampler, LinearSchedule(), 12_800 // math.prod(shape), 0.4, 0.5, shape=shape)
    assert x.mean().item() == pytest.approx(0.4, abs=0.02)
    assert x.std().item() == pytest.approx(0.5, rel=0.06)  # of which 0.04 is the steps' own error


@each_shape
@pytest.mark.parametrize("large", [0.0, 0.5, 1.0])
def test_ancestral_chain_of_few_steps_has_its_exact_moments(
    large: float, shape: tuple[int, ...]
) -> None:
    # Oracle: on Gaussian data each step is linear in x_t, so mean and variance of the chain obey
    # a recursion, written out here from alpha_bar alone.
    schedule, sampler, m, s = LinearSchedule(), Ancestral(20), 0.4, 0.5
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    alpha_bar = torch.cat([alpha_bar, alpha_bar.new_ones(1)]).tolist()  # entry -1: clean data
    mean, variance = 0.0, 1.0
    for t, r in pairwise(sampler.timesteps(schedule)):
        a_t, a_r = alpha_bar[t], alpha_bar[r]
        gain = math.sqrt(a_t) * s**2 / (a_t * s**2 + 1 - a_t)
        w0 = math.sqrt(a_r) * (1 - a_t / a_r) / (1 - a_t)
        w_t = math.sqrt(a_t / a_r) * (1 - a_r) / (1 - a_t)
        slope = w0 * gain + w_t
        mean = slope * mean + w0 * (1 - gain * math.sqrt(a_t)) * m
        beta, beta_tilde = 1 - a_t / a_r, (1 - a_t / a_r) * (1 - a_r) / (1 - a_t)
        noise = beta**large * beta_tilde ** (1 - large) if r >= 0 else 0
        variance = slope**2 * variance + noise
    x = draw(sampler, schedule, 64_000 // math.prod(shape), m, s, large, shape)
    error = math.sqrt(variance / x.numel())
    assert x.mean().item() == pytest.approx(mean, abs=4 * error)
    assert x.std().item() == pytest.approx(math.sqrt(variance), rel=4 / math.sqrt(2 * x.numel()))
    assert abs(math.sqrt(variance) - s) > 0.01  # so few steps are told apart from the data


def test_ddim_with_eta_1_is_ancestral_sampling() -> None:
    ddim = draw(DDIM(10, eta=1.0), LinearSchedule(), 5, 0.4, 0.5)
    ancestral = draw(Ancestral(10), LinearSchedule(), 5, 0.4, 0.5)
    torch.testing.assert_close(ddim, ancestral, atol=1e-4, rtol=1e-4)


def test_stochastic_dpm_solver_starts_as_ancestral_sampling_does() -> None:
    # Its first step and its last have no step before or no noise, and are of first order.
    solver = draw(DPMSolver(1, eta=1.0), LinearSchedule(), 20, 0.4, 0.5)
    torch.testing.assert_close(solver, draw(Ancestral(1), LinearSchedule(), 20, 0.4, 0.5))
    denoise = ideal_denoiser(LinearSchedule(), 0.4, 0.5)
    first = [
        next(sampler.trajectory(denoise, torch.ones(2, 1, 4, 4), SampleNoise(0, [0, 1])))
        for sampler in (DPMSolver(10, eta=1.0), Ancestral(10))
    ]
    torch.testing.assert_close(*first, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [12, 24])
def test_stochastic_dpm_solver_is_of_higher_order_than_ancestral_sampling(steps: int) -> None:
    # Oracle: the data's standard deviation. Both add the same noise and differ in order alone.
    # On this schedule a chain with many steps is exact.
    samplers = (DPMSolver(steps, eta=1.0), Ancestral(steps))
    solver, ancestral = (draw(s, CosineSchedule(), 1000, 0.0, 0.5).std().item() for s in samplers)
    assert abs(solver - 0.5) < abs(ancestral - 0.5) / 2


def test_ddim_with_some_noise_keeps_the_marginals() -> None:
    x = draw(DDIM(1000, eta=0.3), LinearSchedule(), 12, 0.4, 0.5, shape=FEW)
    assert x.std().item() == pytest.approx(0.5, rel=0.02)


def test_only_stochastic_samplers_draw_noise() -> None:
    drawn = []

    class Counting(SampleNoise):
        def draw(self, shape) -> torch.Tensor:
            drawn.append(1)
            return super().draw(shape)

    x, denoise = torch.randn(2, 1, 4, 4), ideal_denoiser(LinearSchedule(50), 0, 0.5)
    for sampler in (DDIM(5), DPMSolver(5), Heun(5)):
        sampler.sample(denoise, x, Counting(0, range(2)))
    assert not drawn
    for sampler in (DDIM(5, eta=0.5), DPMSolver(5, eta=0.5), Ancestral(5)):
        sampler.sample(denoise, x, Counting(0, range(2)))
    assert len(drawn) > 3 * 3


@pytest.mark.parametrize("cls", SAMPLERS)
def test_the_denoiser_is_told_one_time_for_all_samples(cls: type[Sampler]) -> None:
    # A time on the CPU, of no axis: no sampler waits for a GPU, or treats samples apart.
    seen = []

    def x0(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return x_t / 2

    cls(steps=5).sample(Known(LinearSchedule(), x0), torch.randn(3, 2), SampleNoise(0, range(3)))
    assert {t.ndim for t in seen} == {0}
    assert {int(t) for t in seen} == {999, 799, 599, 399, 199}


@each_shape
@pytest.mark.parametrize("cls", SAMPLERS)
def test_trajectory_has_a_sample_for_each_step(cls: type[Sampler], shape: tuple[int, ...]) -> None:
    noise = SampleNoise(0, range(3))
    x_T, denoise = noise.draw(shape), ideal_denoiser(LinearSchedule(50), 0, 0.5)
    samples = list(cls(steps=7).trajectory(denoise, x_T, noise))
    assert len(samples) == 7
    assert all(x.shape == x_T.shape and x.dtype == torch.float32 for x in samples)
    film = cls(steps=7).sample(denoise, x_T, SampleNoise(0, range(3)), frames=3)
    assert film.shape == (3, 3, *shape)
    assert film[:, 0].equal(x_T)


@each_shape
@pytest.mark.parametrize("cls", SAMPLERS)
def test_samples_do_not_depend_on_the_batch(cls: type[Sampler], shape: tuple[int, ...]) -> None:
    schedule = LinearSchedule(50)
    together, alone = (draw(cls(steps=20), schedule, n, 0, 0.5, shape=shape) for n in (5, 2))
    torch.testing.assert_close(together[:2], alone)


@pytest.mark.parametrize("cls", SAMPLERS)
@pytest.mark.parametrize("steps", [None, 1, 2, 7, 20, 50, 999, 1000])
def test_timesteps_are_trailing(cls: type[Sampler], steps: int | None) -> None:
    # Oracle: the formula of Lin et al. 2023, table 2, in time steps from 0.
    times = cls(steps=steps).timesteps(LinearSchedule())
    n = steps or 1000
    expected = [round(1000 - i * 1000 / n) - 1 for i in range(n)]
    assert np.abs(np.array(times[:-1]) - expected).max() <= 1  # halves may be rounded both ways
    assert (times[0], times[-1], len(times)) == (999, -1, n + 1)
    assert all(s < t for t, s in pairwise(times))


@pytest.mark.parametrize("steps", [0, -5, 1001])
def test_impossible_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and T = 1000, got {steps}"):
        Ancestral(steps).timesteps(LinearSchedule())


@pytest.mark.parametrize("eta", [-0.1, 1.1])
@pytest.mark.parametrize("cls", [DDIM, DPMSolver])
def test_impossible_eta_is_refused(cls: type[DDIM | DPMSolver], eta: float) -> None:
    with pytest.raises(ValueError, match="eta must be from 0 to 1"):
        cls(10, eta)


@pytest.fixture(scope="module")
def judged(digits: MNISTDataModule) -> Callable[[torch.Tensor], torch.Tensor]:
    """How far digits are from real ones, in units of as many unseen real ones."""
    features = DigitFeatures()
    train, val = (features(digits.splits[name].x0[:2000]) for name in ("train", "val"))
    floor = frechet_distance(train, val[:100])
    return lambda x0: frechet_distance(train, features(to_uint8(x0))) / floor


@pytest.mark.parametrize("sampler", [Ancestral(20), DDIM(20), DPMSolver(20), Heun(10)])
def test_every_sampler_draws_digits(sampler: Sampler, judged) -> None:
    # Oracle: real digits. A trained network errs where an ideal one does not: at much noise.
    assert judged(load_model().sample(100, sampler=sampler, guidance=1, progress=False)) < 2
