"""Forecasts and fillings of series, beside the simple methods that they must beat."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_ddpm.judge.baselines import Batch, baselines
from lightning_ddpm.judge.crps import Ensemble, Values, coverage, crps, csdi_crps
from lightning_ddpm.judge.paired import PairedJudge

PARTS = 4  # of the horizon


class SeriesJudge(PairedJudge):
    """Compares samples of windows with the truth, and with simple methods of the same windows.

    Of each series, where it was not known: the CRPS, from the samples and as CSDI has it; how often
    the middle 90% of the samples have the truth among them; and the mean absolute error of their
    median. Beside them, the CRPS of persistence, or in gaps of linear interpolation, of the day
    before, of climatology, and of ridge regression, of forecasts also relative to what was known
    last (NLinear), all with the quantiles of their errors in training.

    Args:
        train: training windows, which the simple methods learn from.
        held_out: gives the windows of samples by the samples' indices.
        names: of the series.
        draws: samples of each window.
        most: samples of all windows.
        forecasts: whether the end is asked for, and not gaps.
    """

    baselines: dict[str, Values] | None = None

    def __init__(
        self,
        train: Batch,
        held_out: Callable[[Sequence[int]], Batch],
        names: Sequence[str],
        draws: int,
        most: int,
        forecasts: bool = True,
    ) -> None:
        super().__init__(held_out, draws, most)
        self.train_windows = train
        self.names = names
        self.forecasts = forecasts

    def compute(self) -> dict[str, Tensor]:
        """The figures, as ``crps/NAME`` of each series of which something was asked for."""
        series, asked = self.beside_truth()
        ensemble = series.movedim(1, -1).numpy()
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # means of nothing
            figures = self.compared(ensemble, asked)
        return {
            f"{name}/{series}": torch.tensor(np.nanmean(values[:, j]))
            for name, values in figures.items()
            for j, series in enumerate(self.names)
            if not np.isnan(values[:, j]).all()
        }

    def compared(self, ensemble: Ensemble, asked: Batch) -> dict[str, Values]:
        """The figures of each value, NaN where it is known or was not measured."""
        truth = asked["x0"].masked_fill(asked["known"], torch.nan).numpy()
        error = crps(ensemble, truth)
        figures = {
            "crps": error,
            "csdi_crps": csdi_crps(ensemble, truth),
            "coverage_90": coverage(ensemble, truth),
            "median_error": np.abs(np.median(ensemble, axis=-1) - truth),
        }
        if self.forecasts:
            (steps,) = np.nonzero(~asked["known"].all(0).all(0).numpy())
            for part in np.array_split(steps, min(PARTS, len(steps))):
                first, last = part[[0, -1]] - steps[0] + 1
                figures[f"crps_{first}_to_{last}"] = error[..., part]
        if self.baselines is None:
            train = {name: value.cpu() for name, value in self.train_windows.items()}
            self.baselines = baselines(train, asked, self.forecasts)
        return figures | self.baselines

    def table(self, figures: dict[str, float]) -> str:
        """A line for each series, and a column for each figure; whom it loses to is told."""
        kinds = list(dict.fromkeys(name.split("/")[0] for name in figures if "/" in name))
        others = [kind for kind in kinds if kind.startswith("crps_") and not kind[5].isdigit()]
        heads = [kind.removeprefix("crps_") if kind in others else kind for kind in kinds]
        width = max(len("series"), *map(len, self.names))
        lines = [
            f"{figures['samples']:.0f} samples; the last {len(others)} columns are others' CRPS:",
            " ".join([f"{'series':{width}}", *heads]),
        ]
        for series in self.names:
            found = [figures.get(f"{kind}/{series}", np.nan) for kind in kinds]
            if np.isnan(found[0]):
                continue
            cells = [f"{value:{len(head)}.3f}" for value, head in zip(found, heads, strict=True)]
            beside = zip(kinds, heads, found, strict=True)
            better = [head for kind, head, value in beside if kind in others and value < found[0]]
            line = " ".join([f"{series:{width}}", *cells]) + f"  loses to {', '.join(better)}"
            lines.append(line if better else line.removesuffix("  loses to "))
        return "\n".join(lines)
