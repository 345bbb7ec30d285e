import math
from statistics import NormalDist

import pytest
import torch
from gaussian import each_shape
from torch.nn import functional as F

from lightning_ddpm.denoiser import Denoiser
from lightning_ddpm.networks import Network
from lightning_ddpm.noise import BatchNoise
from lightning_ddpm.objective import (
    DataTarget,
    FlowTarget,
    LogitNormalTimes,
    MinSNRWeighting,
    NoiseTarget,
    Target,
    TimeSampler,
    UniformTimes,
    UniformWeighting,
    VelocityTarget,
    squared_error,
)
from lightning_ddpm.schedule import LinearSchedule, NoiseSchedule, RectifiedFlow
from lightning_ddpm.shapes import expand_like

TARGETS = [NoiseTarget(), DataTarget(), VelocityTarget(), FlowTarget()]
SCHEDULES = [LinearSchedule(), RectifiedFlow()]
X_T = torch.randn(2, 1, 8, 8)


class Shouting(Network):
    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return 5 * torch.randn_like(x_t)


class Convolution(Network):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return self.layer(x_t)


def inputs(shape: tuple[int, ...], schedule: NoiseSchedule) -> tuple[torch.Tensor, ...]:
    """x0, noise, alpha, sigma in float64, from almost clean to almost pure noise."""
    x0, noise = torch.rand(4, *shape).double() * 2 - 1, torch.randn(4, *shape).double()
    factors = schedule.alpha_sigma(torch.tensor([0, 10, 500, 998], dtype=torch.float64))
    return x0, noise, *(expand_like(value, x0) for value in factors)


@each_shape
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_targets_round_trip(
    target: Target, schedule: NoiseSchedule, shape: tuple[int, ...]
) -> None:
    # A network that outputs the target itself must be read as the x0 it came from.
    x0, noise, alpha, sigma = inputs(shape, schedule)
    output = target.target(x0, noise, alpha, sigma)
    again = target.x0(output, alpha * x0 + sigma * noise, alpha, sigma)
    torch.testing.assert_close(again, x0, atol=1e-5, rtol=0)


@each_shape
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_x0_error_is_what_an_error_of_the_output_does(
    target: Target, schedule: NoiseSchedule, shape: tuple[int, ...]
) -> None:
    # Oracle: a finite error, put in.
    x0, noise, alpha, sigma = inputs(shape, schedule)
    x_t, output = alpha * x0 + sigma * noise, target.target(x0, noise, alpha, sigma)
    change = target.x0(output + 0.1, x_t, alpha, sigma) - target.x0(output, x_t, alpha, sigma)
    expected = change.square().flatten(1).mean(1) / 0.01
    actual = target.x0_error(alpha.flatten(), sigma.flatten())
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)


@each_shape
def test_velocity_is_the_derivative_along_the_circle(shape: tuple[int, ...]) -> None:
    # Oracle: x_phi = cos(phi) x0 + sin(phi) noise, differentiated numerically.
    x0, noise, alpha, sigma = inputs(shape, LinearSchedule())
    phi, d = torch.atan2(sigma, alpha), 1e-5
    ahead, behind = ((phi + e).cos() * x0 + (phi + e).sin() * noise for e in (d, -d))
    velocity = VelocityTarget().target(x0, noise, alpha, sigma)
    torch.testing.assert_close(velocity, (ahead - behind) / (2 * d), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_the_papers_weight_of_each_target(gamma: float) -> None:
    # Oracle: Hang et al. 2023, section 3.4, for its three targets; and v = (x_t - x0) / sigma, on
    # the line of Liu et al. 2022, whose error is that of x0 times (sqrt(SNR) + 1)^2.
    alpha, sigma = LinearSchedule().alpha_sigma(torch.arange(1000))
    snr = (alpha / sigma) ** 2
    capped = torch.minimum(snr, torch.tensor(gamma))
    for target, expected in (
        (DataTarget(), capped),
        (NoiseTarget(), capped / snr),
        (VelocityTarget(), capped / (snr + 1)),
        (FlowTarget(), capped / (snr.sqrt() + 1) ** 2),
    ):
        weight = MinSNRWeighting(gamma).weight(target, alpha, sigma)
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-6)
        assert UniformWeighting().weight(target, alpha, sigma).eq(1).all()


