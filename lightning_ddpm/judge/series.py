"""Forecasts and fillings of series, beside the simple methods that they must beat."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_ddpm.judge.base import Judge
from lightning_ddpm.media.series import grouped
from lightning_ddpm.observation.series import DAY, calendar, interpolated

LEVELS = np.arange(1, 20) / 20  # of CSDI's quantiles
DRESSED = (np.arange(100) + 0.5) / 100  # of the residuals that dress a prediction of one value
PENALTY = 300.0  # of ridge regression's squared weights, for standardised inputs
PARTS = 4  # of the horizon

Values = Float[np.ndarray, "_ c length"]
Ensemble = Float[np.ndarray, "_ c length m"]
Batch = Mapping[str, Tensor]
"""Raw windows ``x0`` (n, c, length), what is ``known`` of them, if it was measured, and their
``time`` (n, length), if that is known."""


class SeriesJudge(Judge):
    """Compares samples of windows with the truth, and with simple methods of the same windows.

    Of each series, where it was not known: the CRPS, from the samples and as CSDI has it; how often
    the middle 90% of the samples have the truth among them; and the mean absolute error of their
    median. Beside them, the CRPS of persistence, or in gaps of linear interpolation, of the day
    before, of climatology, and of ridge regression, all with the quantiles of their errors in
    training.

    Args:
        train: training windows, which the simple methods learn from.
        held_out: gives the windows of samples by the samples' indices.
        names: of the series.
        draws: samples of each window.
        most: samples of all windows.
        forecasts: whether the end is asked for, and not gaps.
    """

    series: list[Tensor]
    indices: list[Tensor]
    paired = True
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
        super().__init__()
        self.train_windows = train
        self.held_out = held_out
        self.names = names
        self.draws = self.together = draws
        self.samples = most
        self.forecasts = forecasts
        for name in ("series", "indices"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @property
    def most(self) -> int:
        """All samples of all windows."""
        return self.samples

    def update(
        self,
        samples: Float[Tensor, "n c length"],
        index: Int[Tensor, " n"],
        label: Tensor | None = None,
    ) -> None:
        """Add samples and their places among all."""
        self.series.append(samples)
        self.indices.append(index)

    def floors(
        self, size: int, labels: Tensor | None = None, rank: int = 0, processes: int = 1
    ) -> dict[str, float]:
        """None: what a perfect forecast would have is not known of real data."""
        return {}

    def compute(self) -> dict[str, Tensor]:
        """The figures, as ``crps/NAME`` of each series."""
        index, order = dim_zero_cat(self.indices).cpu().sort()
        windows = {"series": dim_zero_cat(self.series).cpu()[order], "window": index // self.draws}
        asked = {n: v.cpu() for n, v in self.held_out(index[:: self.draws].tolist()).items()}
        ensemble = grouped(windows)["series"].movedim(1, -1).numpy()
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
        figures |= self.baselines
        return {
            f"{name}/{series}": torch.tensor(np.nanmean(values[:, j]))
            for name, values in figures.items()
            for j, series in enumerate(self.names)
            if not np.isnan(values[:, j]).all()
        }

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
            cells = [f"{value:{len(head)}.3f}" for value, head in zip(found, heads, strict=True)]
            beside = zip(kinds, heads, found, strict=True)
            better = [head for kind, head, value in beside if kind in others and value < found[0]]
            line = " ".join([f"{series:{width}}", *cells]) + f"  loses to {', '.join(better)}"
            lines.append(line if better else line.removesuffix("  loses to "))
        return "\n".join(lines)


def crps(
    samples: Shaped[np.ndarray, "*shape m"], truth: Shaped[np.ndarray, "*shape"]
) -> Shaped[np.ndarray, "*shape"]:
    """Continuous ranked probability score of the distribution that is ``m`` samples.

    E|X - y| - E|X - X'| / 2 (Gneiting and Raftery 2007, eq. 21); NaN where the truth is.
    """
    ordered, m = np.sort(samples, axis=-1), samples.shape[-1]
    weights = (2 * np.arange(1, m + 1) - m - 1) / m**2
    return np.abs(ordered - truth[..., None]).mean(-1) - (weights * ordered).sum(-1)


def csdi_crps(samples: Ensemble, truth: Values) -> Values:
    """CRPS from 19 quantiles, in parts of the mean size of each series (2107.03502, appendix)."""
    quantiles = np.moveaxis(np.quantile(samples, LEVELS, axis=-1), 0, -1)
    errors = truth[..., None] - quantiles
    loss = 2 * np.maximum(LEVELS * errors, (LEVELS - 1) * errors).mean(-1)
    return loss / np.nanmean(np.abs(truth), axis=(0, 2), keepdims=True)


def coverage(samples: Ensemble, truth: Values, part: float = 0.9) -> Values:
    """Whether the truth lies in the middle ``part`` of the samples; NaN where it is not known."""
    low, high = np.quantile(samples, [(1 - part) / 2, (1 + part) / 2], axis=-1)
    return np.where(np.isnan(truth), np.nan, (truth >= low) & (truth <= high))


def baselines(train: Batch, asked: Batch, forecasts: bool) -> dict[str, Values]:
    """The CRPS of what simple methods, which learn from training windows, make of others."""
    truth = asked["x0"].masked_fill(asked["known"], torch.nan)
    mean = train["x0"].transpose(0, 1).flatten(1).nanmean(1)[:, None]
    train, asked = ({**batch, "x0": batch["x0"] - mean} for batch in (train, asked))
    methods = {"persistence": linear, "day_before": day_before, "ridge": ridge_ahead}
    if not forecasts:
        methods = {"linear": linear, "ridge": ridge_beside}
    made = {"climatology": climatology(train, asked)}
    for name, method in methods.items():
        fitted, predicted = method(train, train), method(train, asked)
        if fitted is not None and predicted is not None:
            made[name] = dressed(train, fitted, asked, predicted)
    return {f"crps_{name}": crps(found, (truth - mean).numpy()) for name, found in made.items()}


def measured(batch: Batch) -> Bool[Tensor, "n c length"]:
    """What is known, and was measured."""
    return batch["known"] & ~batch["x0"].isnan()


def linear(train: Batch, asked: Batch) -> Values:
    """Linear interpolation between what is known, and level after it, which is persistence."""
    return interpolated(asked["x0"].nan_to_num(0), measured(asked)).numpy()


def day_before(train: Batch, asked: Batch) -> Values | None:
    """The value at the same time of the last known day; None if no day is, or no times are."""
    if "time" not in asked:
        return None
    step = int(asked["time"][0, 1] - asked["time"][0, 0])
    filled, end = linear(train, asked), int(asked["known"][0].all(0).sum())
    period, length = DAY // step, filled.shape[2]
    if DAY % step or not 1 < period <= end:
        return None
    place = np.arange(length)
    back = np.where(place < end, 0, -((end - 1 - place) // period)) * period
    return filled[:, :, place - back]


def dressed(train: Batch, fitted: Values, asked: Batch, predicted: Values) -> Ensemble:
    """Predictions with the quantiles of the errors that were made in training.

    Those of each series, as many steps from the nearest known value.
    """
    truth, near = train["x0"].numpy(), distance(measured(train))
    there, found = distance(measured(asked)), np.repeat(predicted[..., None], len(DRESSED), -1)
    for j in range(truth.shape[1]):
        errors = truth[:, j] - fitted[:, j]
        usable = ~np.isnan(errors) & ~train["known"][:, j].numpy()
        for step in np.unique(there[:, j]):
            chosen = errors[usable & (near[:, j] == step)]
            chosen = chosen if len(chosen) else errors[usable]
            if step and len(chosen):
                found[:, j][there[:, j] == step] += np.quantile(chosen, DRESSED)
    return found


def distance(known: Bool[Tensor, "n c length"]) -> Int[np.ndarray, "n c length"]:
    """Steps from each place to the nearest known one of the series; the length, if none is."""
    length = known.shape[2]
    place = torch.arange(length).expand(known.shape)
    before = place - torch.where(known, place, -length).cummax(2).values
    after = torch.where(known, place, 2 * length).flip(2).cummin(2).values.flip(2) - place
    return torch.minimum(before, after).clamp(max=length).numpy()


def climatology(train: Batch, asked: Batch) -> Ensemble:
    """The quantiles of all training values at the same time of the day, if times are known."""
    n, c, length = asked["x0"].shape
    hours = [
        (batch["time"] % DAY).numpy() if "time" in batch else np.zeros((len(batch["x0"]), length))
        for batch in (train, asked)
    ]
    found = np.zeros((n, c, length, len(DRESSED)), np.float32)
    for hour in np.unique(hours[1]):
        now = hours[0] == hour if (hours[0] == hour).any() else np.ones_like(hours[0], bool)
        values = train["x0"].numpy().transpose(0, 2, 1)[now]  # (m, c)
        quantiles = np.nanquantile(values, DRESSED, axis=0).T
        found.transpose(0, 2, 1, 3)[hours[1] == hour] = quantiles
    return found


def features(batch: Batch) -> Float[np.ndarray, "n features length"]:
    """What is known, interpolated, and the calendar."""
    filled = interpolated(batch["x0"].nan_to_num(0), measured(batch))
    return torch.cat([filled, calendar(batch.get("time"), filled)], dim=1).numpy()


def ridge_ahead(train: Batch, asked: Batch) -> Values:
    """The end of each series, by ridge regression on all that is known, and the calendar."""
    known, n = train["known"][0].numpy(), len(asked["x0"])

    def inputs(batch: Batch) -> Float[np.ndarray, "n d"]:
        c, values = known.shape[0], features(batch)
        return np.concatenate([values[:, :c][:, known], values[:, c:, ~known.all(0)][..., 0]], 1)

    outputs = train["x0"].numpy()[:, ~known]
    found = np.zeros((n, *known.shape), np.float32)
    found[:, ~known] = ridge(inputs(train), outputs, inputs(asked))
    return found


def ridge_beside(train: Batch, asked: Batch) -> Values:
    """Each series by ridge regression on all, interpolated, at the time, and the calendar."""
    values, now = (features(batch).transpose(0, 2, 1) for batch in (train, asked))
    found = np.zeros(asked["x0"].shape, np.float32)
    for j in range(found.shape[1]):
        unknown = ~train["known"][:, j].numpy() & ~np.isnan(train["x0"][:, j].numpy())
        there = ~asked["known"][:, j].numpy()
        if unknown.any() and there.any():
            outputs = train["x0"].numpy()[:, j][unknown][:, None]
            found[:, j][there] = ridge(values[unknown], outputs, now[there])[:, 0]
    return found


def ridge(
    inputs: Float[np.ndarray, "m d"],
    outputs: Float[np.ndarray, "m k"],
    asked: Float[np.ndarray, "n d"],
) -> Float[np.ndarray, "n k"]:
    """Linear regression with a penalty; what was not measured of the outputs counts as the mean."""
    mean, std = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64) + 1e-6
    offset, x = np.nanmean(outputs, axis=0), (inputs - mean) / std
    y = np.nan_to_num(outputs - offset)
    weights = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ y)
    return ((asked - mean) / std @ weights + offset).astype(np.float32)
