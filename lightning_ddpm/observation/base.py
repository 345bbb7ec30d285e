"""Observation: a part of a sample is known; the network sees it, and it stays as it is.

As in CSDI (Tashiro et al. 2021, arXiv 2107.03502) and Palette (Saharia et al. 2021, 2111.05826),
what is known is chosen anew for each training sample, and the network learns the rest given that.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_ddpm.batch import Batch
from lightning_ddpm.denoiser import Predict
from lightning_ddpm.noise import Noise
from lightning_ddpm.shapes import Known, Mask, Samples, Seen, expand_like

Training = Float[Tensor, "n c *spatial"]
Film = Float[Tensor, "b *frames_and_shape"]


@dataclass
class Given:
    """What is known of samples x0.

    Args:
        values: the samples (b, c, *spatial); what is not known of them is not looked at.
        known: which of them are known (b, k, *spatial).
        extra: what else is known, everywhere (b, e, *spatial): a smaller picture, the time of day.
        measured: where there is a truth (b, k, *spatial); everywhere if not given.
        offset: what a simple method makes of the samples (b, c, *spatial), if the ``values`` are
            their difference from it; that is then what is learned.
        positions: along the first axis, of a sample that is a part of a longer one (b, n), as
            frames of a video, which the network is then told; 0, 1, ... if not given.
    """

    values: Samples
    known: Known
    extra: Seen | None = None
    measured: Known | None = None
    offset: Samples | None = None
    positions: Int[Tensor, "b n"] | None = None

    @property
    def told(self) -> dict[str, Tensor]:
        """What the network is told by name."""
        return {} if self.positions is None else {"positions": self.positions}

    @property
    def unknown(self) -> Known:
        """What is to be learned: what is not known, and has a truth (b, k, *spatial)."""
        return ~self.known if self.measured is None else ~self.known & self.measured

    def seen(self, x_t: Samples) -> Seen:
        """What the network sees of ``x_t``: what is known in its place, what that is, and more."""
        parts = [self.paste(x_t), self.known.to(x_t)]
        return torch.cat(parts if self.extra is None else [*parts, self.extra], dim=1)

    def paste(self, x0: Samples) -> Samples:
        """The samples with what is known in its place."""
        return torch.where(self.known, self.values, x0)

    def without(self, nothing: Mask) -> "Given":
        """Of the samples where ``nothing`` (b) is true, nothing is known."""
        known = self.known & ~expand_like(nothing, self.known)
        values, extra, offset = self.values, self.extra, self.offset
        if extra is not None:
            extra = extra.masked_fill(expand_like(nothing, extra), 0)
        if offset is not None:
            values = torch.where(expand_like(nothing, values), values + offset, values)
            offset = offset.masked_fill(expand_like(nothing, offset), 0)
        return Given(values, known, extra, self.measured, offset, self.positions)

    def whole(self, learned: Film) -> Film:
        """The samples (b, c, *spatial), or films of them, of what was learned of them."""
        if self.offset is None:
            return learned
        filmed = learned.ndim > self.offset.ndim
        return learned + (self.offset[:, None] if filmed else self.offset)

    def __getitem__(self, part: slice) -> "Given":
        return self.each(lambda value: value[part])

    def to(self, device: torch.device) -> "Given":
        """The same on a device."""
        return self.each(lambda value: value.to(device))

    def each(self, function: Callable[[Tensor], Tensor]) -> "Given":
        """A function of all that there is."""
        others = (self.extra, self.measured, self.offset, self.positions)
        told = [None if value is None else function(value) for value in others]
        return Given(function(self.values), function(self.known), *told)


class Observation(ABC):
    """What is known of a sample. Subclasses keep their constructor's arguments as attributes.

    The network then has ``in_channels`` and, for each channel of the samples, one in its output.
    """

    @abstractmethod
    def draw(self, x0: Samples, noise: Noise, batch: Batch = None) -> Given:
        """Choose what is known of samples x0 (b, c, *spatial), by what is drawn from ``noise``.

        The ``batch`` that they are of may have more to say. What is learned are the ``values`` of
        what is given: the samples, or what an observation makes of them.

        Raises:
            ValueError: if the samples are of another kind.
        """

    @abstractmethod
    def naive(self, given: Given, train: Training) -> Samples:
        """A baseline: what a simple method makes of what is known, and of the training samples."""

    def shown(self, given: Given) -> dict[str, Tensor]:
        """What is known, as arrays to be drawn and written beside the samples."""
        return {"known": given.known}

    def seen(self, x_t: Samples, given: Given | None = None) -> Seen:
        """What the network sees of ``x_t``; without ``given``, nothing is known."""
        return (self.nothing(x_t) if given is None else given).seen(x_t)

    def nothing(self, x_t: Samples) -> Given:
        """That nothing is known, for samples like ``x_t`` (b, c, *spatial)."""
        masks, extra = (
            x_t.new_zeros(x_t.shape[0], channels, *x_t.shape[2:])  # len() would fix it in a graph
            for channels in self.channels(x_t.shape[1])
        )
        return Given(x_t, masks.bool(), extra)

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """That of what is learned of samples of this ``shape`` (c, *spatial), if not all is."""
        return tuple(shape)

    def channels(self, channels: int) -> tuple[int, int]:
        """Those of what is ``known``, and of what is ``extra``, of samples of so many channels."""
        return 1, 0

    def in_channels(self, channels: int) -> int:
        """The channels that the network sees of samples of so many."""
        return channels + sum(self.channels(channels))


def uniforms(noise: Noise, shape: Sequence[int], x0: Samples) -> Float[Tensor, "b ..."]:
    """Numbers from 0 to 1 for each sample, where the samples are."""
    return torch.special.ndtr(noise.draw(shape)).to(x0.device)


def observed(predict: Predict, observation: Observation | None, given: Given | None) -> Predict:
    """A network, with all but x_t and t given, that is shown what is known, if it observes.

    Raises:
        ValueError: if it does not, and something is known.
    """
    if observation is None:
        if given is not None:
            raise ValueError("what is known cannot be given to a model without observation")
        return predict
    return lambda x_t, t: predict(observation.seen(x_t, given), t)
