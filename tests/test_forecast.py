"""Series on the command line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import FULL_MNIST
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import call, error_of, last_of

from lightning_ddpm.data import SeriesDataModule

HOURS = pd.date_range("2020-03-01", periods=600, freq="h")
TINY = (
    *("--model.network.init_args.width", 16, "--model.network.init_args.layers", 1),
    *("--steps", 2, "--context", 12, "--horizon", 6, "--num_windows", 5, "--draws", 7),
    *("--max_epochs", 1, "--limit_train_batches", 4, "--check_val_every_n_epoch", 1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short run on the weather."""
    folder = tmp_path_factory.mktemp("forecast")
    judged = ("--evaluation.every_n_epochs", 1, "--evaluation.num_samples", 35)
    call("--config", "series", *TINY, *judged, "--trainer.default_root_dir", folder)
    return folder


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    """Where its forecasts are."""
    call("predict", "--ckpt_path", folder / last_of(0), "--outdir", folder / "written")
    return folder / "written"


def test_forecasts_of_held_out_windows_are_written(written: Path) -> None:
    found = dict(np.load(written / "samples.npz"))
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
    table = pd.read_csv(written / "forecast.csv")
    assert list(table) == ["window", "time", "series", "0.05", "0.25", "0.5", "0.75", "0.95"]
    assert len(table) == (~found["known"]).sum()
    row = table[(table.window == 3) & (table.series == "LGA wind")].iloc[-2]
    assert pd.Timestamp(row["time"]).timestamp() == found["time"][3, 16]
    expected = np.quantile(found["series"][3, :, 5, 16], 0.75)
    assert row["0.75"] == pytest.approx(expected, rel=1e-4)
    picture = np.asarray(Image.open(written / "forecast.png"))
    assert picture.shape[1] > 800
    assert {name.name for name in written.iterdir()} == {
        *("samples.npz", "forecast.csv", "forecast.png", ".written"),
    }


def test_forecasts_are_the_same_again_and_of_other_batches(
    folder: Path, written: Path, tmp_path: Path
) -> None:
    words = ("--ckpt_path", folder / last_of(0), "--outdir", tmp_path)
    call("predict", *words, "--batch_size", 9)
    arrays = [np.load(out / "samples.npz")["series"] for out in (written, tmp_path)]
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
    assert min(table["time"].tolist()) == str(HOURS[-1] + pd.Timedelta("1h"))
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
    (place,) = [i for i, line in enumerate(lines) if line.startswith("14 samples")]  # whole windows
    assert [line.split()[0] for line in lines[place + 1 : place + 4] if line] == ["series", "sales"]
    call("predict", "--ckpt_path", tmp_path / last_of(0), "--outdir", tmp_path)
    found = pd.read_csv(tmp_path / "forecast.csv")
    sales = found[found.series == "sales"]
    assert min(sales.time.tolist()) == str(HOURS[-1] + pd.Timedelta("1h"))


def test_tables_with_little_in_them_are_judged(tmp_path: Path, capfd) -> None:
    late = np.where(np.arange(600) < 550, np.nan, 1.0)
    sparse = np.where(np.arange(600) % 9, np.nan, np.arange(600.0))
    path = own(tmp_path / "own.csv", {"late": late, "sparse": sparse, "none": np.full(600, np.nan)})
    call("--config", "series", *TINY, "--csv", path, "--trainer.default_root_dir", tmp_path)
    call("test", "--ckpt_path", tmp_path / last_of(0), "--num_samples", 35)
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
    ahead = own(tmp_path / "ahead.csv", {"sales": np.full(9, np.nan), "price": np.arange(9.0)}, 9)
    run += ("--csv", ahead, "--known_ahead", "price")
    assert "no numbers but what is known ahead" in error_of(capfd, lambda: call(*run))[1]


@pytest.mark.long
@pytest.mark.skipif(FULL_MNIST is None, reason="ETTh1 is in the data folder of development")
def test_etth1_is_forecast(tmp_path: Path) -> None:
    call("--config", "series", *TINY, "--dataset", "ETTh1", "--trainer.default_root_dir", tmp_path)
    call("predict", "--ckpt_path", tmp_path / last_of(0), "--outdir", tmp_path / "out")
    assert np.load(tmp_path / "out" / "samples.npz")["series"].shape == (5, 7, 7, 18)
