"""Forecasts: their judge, and series on the command line."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import FULL_MNIST
from PIL import Image
from scipy.stats import norm
from sklearn.linear_model import Ridge
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import call, error_of, last_of

from lightning_ddpm.data import SeriesDataModule
from lightning_ddpm.judge import SeriesJudge
from lightning_ddpm.judge.series import (
    DRESSED,
    baselines,
    climatology,
    coverage,
    crps,
    csdi_crps,
    day_before,
    distance,
    dressed,
    linear,
    ridge,
    ridge_ahead,
)

HOURS = pd.date_range("2020-03-01", periods=600, freq="h")
TINY = (
    *("--model.network.init_args.width", 16, "--model.network.init_args.layers", 1),
    *("--steps", 2, "--context", 12, "--horizon", 6, "--num_windows", 5, "--draws", 7),
    *("--max_epochs", 1, "--limit_train_batches", 4, "--check_val_every_n_epoch", 1),
)


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


def test_climatology_has_the_training_values_of_the_hour() -> None:
    train, asked = windows(0), windows(1)
    found, hour = climatology(train, asked), asked["time"][5, 50] % 86400
    values = train["x0"].permute(0, 2, 1)[train["time"] % 86400 == hour][:, 2].numpy()
    np.testing.assert_allclose(found[5, 2, 50], np.nanquantile(values, DRESSED), rtol=1e-5)


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


def test_what_can_be_learned_ridge_learns() -> None:
    train, asked = windows(0, 2000), windows(1)
    scores = {n: np.nanmean(e) for n, e in baselines(train, asked, True).items()}
    assert min(scores, key=scores.get) == "crps_ridge"
    names = ("ridge", "persistence", "day_before", "climatology")
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
    assert lines[3].endswith("loses to climatology, persistence, day_before, ridge")
    assert f"{off:.3f}" in lines[3]


def test_the_judge_s_baselines_are_those_of_its_windows() -> None:
    asked = windows(1, 20)
    judge = judge_of(asked, 100)
    train = windows(0)
    made = dressed(train, ridge_ahead(train, train), asked, ridge_ahead(train, asked))
    figures = judge.score(torch.from_numpy(made).movedim(-1, 1).flatten(0, 1))
    for name in ("one", "two", "three"):
        assert figures[f"crps/{name}"] == pytest.approx(figures[f"crps_ridge/{name}"], rel=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short run on the weather."""
    folder = tmp_path_factory.mktemp("forecast")
    judged = ("--evaluation.every_n_epochs", 1, "--evaluation.num_samples", 35)
    call("--config", "series", *TINY, *judged, "--trainer.default_root_dir", folder)
    return folder


def test_forecasts_of_held_out_windows_are_written(folder: Path, tmp_path: Path) -> None:
    call("predict", "--ckpt_path", folder / last_of(0), "--outdir", tmp_path)
    found = dict(np.load(tmp_path / "samples.npz"))
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "series": ((5, 7, 12, 18), "float32"),
        "known": ((5, 12, 18), "bool"),
        "truth": ((5, 12, 18), "float32"),
        "row": ((5, 18), "int64"),
        "time": ((5, 18), "int64"),
    }
    data = SeriesDataModule(context=12, horizon=6)
    rows = (found["time"] - data.table.start) // 3600
    assert (rows == found["row"]).all()
    assert data.rows()["test"][rows[:, 12:]].all()
    truth = data.table.values[rows].transpose(0, 2, 1)
    np.testing.assert_array_equal(found["truth"], truth)
    measured = ~np.isnan(truth)
    assert (found["known"] == ((np.arange(18) < 12) & measured)).all()
    known = np.broadcast_to(found["known"][:, None], found["series"].shape)
    assert (found["series"] == truth[:, None])[known].all()  # bit for bit
    spread = found["series"].std(1)
    assert (spread[~found["known"]] > 0).all()
    table = pd.read_csv(tmp_path / "forecast.csv")
    assert list(table) == ["window", "time", "series", "0.05", "0.25", "0.5", "0.75", "0.95"]
    assert len(table) == (~found["known"]).sum()
    row = table[(table.window == 3) & (table.series == "LGA wind")].iloc[-2]
    assert pd.Timestamp(row["time"]).timestamp() == found["time"][3, 16]
    expected = np.quantile(found["series"][3, :, 5, 16], 0.75)
    assert row["0.75"] == pytest.approx(expected, rel=1e-4)
    picture = np.asarray(Image.open(tmp_path / "forecast.png"))
    assert picture.shape[1] > 800
    assert {name.name for name in tmp_path.iterdir()} == {
        *("samples.npz", "forecast.csv", "forecast.png", ".written"),
    }


def test_forecasts_are_the_same_again_and_of_other_batches(folder: Path, tmp_path: Path) -> None:
    arrays = []
    for name, options in (("a", ()), ("b", ("--batch_size", 9))):
        out = tmp_path / name
        call("predict", "--ckpt_path", folder / last_of(0), "--outdir", out, *options)
        arrays.append(np.load(out / "samples.npz")["series"])
    np.testing.assert_allclose(*arrays, atol=2e-3)


def test_the_dashboard_has_fans_and_figures(folder: Path) -> None:
    events = EventAccumulator(str(folder / "lightning_logs" / "version_0")).Reload()
    assert "samples" in events.Tags()["images"]
    tags = events.Tags()["scalars"]
    assert "eval/crps/JFK temperature" in tags
    assert "eval/crps_ridge/JFK temperature" in tags
    (png,) = (folder / "lightning_logs" / "version_0" / "grids").iterdir()
    assert np.asarray(Image.open(png)).std() > 10


