"""Simple methods that forecast series and fill their gaps, as a judge compares others with."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_ddpm.judge.crps import Ensemble, Values, crps
from lightning_ddpm.observation.series import DAY, YEAR, calendar, interpolated

DRESSED = (np.arange(100) + 0.5) / 100  # of the errors that dress a prediction of one value
FEWEST = 10  # values of a climatology
PENALTY = 300.0  # of ridge regression's squared weights, for standardised inputs

Batch = Mapping[str, Tensor]
"""Raw windows ``x0`` (n, c, length), what is ``known`` of them, if it was measured, and their
``time`` (n, length), if that is known."""


def baselines(train: Batch, asked: Batch, forecasts: bool) -> dict[str, Values]:
    """The CRPS of what simple methods, which learn from training windows, make of others."""
    truth = asked["x0"].masked_fill(asked["known"], torch.nan)
    mean = train["x0"].transpose(0, 1).flatten(1).nanmean(1)[:, None]
    train, asked = ({**batch, "x0": batch["x0"] - mean} for batch in (train, asked))
    methods = {"persistence": linear, "day_before": day_before}
    methods |= {"ridge": ridge_ahead, "nlinear": partial(ridge_ahead, relative=True)}
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
    """The quantiles of training values of the time of the year and of the day, if that is known.

    That is at the same time of the day, on days at most 15 from it in any year.
    """
    n, c, length = asked["x0"].shape
    values, found = train["x0"].numpy().transpose(0, 2, 1).reshape(-1, c), {}
    if "time" not in asked:
        quantiles = np.nanquantile(values, DRESSED, axis=0).T[:, None]
        return np.broadcast_to(quantiles, (n, c, length, len(DRESSED)))
    time, place = np.unique(train["time"].numpy(), return_index=True)
    values = values[place]
    for now in np.unique(asked["time"].numpy()):
        apart = np.abs((time - now + YEAR / 2) % YEAR - YEAR / 2) / DAY
        same = (time - now) % DAY == 0
        near = same & (apart < 15.5)
        chosen = values[near if near.sum() >= FEWEST else same if same.any() else slice(None)]
        found[now] = np.nanquantile(chosen, DRESSED, axis=0).T
    stacked = np.stack([found[now] for now in asked["time"].numpy().flatten()])
    return stacked.reshape(n, length, c, -1).transpose(0, 2, 1, 3)


def features(batch: Batch) -> Float[np.ndarray, "n features length"]:
    """What is known, interpolated, and the calendar."""
    filled = interpolated(batch["x0"].nan_to_num(0), measured(batch))
    return torch.cat([filled, calendar(batch.get("time"), filled)], dim=1).numpy()


def ridge_ahead(train: Batch, asked: Batch, relative: bool = False) -> Values:
    """The end of each series, by ridge regression on all that is known, and the calendar.

    If it is ``relative``, to the series' last known values (NLinear, Zeng et al. 2022, 2205.13504).
    """
    known = train["known"][0].numpy()
    levels = [relative * linear(train, batch)[..., -1:] for batch in (train, asked)]

    def inputs(batch: Batch, level: Values) -> Float[np.ndarray, "n d"]:
        c, values = known.shape[0], features(batch)
        line, calendar = values[:, :c] - level, values[:, c:, ~known.all(0)][..., 0]
        return np.concatenate([line[:, known], calendar], axis=1)

    x, now = map(inputs, (train, asked), levels)
    found = np.broadcast_to(levels[1], asked["x0"].shape).copy()
    found[:, ~known] += ridge(x, (train["x0"].numpy() - levels[0])[:, ~known], now)
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