@pytest.mark.parametrize("times", [UniformTimes(), LogitNormalTimes(), LogitNormalTimes(-0.5, 2.0)])
def test_times_have_their_distribution(times: TimeSampler) -> None:
    # Oracle: the distribution function, with Python's own normal distribution.
    schedule, size = LinearSchedule(400), 100_000
    t = times.draw(schedule, BatchNoise(torch.Generator().manual_seed(0), size))
    assert t.dtype == torch.int64
    assert (t.min() >= 0) & (t.max() <= 399)
    for q in (0.05, 0.3, 0.5, 0.9):
        below = (t < q * 400).double().mean().item()
        if isinstance(times, LogitNormalTimes):
            expected = NormalDist(times.mean, times.std).cdf(math.log(q / (1 - q)))
        else:
            expected = q
        assert below == pytest.approx(expected, abs=4 * math.sqrt(expected / size))


@pytest.mark.parametrize(("cls", "value"), [(LogitNormalTimes, 0.0), (MinSNRWeighting, -1.0)])
def test_bad_arguments_are_refused(cls: type, value: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        cls(**{"std" if cls is LogitNormalTimes else "gamma": value})


@each_shape
def test_squared_error_is_per_sample(shape: tuple[int, ...]) -> None:
    output, target = torch.randn(3, *shape), torch.randn(3, *shape)
    expected = [F.mse_loss(o, t).item() for o, t in zip(output, target, strict=True)]
    torch.testing.assert_close(squared_error(output, target), torch.tensor(expected))


@each_shape
@pytest.mark.parametrize("t", [torch.tensor([3, 400, 900]), torch.tensor(400)], ids=["each", "all"])
def test_denoiser_clips_x0_and_keeps_x_t(t: torch.Tensor, shape: tuple[int, ...]) -> None:
    # Whatever the network says, x0 is in range, and alpha x0 + sigma noise is x_t again.
    schedule, x_t = LinearSchedule(), torch.randn(3, *shape)
    x0, noise, _ = Denoiser(Shouting(), schedule, NoiseTarget())(x_t, t)
    assert x0.abs().max() == 1
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), x_t)
    x0, noise, _ = Denoiser(Shouting(), schedule, NoiseTarget(), value_range=(-0.5, 2))(x_t, t)
    assert (x0.min(), x0.max()) == (-0.5, 2)
    x0, noise, _ = Denoiser(Shouting(), schedule, NoiseTarget(), value_range=None)(x_t, t)
    assert x0.abs().max() > 2
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), x_t, atol=1e-4, rtol=1e-4)


def test_denoiser_returns_float32_under_autocast() -> None:
    network = Convolution()
    denoise = Denoiser(network, LinearSchedule(), NoiseTarget())
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 1, 8, 8), torch.tensor([0])).dtype == torch.bfloat16
        prediction = denoise(torch.randn(2, 1, 8, 8), torch.tensor([0, 999]))
    assert prediction.x0.dtype == prediction.noise.dtype == torch.float32


@pytest.mark.parametrize(("variance", "large"), [("small", [0, 0]), ("large", [0, 1])])
def test_fixed_variances_are_the_small_and_the_large_one(variance: str, large: list[int]) -> None:
    # At t = 0 the small one, as in the code of Ho et al. 2020.
    denoise, x_t = Denoiser(Convolution(), LinearSchedule(), NoiseTarget(), variance), X_T
    assert denoise(x_t, torch.tensor([0, 999])).large.flatten().tolist() == large
    assert [denoise(x_t, torch.tensor(t)).large.item() for t in (0, 999)] == large


@each_shape
def test_learned_variance_is_the_second_half_of_the_output(shape: tuple[int, ...]) -> None:
    def network(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.cat([x_t, torch.full_like(x_t, 0.5)], dim=1)

    denoise = Denoiser(network, LinearSchedule(), NoiseTarget(), "learned")
    for t in (torch.tensor([0, 999]), torch.tensor(999)):
        x0, _, large = denoise(torch.randn(2, *shape), t)
        assert large.shape == x0.shape
        assert large.eq(0.75).all()
