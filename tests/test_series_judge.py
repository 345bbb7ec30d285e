"""The judge of forecasts and fillings, and the simple methods that it compares with."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import Ridge

from lightning_ddpm.judge import SeriesJudge
from lightning_ddpm.judge.baselines import (
    DRESSED,
    baselines,
    climatology,
    day_before,
    distance,
    dressed,
    linear,
    ridge,
    ridge_ahead,
)
from lightning_ddpm.judge.crps import coverage, crps, csdi_crps


def gaussian(n: int, m: int) -> np.ndarray:
    """Samples (n, 1, 1, m) of standard Gaussians."""
    return np.random.default_rng(0).standard_normal((n, 1, 1, m))


@pytest.mark.parametrize("y", [-1.5, 0.0, 0.4, 2.0])
def test_crps_of_gaussian_samples_is_the_closed_form(y: float) -> None:
    # Gneiting and Raftery 2007, eq. 5
    density = math.exp(-(y**2) / 2) / math.sqrt(2 * math.pi)
    expected = y * math.erf(y / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
    samples, truth = gaussian(1, 100_000), np.array([[[y]]])
    assert crps(samples, truth).item() == pytest.approx(expected, abs=0.01)
    quantiles = norm.ppf(np.arange(1, 20) / 20)
    level = np.arange(1, 20) / 20 - (y < quantiles)
    pinball = 2 * ((y - quantiles) * level).mean()
    if y:
        assert csdi_crps(samples, truth).item() == pytest.approx(pinball / abs(y), abs=0.01)


def test_crps_is_the_mean_of_differences() -> None:
    samples, truth = gaussian(4, 9)[:, 0, 0], np.array([0.3, -2, 5, np.nan])
    for x, y, found in zip(samples, truth, crps(samples, truth), strict=True):
        expected = np.abs(x - y).mean() - np.abs(x[:, None] - x).mean() / 2
        np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(crps(truth[:3, None], truth[:3]), 0)


def test_coverage_is_the_part_of_truths_within_the_samples() -> None:
    truth = np.random.default_rng(1).standard_normal((4000, 1, 1))
    assert coverage(gaussian(4000, 200), truth).mean() == pytest.approx(0.9, abs=0.02)
    assert coverage(gaussian(4000, 200) * 0.5, truth).mean() == pytest.approx(0.59, abs=0.03)
    assert np.isnan(coverage(gaussian(1, 20), np.full((1, 1, 1), np.nan))).all()


def windows(seed: int, n: int = 400, c: int = 3, length: int = 60) -> dict[str, torch.Tensor]:
    """Random walks with a daily wave, of which the last 12 hours are not known."""
    random = np.random.default_rng(seed)
    start = random.integers(0, 1000, n)
    time = 3600 * (start[:, None] + np.arange(length))
    wave = 3 * np.sin(2 * np.pi * time / 86400)[:, None]
    x0 = wave + random.standard_normal((n, c, length)).cumsum(-1) * 0.3
    x0[0, 0, 55] = np.nan
    known = np.broadcast_to(np.arange(length) < length - 12, x0.shape)
    arrays = {"x0": x0.astype(np.float32), "known": known.copy(), "time": time}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_persistence_and_the_day_before_are_what_they_are_called() -> None:
    train, asked = windows(0), windows(1)
    x0 = asked["x0"].numpy()
    np.testing.assert_array_equal(linear(train, asked)[..., 48:], x0[..., 47:48].repeat(12, -1))
    np.testing.assert_array_equal(day_before(train, asked)[..., 48:], x0[..., 24:36])
    far = windows(1)
    far["known"] &= torch.arange(60) < 30  # of 30 hours ahead, the last 6 know the day before that
    found = day_before(train, far)
    np.testing.assert_array_equal(found[..., 30:54], x0[..., 6:30])
    np.testing.assert_array_equal(found[..., 54:], x0[..., 6:12])
    far["known"] &= torch.arange(60) < 20
    assert day_before(train, far) is None


def test_climatology_has_the_training_values_of_the_hour_and_the_season() -> None:
    train, asked = windows(0, 4000), windows(1)
    train["time"], asked["time"] = train["time"] * 3 + 3600 * 24 * 300, asked["time"] * 3
    found, now = climatology(train, asked), asked["time"][5, 50].item()
    values = {}
    for window, times in zip(train["x0"], train["time"].tolist(), strict=True):
        for place, time in enumerate(times):
            days = (time - now) / 86400
            if days % 1 == 0 and min(abs(days - 365.2425 * year) for year in (-1, 0, 1)) < 15.5:
                values.setdefault(time, window[2, place].item())
    assert 10 <= len(values) < 60
    np.testing.assert_allclose(
        found[5, 2, 50], np.quantile(list(values.values()), DRESSED), rtol=1e-4
    )
    del train["time"], asked["time"]
    np.testing.assert_allclose(
        climatology(train, asked)[5, 2, 50],
        np.nanquantile(train["x0"][:, 2].numpy(), DRESSED),
        rtol=1e-4,
    )


def test_a_dressed_prediction_has_the_quantiles_of_its_errors_as_far_ahead() -> None:
    train, asked = windows(0), windows(1)
    fitted, predicted = linear(train, train), linear(train, asked)
    found = dressed(train, fitted, asked, predicted)
    for j, place in ((0, 48), (0, 55), (2, 59)):
        errors = (train["x0"].numpy() - fitted)[:, j, place]
        expected = predicted[3, j, place] + np.nanquantile(errors, DRESSED)
        np.testing.assert_allclose(found[3, j, place], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[..., :48, 0], predicted[..., :48])


def test_distance_counts_steps_to_what_is_known() -> None:
    known = torch.tensor([[[1, 0, 0, 0, 1, 0]], [[0, 0, 1, 1, 0, 0]], [[0] * 6]]).bool()
    assert distance(known)[:, 0].tolist() == [[0, 1, 2, 1, 0, 1], [2, 1, 0, 0, 1, 2], [6] * 6]


def test_ridge_is_scikit_learn_s() -> None:
    random = np.random.default_rng(0)
    x, asked = random.normal(3, 2, (200, 5)), random.normal(3, 2, (10, 5))
    y = x @ random.standard_normal((5, 2)) + random.standard_normal((200, 2))
    scaled = [(part - x.mean(0)) / x.std(0) for part in (x, asked)]
    expected = Ridge(300.0).fit(scaled[0], y).predict(scaled[1])
    np.testing.assert_allclose(ridge(x, y, asked), expected, rtol=1e-4, atol=1e-4)


def test_levels_that_training_never_had_do_not_matter_to_nlinear() -> None:
    train, asked, high = windows(0), windows(1), windows(1)
    high["x0"] = high["x0"] + 50
    found, expected = (ridge_ahead(train, batch, relative=True) for batch in (high, asked))
    np.testing.assert_allclose(found[..., 48:], expected[..., 48:] + 50, atol=1e-3)
    assert np.abs(ridge_ahead(train, high) - expected - 50)[..., 48:].max() > 1


def test_what_can_be_learned_ridge_learns() -> None:
    train, asked = windows(0, 800), windows(1)
    scores = {n: np.nanmean(e) for n, e in baselines(train, asked, True).items()}
    assert min(scores, key=scores.get) == "crps_nlinear"  # of random walks
    assert sorted(scores, key=scores.get)[1] == "crps_ridge"
    names = ("ridge", "nlinear", "persistence", "day_before", "climatology")
    assert set(scores) == {f"crps_{name}" for name in names}
    train["known"][:, 0], asked["known"][:, 0] = True, True  # of what is known ahead, ridge knows
    for batch in (train, asked):
        batch["x0"][:, 1] = batch["x0"][:, 0].nan_to_num(0) * 2
    ahead = {n: np.nanmean(e[:, 1]) for n, e in baselines(train, asked, True).items()}
    assert ahead["crps_ridge"] < 0.3 * ahead["crps_day_before"]
    assert np.isnan(baselines(train, asked, True)["crps_ridge"][:, 0]).all()
    for batch in (train, asked):  # the third is the sum of the others: its gaps can be read there
        batch["x0"][:, 2] = batch["x0"][:, :2].sum(1)
        batch["known"] = torch.ones_like(batch["known"])
        batch["known"][:, 2, 20:40] = False
    scores = {n: np.nanmean(e) for n, e in baselines(train, asked, False).items()}
    assert set(scores) == {"crps_ridge", "crps_linear", "crps_climatology"}
    assert scores["crps_ridge"] < 0.2 * scores["crps_linear"]


def judge_of(asked: dict[str, torch.Tensor], draws: int) -> SeriesJudge:
    """A judge of these windows."""

    def held_out(indices) -> dict[str, torch.Tensor]:
        return {name: value[torch.tensor(indices) // draws] for name, value in asked.items()}

    names = ["one", "two", "three"]
    return SeriesJudge(windows(0), held_out, names, draws, draws * len(asked["x0"]))


def test_the_judge_compares_each_sample_with_its_own_truth() -> None:
    asked = windows(1, 20)
    truth = asked["x0"].nan_to_num(0).repeat_interleave(4, 0)
    judge, order = judge_of(asked, 4), torch.randperm(80)
    for part in order.split(33):  # in any order
        judge.update(truth[part], part)
    perfect = judge.figures()
    assert perfect["crps/two"] == pytest.approx(0, abs=1e-6)
    assert perfect["coverage_90/one"] == 1
    assert "loses" not in judge.table({"samples": 80.0, **perfect})
    noisy = judge.score(truth + torch.randn(80, 3, 60) * 30)
    off = noisy["crps/two"]
    parts = [noisy[f"crps_{a}_to_{a + 2}/two"] for a in (1, 4, 7, 10)]
    assert np.mean(parts) == pytest.approx(off)
    lines = judge.table({"samples": 80.0, **noisy}).splitlines()
    assert lines[3].startswith("two")
    assert lines[3].endswith("loses to climatology, persistence, day_before, ridge, nlinear")
    assert f"{off:.3f}" in lines[3]


def test_the_judge_s_baselines_are_those_of_its_windows() -> None:
    asked = windows(1, 20)
    judge = judge_of(asked, 100)
    train = windows(0)
    made = dressed(train, ridge_ahead(train, train), asked, ridge_ahead(train, asked))
    figures = judge.score(torch.from_numpy(made).movedim(-1, 1).flatten(0, 1))
    for name in ("one", "two", "three"):
        assert figures[f"crps/{name}"] == pytest.approx(figures[f"crps_ridge/{name}"], rel=1e-4)
