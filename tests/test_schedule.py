import math

import numpy as np
import pytest
import torch

from lightning_ddpm.schedule import CosineSchedule, LinearSchedule, NoiseSchedule

SCHEDULES = [LinearSchedule(), LinearSchedule(20, 0.01, 0.3), CosineSchedule(), CosineSchedule(50)]


def betas_of(schedule: NoiseSchedule) -> np.ndarray:
    """The variances, from the papers' formulas and in plain Python."""
    T = schedule.T
    if isinstance(schedule, LinearSchedule):
        first, last = schedule.beta_start, schedule.beta_end
        return np.array([first + (last - first) * i / (T - 1) for i in range(T)])
    assert isinstance(schedule, CosineSchedule)
    f = [math.cos((i / T + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(T + 1)]
    return np.array([min(1 - f[i + 1] / f[i], 0.999) for i in range(T)])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_alpha_and_sigma_follow_from_the_betas(schedule: NoiseSchedule) -> None:
    # Oracle: alpha_bar as a sum of logarithms (math.fsum) instead of a product.
    log_alpha_bar = [math.fsum(np.log1p(-betas_of(schedule)[: t + 1])) for t in range(schedule.T)]
    alpha, sigma = schedule.alpha_sigma(torch.arange(schedule.T))
    torch.testing.assert_close(alpha, torch.tensor(np.exp(np.array(log_alpha_bar) / 2)).float())
    torch.testing.assert_close(sigma, torch.tensor(np.sqrt(-np.expm1(log_alpha_bar))).float())
    assert alpha.dtype == sigma.dtype == torch.float32


def test_clean_data_is_time_step_minus_one() -> None:
    alpha, sigma = LinearSchedule().alpha_sigma(torch.tensor([-1]))
    assert (alpha.item(), sigma.item()) == (1, 0)


def test_add_noise_has_the_distribution_of_the_forward_chain() -> None:
    # Oracle: Monte Carlo, one step q(x_t | x_{t-1}) after the other.
    schedule = LinearSchedule(20, 0.01, 0.3)
    chain = torch.full((200_000,), 0.7, dtype=torch.float64)
    for beta in betas_of(schedule):
        chain = math.sqrt(1 - beta) * chain + math.sqrt(beta) * torch.randn_like(chain)
    x0 = torch.full((200_000, 1, 1), 0.7)
    x_T = schedule.add_noise(x0, torch.randn_like(x0), torch.full((200_000,), 19))
    error = 4 / math.sqrt(200_000)  # four standard errors
    assert x_T.mean().item() == pytest.approx(chain.mean().item(), abs=2 * error)
    assert x_T.std().item() == pytest.approx(chain.std().item(), abs=2 * error)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(19, 18), (19, 5), (7, 6), (1, 0), (15, 0)])
def test_posterior_is_bayes_rule(schedule: NoiseSchedule, t: int, s: int) -> None:
    # Oracle: q(x_s | x_t, x_0) ~ q(x_t | x_s) q(x_s | x_0), normalised on a grid in float64.
    betas = betas_of(schedule)
    alpha_bar_s = np.prod(1 - betas[: s + 1])
    alpha_bar_ts = np.prod(1 - betas[s + 1 : t + 1])
    x0, x_t = 0.3, -0.4
    mean, variance = schedule.posterior(
        torch.full((1, 1, 1), x0), torch.full((1, 1, 1), x_t), torch.tensor([t]), torch.tensor([s])
    )
    x_s = np.linspace(-8, 8, 2_000_001)
    log_density = -((x_t - math.sqrt(alpha_bar_ts) * x_s) ** 2) / (2 * (1 - alpha_bar_ts))
    log_density -= (x_s - math.sqrt(alpha_bar_s) * x0) ** 2 / (2 * (1 - alpha_bar_s))
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    grid_mean = (density * x_s).sum()
    grid_variance = (density * (x_s - grid_mean) ** 2).sum()
    assert mean.item() == pytest.approx(grid_mean, abs=2e-5)
    assert variance.item() == pytest.approx(grid_variance, rel=2e-3)


def test_posterior_at_clean_data_is_x0() -> None:
    x0, x_t = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    t = torch.tensor([0, 5, 999])
    mean, variance = LinearSchedule().posterior(x0, x_t, t, torch.full_like(t, -1))
    torch.testing.assert_close(mean, x0)
    assert variance.tolist() == [0, 0, 0]


def test_precision_and_device_are_the_modules() -> None:
    schedule = LinearSchedule().double()
    assert schedule.alpha.dtype == torch.float64
    assert not schedule.state_dict()


@pytest.mark.parametrize("arguments", [(0,), (-3,), (10, 0.0), (10, 1e-4, 1.0), (10, 0.5, -0.1)])
def test_bad_betas_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="T >= 1 variances"):
        LinearSchedule(*arguments)
