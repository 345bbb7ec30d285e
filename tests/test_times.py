"""Schedules are asked at any real time, for each sample or for all, on any device."""

from copy import deepcopy

import pytest
import torch
from test_schedule import BETA_SCHEDULES
from toys import ConstantSchedule

from lightning_ddpm.schedule import CosineSchedule, LinearSchedule, NoiseSchedule, RectifiedFlow

PRESERVING = [*BETA_SCHEDULES, ConstantSchedule()]
SCHEDULES = [*PRESERVING, RectifiedFlow(20), RectifiedFlow()]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_clean_data_is_time_step_minus_one(schedule: NoiseSchedule) -> None:
    for t in (torch.tensor([-1]), torch.tensor(-1), torch.tensor([-1.0]).double()):
        alpha, sigma = schedule.alpha_sigma(t)
        assert (alpha.item(), sigma.item()) == (1, 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_real_time_is_an_integer_or_lies_between_two(schedule: NoiseSchedule) -> None:
    t = torch.arange(-1, schedule.T)
    whole = schedule.alpha_sigma(t.float())
    torch.testing.assert_close(whole, schedule.alpha_sigma(t), atol=0, rtol=0)
    alpha, sigma = schedule.alpha_sigma(t.double())
    for part in (0.1, 0.5, 0.9):
        alpha_between, sigma_between = schedule.alpha_sigma(t[:-1].double() + part)
        assert ((alpha[1:] < alpha_between) & (alpha_between < alpha[:-1])).all()
        assert ((sigma[:-1] < sigma_between) & (sigma_between < sigma[1:])).all()


@pytest.mark.parametrize("schedule", BETA_SCHEDULES)
def test_alpha_bar_is_a_straight_line_from_step_to_step(schedule: NoiseSchedule) -> None:
    t = torch.arange(schedule.T, dtype=torch.float64)
    alpha_bar = schedule.alpha_sigma(t)[0] ** 2
    between = schedule.alpha_sigma(t[:-1] + 0.25)[0] ** 2
    expected = 0.75 * alpha_bar[:-1] + 0.25 * alpha_bar[1:]
    torch.testing.assert_close(between, expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("schedule", PRESERVING)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_variance_is_preserved_at_all_times(
    schedule: NoiseSchedule, dtype: torch.dtype, error: float
) -> None:
    t = torch.linspace(-1, schedule.T - 1, 777, dtype=dtype)
    alpha, sigma = schedule.alpha_sigma(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), atol=error, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("times", [[-1, 0, 7, 19], [-0.5, 0.3, 7.25, 18.9]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_time_for_all_is_the_time_of_each(
    schedule: NoiseSchedule, times: list[float], dtype: torch.dtype
) -> None:
    of_each = schedule.alpha_sigma(torch.tensor(times, dtype=dtype))
    for i, time in enumerate(times):
        of_all = schedule.alpha_sigma(torch.tensor(time, dtype=dtype))
        assert [value.shape for value in of_all] == [(), ()]
        expected = tuple(value[i] for value in of_each)
        torch.testing.assert_close(of_all, expected, atol=0, rtol=0)


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(50)])
def test_a_time_is_answered_where_it_is(schedule: NoiseSchedule) -> None:
    # A device without values stands for a GPU: what asks it would fail, or have to wait.
    elsewhere = deepcopy(schedule).to("meta")
    for t in (torch.tensor(7), torch.tensor([-1, 7]), torch.tensor([7.5])):
        answers = elsewhere.alpha_sigma(t)
        assert {value.device.type for value in answers} == {"cpu"}
        torch.testing.assert_close(answers, schedule.alpha_sigma(t))
