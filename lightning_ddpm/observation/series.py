"""What may be known of series: all but the end, or all but gaps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_ddpm.batch import Batch, raw_and_condition
from lightning_ddpm.noise import Noise
from lightning_ddpm.observation.base import Given, Observation, Training, uniforms
from lightning_ddpm.shapes import Known, Samples

CALENDAR = 4  # channels
BLUR = 0.3  # of a level, in standard deviations
DAY, YEAR = 86_400, 365.2425 * 86_400  # seconds


@dataclass
class Gaps(Observation):
    """Series of which a forecast or gaps are asked for (CSDI, Tashiro et al. 2021, 2107.03502).

    Of six training windows in ten the end is unknown, mostly the ``horizon``; of the others, values
    at random, or some series for 6 to 24 steps of time. Of all of them, up to eight values in ten
    are hidden as well, and of every second one some series, so that little data last for longer.
    The network is also shown what is known, interpolated, and the hour of the day and the day of
    the year. It learns the difference of each series from its level, which is the mean of that line
    (Kim et al. 2022, reversible instance normalization). Where a batch says what is ``known`` of
    it, that is taken; its ``time`` (b, length) is in seconds since 1970, in UTC. NaN was not
    measured.

    Args:
        horizon: steps of time that are forecast; in a recipe the data's, else 24 if not given.
        ahead: the series, by number, that are known beyond the end; in a recipe the data's.
        levels: whether the network is told the levels, not quite exactly in training, so that it
            does not know a window again by them. Without them it forecasts as well at a level that
            it never saw.
    """

    horizon: int | None = None
    ahead: Sequence[int] | None = None
    levels: bool = True

    def draw(self, x0: Samples, noise: Noise, batch: Batch = None) -> Given:
        """Choose what is unknown of what was measured."""
        measured, (_, c, length) = ~raw_and_condition(batch)[0].isnan(), x0.shape[:3]
        told = batch if isinstance(batch, Mapping) else {}
        if "known" in told:
            return self.of(x0, told["known"] & measured, measured, told.get("time"))
        u = uniforms(noise, (8,), x0)[..., None, None]
        place = torch.arange(length, device=x0.device)
        usual = length - (self.horizon or 24)
        end = torch.where(u[:, 1] < 0.7, usual, 1 + u[:, 2] * (length - 1))
        start, width = u[:, 3] * (length - 6), 6 + u[:, 4] * 19
        gap = (start <= place) & (place < start + width)
        single, series = uniforms(noise, (c, length), x0), uniforms(noise, (c, 1), x0)
        gaps = ~(gap & (series <= torch.maximum(u[:, 5], series.amin(1, keepdim=True))))
        kind = u[:, 0]
        ahead = torch.isin(torch.arange(c), torch.tensor(self.ahead or [-1])).to(x0.device)
        others = torch.where(kind < 0.8, single >= u[:, 5], gaps)
        known = torch.where(kind < 0.6, (place < end) | ahead[:, None], others)
        # A network overfits to inputs that are never hidden.
        hidden = (single > 1 - 0.8 * u[:, 6]) | ((u[:, 7] < 0.5) & (series > 0.7))
        blur = BLUR * noise.draw((c, 1)).to(x0)
        return self.of(x0, known & ~hidden & measured, measured, told.get("time"), blur)

    def of(
        self,
        x0: Samples,
        known: Known,
        measured: Known | None = None,
        time: Int[Tensor, "b length"] | None = None,
        blur: Float[Tensor, "b c 1"] | float = 0.0,
    ) -> Given:
        """That these values are known; ``blur`` is added to the levels that the network is told."""
        line = interpolated(x0, known)
        level = line.mean(2, keepdim=True).expand_as(line)
        shown = [line - level, calendar(time, x0)] + [level + blur] * self.levels
        return Given(x0 - level, known, torch.cat(shown, dim=1), measured, level)

    def channels(self, channels: int) -> tuple[int, int]:
        """A mask, an interpolation and a level for each series, and the calendar."""
        return channels, (1 + self.levels) * channels + CALENDAR

    def naive(self, given: Given, train: Training) -> Samples:
        """Linear interpolation."""
        return given.whole(interpolated(given.values, given.known))


def interpolated(values: Samples, known: Known) -> Samples:
    """Linear interpolation between the known values of each series, level before and after them.

    0 where a series has no known value.
    """
    length = values.shape[2]
    place = torch.arange(length, device=values.device).expand(values.shape)
    before = torch.where(known, place, -1).cummax(2).values
    after = torch.where(known, place, length).flip(2).cummin(2).values.flip(2)
    first, last = before < 0, after == length
    left = torch.where(first, after, before).clamp(max=length - 1)
    right = torch.where(last, before, after).clamp(min=0)
    part = (place - left) / (right - left).clamp(min=1)
    line = values.gather(2, left).lerp(values.gather(2, right), part)
    return line.masked_fill(first & last, 0)


def calendar(time: Int[Tensor, "b length"] | None, x0: Samples) -> Float[Tensor, "b 4 length"]:
    """Sine and cosine of the hour of the day and of the day of the year; 0 if no time is known."""
    if time is None:
        return x0.new_zeros(len(x0), CALENDAR, x0.shape[2])
    turns = torch.stack([time % DAY / DAY, time / YEAR % 1], dim=1) * (2 * math.pi)
    return torch.cat([turns.sin(), turns.cos()], dim=1).to(x0)