def test_test_prints_each_series_beside_the_simple_methods(
    folder: Path, tmp_path: Path, capfd
) -> None:
    run = ("test", "--ckpt_path", folder / last_of(0), "--outdir", tmp_path)
    call(*run, "--num_samples", 35)
    printed = capfd.readouterr().out
    (line,) = [line for line in printed.splitlines() if line.startswith("EWR pressure")]
    assert "loses to" in line  # after four batches
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["samples"] == 35
    assert f"{figures['crps/EWR pressure']:.3f}" in line
    assert "crps_climatology/EWR pressure" in figures
    call(*run, "--num_samples", 35, "--task", "gaps")
    assert "crps_linear/JFK wind" in json.loads((tmp_path / "metrics.json").read_text())


def own(path: Path, columns: dict[str, np.ndarray], rows: int = 600) -> Path:
    """A table of these columns."""
    pd.DataFrame({"when": HOURS[:rows], **columns}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A table of one's own, and the folder of a short run on two of its columns."""
    folder = tmp_path_factory.mktemp("own")
    hour = np.arange(600)
    columns = {
        "sales": 50 + 20 * np.sin(hour / 4),
        "note": np.full(600, "fine"),
        "price": 3 + np.cos(hour / 9),
    }
    path = own(folder / "own.csv", columns)
    options = ("--csv", path, "--columns", "price,sales", "--trainer.default_root_dir", folder)
    call("--config", "series", *TINY, *options)
    return path, folder


def test_a_table_of_one_s_own_is_forecast_beyond_its_end(waves, tmp_path: Path) -> None:
    path, folder = waves
    call("predict", "--ckpt_path", folder / last_of(0), "--outdir", tmp_path)
    table = pd.read_csv(tmp_path / "forecast.csv")
    assert set(table["series"]) == {"price", "sales"}
    assert table["time"].min() == str(HOURS[-1] + pd.Timedelta("1h"))
    assert len(table) == 2 * 6
    found = np.load(tmp_path / "samples.npz")
    assert found["series"].shape == (1, 7, 2, 18)
    assert np.isnan(found["truth"][0, :, 12:]).all()
    assert (found["truth"][0, 0, :12] == pd.read_csv(path)["price"][-12:].astype("f4")).all()


def test_another_table_with_the_same_columns_is_forecast(waves, tmp_path: Path) -> None:
    # In another order, shorter than the context, with a gap, which is filled.
    path = own(tmp_path / "other.csv", {"sales": np.arange(9.0), "price": np.arange(9.0)}, 9)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], *lines[6:]]) + "\n")
    call("predict", "--ckpt_path", waves[1] / last_of(0), "--csv", path, "--outdir", tmp_path)
    table = pd.read_csv(tmp_path / "forecast.csv")
    price = table[table.series == "price"]
    assert list(price["time"]) == list(map(str, [*HOURS[3:5], *HOURS[9:15]]))


def test_what_is_known_ahead_is_not_judged(waves, tmp_path: Path, capfd) -> None:
    options = ("--csv", waves[0], "--columns", "price, sales", "--known_ahead", "price")
    call("--config", "series", *TINY, *options, "--trainer.default_root_dir", tmp_path)
    capfd.readouterr()
    call("test", "--ckpt_path", tmp_path / last_of(0), "--num_samples", 20)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "." in line and "loss" not in line] == ["sales"]
    assert any(line.startswith("14 samples") for line in lines)  # whole windows
    call("predict", "--ckpt_path", tmp_path / last_of(0), "--outdir", tmp_path)
    found = pd.read_csv(tmp_path / "forecast.csv")
    assert found[found.series == "sales"].time.min() == str(HOURS[-1] + pd.Timedelta("1h"))


def test_tables_with_little_in_them_are_judged(tmp_path: Path, capfd) -> None:
    late = np.where(np.arange(600) < 550, np.nan, 1.0)
    sparse = np.where(np.arange(600) % 9, np.nan, np.arange(600.0))
    path = own(tmp_path / "own.csv", {"late": late, "sparse": sparse, "none": np.full(600, np.nan)})
    call("--config", "series", *TINY, "--csv", path, "--trainer.default_root_dir", tmp_path)
    call("test", "--ckpt_path", tmp_path / last_of(0), "--num_samples", 20)
    out = capfd.readouterr().out
    assert " nan" in next(line for line in out.splitlines() if line.startswith("late"))
    assert not any(line.startswith("none") for line in out.splitlines())


def test_tables_that_do_not_fit_are_refused(waves, tmp_path: Path, capfd) -> None:
    run = ("predict", "--ckpt_path", waves[1] / last_of(0), "--outdir", tmp_path)
    other = own(tmp_path / "other.csv", {"sales": np.arange(9.0)}, 9)
    assert "has no column price" in error_of(capfd, lambda: call(*run, "--csv", other))[1]
    assert "no such file" in error_of(capfd, lambda: call(*run, "--csv", tmp_path / "none"))[1]
    fit = ("--config", "series", "--csv")
    text = error_of(capfd, lambda: call(*fit, waves[0]))[1]
    assert "'fine' in column note is no number" in text
    long = error_of(capfd, lambda: call(*fit, waves[0], "--columns", "sales", "--horizon", 600))[1]
    assert "600 rows, and context and horizon together ask for 672" in long
    assert not (tmp_path / "samples.npz").exists()


@pytest.mark.skipif(FULL_MNIST is None, reason="ETTh1 is in the data folder of development")
def test_etth1_is_forecast(tmp_path: Path) -> None:
    call("--config", "series", *TINY, "--dataset", "ETTh1", "--trainer.default_root_dir", tmp_path)
    call("predict", "--ckpt_path", tmp_path / last_of(0), "--outdir", tmp_path / "out")
    assert np.load(tmp_path / "out" / "samples.npz")["series"].shape == (5, 7, 7, 18)
