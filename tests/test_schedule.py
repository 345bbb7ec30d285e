import math

import numpy as np
import pytest
import torch
from gaussian import SHAPES, each_shape

from lightning_ddpm.denoiser import Denoiser
from lightning_ddpm.networks import Network
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import DataTarget, FlowTarget, NoiseTarget, Target, VelocityTarget
from lightning_ddpm.parts import check_target
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver, Heun
from lightning_ddpm.schedule import (
    BetaSchedule,
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    RectifiedFlow,
    SigmoidSchedule,
    ZeroTerminalSNR,
)

BETA_SCHEDULES = [
    LinearSchedule(),
    LinearSchedule(20, 0.01, 0.3),
    CosineSchedule(),
    CosineSchedule(50),
    SigmoidSchedule(),
    SigmoidSchedule(30, tau=0.5),
    ZeroTerminalSNR(),
    ZeroTerminalSNR(CosineSchedule(50)),
]
SCHEDULES = [*BETA_SCHEDULES, RectifiedFlow(20), RectifiedFlow()]


def betas_of(schedule: NoiseSchedule) -> np.ndarray:
    """The variances, from the papers' formulas and in plain Python."""
    T = schedule.T
    if isinstance(schedule, LinearSchedule):
        first, last = schedule.beta_start, schedule.beta_end
        return np.array([first + (last - first) * i / (T - 1) for i in range(T)])
    if isinstance(schedule, SigmoidSchedule):
        place = [(6 * i / T - 3) / schedule.tau for i in range(T + 1)]
        f = [1 / (1 + math.exp(p)) for p in place]
        f = [(value - f[-1]) / (f[0] - f[-1]) for value in f]
        return np.array([min(1 - f[i + 1] / f[i], 0.999) for i in range(T)])
    if isinstance(schedule, ZeroTerminalSNR):  # algorithm 1 of Lin et al. 2023
        root = np.sqrt(np.cumprod(1 - betas_of(schedule.schedule)))
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return 1 - (root / np.concatenate([[1], root[:-1]])) ** 2
    assert isinstance(schedule, CosineSchedule)
    f = [math.cos((i / T + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(T + 1)]
    return np.array([min(1 - f[i + 1] / f[i], 0.999) for i in range(T)])


def factors_of(schedule: NoiseSchedule) -> tuple[np.ndarray, np.ndarray]:
    """alpha and sigma^2 at each time step, from the papers' formulas."""
    if isinstance(schedule, RectifiedFlow):  # eq. 1 of Liu et al. 2022
        u = np.arange(1, schedule.T + 1) / schedule.T
        return 1 - u, u**2
    alpha_bar = np.cumprod(1 - betas_of(schedule))
    return np.sqrt(alpha_bar), 1 - alpha_bar


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
def test_alpha_and_sigma_follow_from_the_betas(schedule: NoiseSchedule, dtype: torch.dtype) -> None:
    # Oracle: alpha_bar as a sum of logarithms (math.fsum) instead of a product, in float64, whose
    # precision a time in float64 gets.
    with np.errstate(divide="ignore"):  # the logarithm of zero SNR
        logs = np.log1p(-betas_of(schedule))
    log_alpha_bar = [math.fsum(logs[: t + 1]) for t in range(schedule.T)]
    alpha, sigma = schedule.alpha_sigma(torch.arange(schedule.T, dtype=dtype))
    precise = dtype == torch.float64
    assert alpha.dtype == sigma.dtype == (dtype if precise else torch.float32)
    exact = torch.tensor(np.exp(np.array(log_alpha_bar) / 2)).to(alpha)
    tolerance = {"atol": 1e-13, "rtol": 1e-10} if precise else {"atol": 1e-7, "rtol": 1e-5}
    torch.testing.assert_close(alpha, exact, **tolerance)
    exact = torch.tensor(np.sqrt(-np.expm1(log_alpha_bar))).to(sigma)
    torch.testing.assert_close(sigma, exact, **tolerance)


@each_shape
def test_add_noise_has_the_distribution_of_the_forward_chain(shape: tuple[int, ...]) -> None:
    # Oracle: Monte Carlo, one step q(x_t | x_{t-1}) after the other.
    schedule = LinearSchedule(20, 0.01, 0.3)
    chain = torch.full((200_000,), 0.7, dtype=torch.float64)
    for beta in betas_of(schedule):
        chain = math.sqrt(1 - beta) * chain + math.sqrt(beta) * torch.randn_like(chain)
    x0 = torch.full((200_000 // math.prod(shape), *shape), 0.7)
    x_T = schedule.add_noise(x0, torch.randn_like(x0), torch.full((len(x0),), 19))
    error = 4 / math.sqrt(200_000)  # four standard errors
    assert x_T.mean().item() == pytest.approx(chain.mean().item(), abs=2 * error)
    assert x_T.std().item() == pytest.approx(chain.std().item(), abs=2 * error)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(19, 18), (19, 5), (1, 0)])
def test_posterior_is_bayes_rule(schedule: NoiseSchedule, t: int, s: int) -> None:
    # Oracle: q(x_s | x_t, x_0) ~ q(x_t | x_s) q(x_s | x_0), normalised on a grid in float64.
    alpha, sigma2 = factors_of(schedule)
    alpha_ts = alpha[t] / alpha[s]
    sigma2_ts = sigma2[t] - alpha_ts**2 * sigma2[s]
    x0, x_t = 0.3, -0.4
    mean, variance = schedule.posterior(
        torch.full((1, 1, 1), x0), torch.full((1, 1, 1), x_t), torch.tensor([t]), torch.tensor([s])
    )
    x_s = np.linspace(-8, 8, 2_000_001)
    log_density = -((x_t - alpha_ts * x_s) ** 2) / (2 * sigma2_ts)
    log_density -= (x_s - alpha[s] * x0) ** 2 / (2 * sigma2[s])
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    grid_mean = (density * x_s).sum()
    grid_variance = (density * (x_s - grid_mean) ** 2).sum()
    assert mean.item() == pytest.approx(grid_mean, abs=2e-5)
    assert variance.item() == pytest.approx(grid_variance, rel=2e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(19, 18), (19, 5), (1, 0)])
def test_reverse_variance_lies_between_the_posterior_and_the_forward_process(
    schedule: NoiseSchedule, t: int, s: int
) -> None:
    # Oracle: Ho et al. 2020, section 3.2.
    alpha, sigma2 = factors_of(schedule)
    beta = sigma2[t] - (alpha[t] / alpha[s]) ** 2 * sigma2[s]
    beta_tilde = beta * sigma2[s] / sigma2[t]
    for large, expected in ((0.0, beta_tilde), (1.0, beta), (0.5, math.sqrt(beta * beta_tilde))):
        for shape in ((1,), ()):  # for each sample, and for all
            times = torch.full(shape, t), torch.full(shape, s)
            variance = schedule.reverse_variance(torch.full((1, 1, 1), large), *times)
            assert variance.item() == pytest.approx(expected, rel=2e-3)


def test_reverse_variance_of_the_last_step_is_clipped() -> None:
    schedule, small = LinearSchedule(), torch.zeros(1, 1)
    last = schedule.reverse_variance(small, torch.tensor([0]), torch.tensor([-1]))
    before = schedule.reverse_variance(small, torch.tensor([1]), torch.tensor([0]))
    assert last.item() == before.item() > 0


@each_shape
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_each_sample_has_its_own_time(schedule: NoiseSchedule, shape: tuple[int, ...]) -> None:
    # Oracle: each sample alone, at a time of no axis.
    x0, x_t, large = torch.randn(3, *shape), torch.randn(3, *shape), torch.rand(3, *shape)
    t, s = torch.tensor([0, 7, 19]), torch.tensor([-1, 3, 18])
    noisy, variance = schedule.add_noise(x0, x_t, t), schedule.reverse_variance(large, t, s)
    mean, posterior_variance = schedule.posterior(x0, x_t, t, s)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(noisy[one], schedule.add_noise(x0[one], x_t[one], t[i]))
        alone = schedule.posterior(x0[one], x_t[one], t[i], s[i])
        torch.testing.assert_close((mean[one], posterior_variance[i]), alone)
        alone = schedule.reverse_variance(large[one], t[i], s[i])
        torch.testing.assert_close(variance[one], alone)


def test_zero_terminal_snr() -> None:
    schedule = ZeroTerminalSNR(LinearSchedule(100))
    alpha, sigma = schedule.alpha_sigma(torch.tensor([0, 99]))
    assert alpha[1].item() == 0
    assert sigma[1].item() == 1
    assert alpha[0].item() == LinearSchedule(100).alpha_sigma(torch.tensor(0))[0].item()
    with pytest.raises(ValueError, match="take VelocityTarget or DataTarget"):
        check_target(NoiseTarget(), schedule)


class Copy(Network):
    """Says that whatever it is asked for is x_t."""

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return x_t


@pytest.mark.parametrize(("T", "shape"), [(2, SHAPES[0]), (3, (1, 2, 2)), (4000, SHAPES[-1])])
@pytest.mark.parametrize("target", [NoiseTarget(), DataTarget(), VelocityTarget(), FlowTarget()])
def test_nothing_is_infinite_at_the_endpoints(
    T: int, shape: tuple[int, ...], target: Target
) -> None:
    schedules: list[NoiseSchedule] = [LinearSchedule(T), CosineSchedule(T), SigmoidSchedule(T)]
    if not isinstance(target, NoiseTarget):
        schedules += [*(ZeroTerminalSNR(schedule) for schedule in schedules), RectifiedFlow(T)]
    noise = SampleNoise(0, range(2))
    x = noise.draw(shape)
    for schedule in schedules:
        check_target(target, schedule)
        ends = torch.tensor([0, T - 1])
        alpha, sigma = schedule.alpha_sigma(ends)
        denoise = Denoiser(Copy(), schedule, target, "large")
        values = [*denoise(x, ends), target.x0_error(alpha, sigma), (alpha / sigma) ** 2]
        values += schedule.posterior(x, x, ends, ends - 1)
        for sampler in (Ancestral, DDIM, DPMSolver, Heun):
            for steps in {1, min(T, 2), min(T, 20)}:
                values.append(sampler(steps).sample(denoise, x, noise))
        values.append(DDIM(min(T, 20), eta=1.0).sample(denoise, x, noise))
        assert all(value.isfinite().all() for value in values), schedule


@each_shape
@pytest.mark.parametrize("schedule", [LinearSchedule(), ZeroTerminalSNR(), RectifiedFlow()])
def test_posterior_at_clean_data_is_x0(schedule: NoiseSchedule, shape: tuple[int, ...]) -> None:
    x0, x_t = torch.randn(3, *shape), torch.randn(3, *shape)
    t = torch.tensor([0, 5, 999])
    mean, variance = schedule.posterior(x0, x_t, t, torch.full_like(t, -1))
    torch.testing.assert_close(mean, x0)
    assert variance.tolist() == [0, 0, 0]


def test_precision_and_device_are_the_modules() -> None:
    schedule = LinearSchedule().double()
    assert {value.dtype for value in schedule.alpha_sigma(torch.tensor([5]))} == {torch.float64}
    assert not schedule.state_dict()


@pytest.mark.parametrize(
    "arguments", [(0,), (-3,), (1,), (10, 0.0), (10, 1e-4, 1.1), (10, 0.5, -0.1)]
)
def test_bad_betas_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="T >= 2 variances"):
        LinearSchedule(*arguments)


def test_only_the_last_step_may_be_pure_noise() -> None:
    with pytest.raises(ValueError, match="T >= 2 variances"):
        BetaSchedule(torch.tensor([0.1, 1.0, 0.1]))


@pytest.mark.parametrize("T", [-1, 0, 1])
def test_a_flow_of_one_step_is_refused(T: int) -> None:
    with pytest.raises(ValueError, match=f"T >= 2 time steps, got {T}"):
        RectifiedFlow(T)
