"""Observation: a part of a sample is known; the network sees it, and it stays as it is.

As in CSDI (Tashiro et al. 2021, arXiv 2107.03502) and Palette (Saharia et al. 2021, 2111.05826),
what is known is chosen anew for each training sample, and the network learns the rest given that.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_ddpm.denoiser import Predict
from lightning_ddpm.media.images import from_uint8, to_uint8
from lightning_ddpm.noise import Noise
from lightning_ddpm.shapes import Known, Mask, Samples, Seen, expand_like

NAIVE_ROWS = 500  # compared at a time, so that memory stays small

Training = Float[Tensor, "n c *spatial"]


@dataclass
class Given:
    """What is known of samples x0.

    Args:
        values: the samples (b, c, *spatial); what is not known of them is not looked at.
        known: which of them are known (b, k, *spatial).
        extra: what else is known, everywhere (b, e, *spatial): a smaller picture.
    """

    values: Samples
    known: Known
    extra: Seen | None = None

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
        if self.extra is None:
            return Given(self.values, known)
        return Given(
            self.values, known, self.extra.masked_fill(expand_like(nothing, self.extra), 0)
        )

    def __getitem__(self, part: slice) -> "Given":
        return self.each(lambda value: value[part])

    def to(self, device: torch.device) -> "Given":
        """The same on a device."""
        return self.each(lambda value: value.to(device))

    def each(self, function: Callable[[Tensor], Tensor]) -> "Given":
        """A function of all that there is."""
        extra = None if self.extra is None else function(self.extra)
        return Given(function(self.values), function(self.known), extra)


class Observation(ABC):
    """What is known of a sample. Subclasses keep their constructor's arguments as attributes.

    The network then has ``in_channels`` and, for each channel of the samples, one in its output.
    """

    extra: int = 0
    """Channels of what else is known, for each channel of the samples."""

    @abstractmethod
    def draw(self, x0: Samples, noise: Noise) -> Given:
        """Choose what is known of samples x0 (b, c, *spatial), by what is drawn from ``noise``.

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
        known = torch.zeros_like(x_t[:, :1], dtype=torch.bool)
        extra = torch.zeros_like(x_t).repeat_interleave(self.extra, 1) if self.extra else None
        return Given(x_t, known, extra)

    def in_channels(self, channels: int) -> int:
        """The channels that the network sees of samples of so many."""
        return self.seen(torch.zeros(1, channels)).shape[1]


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


def check_images(observation: Observation, x0: Samples) -> None:
    """Raise ValueError if the samples are no images."""
    if x0.ndim != 4:
        name, shape = type(observation).__name__, tuple(x0.shape[1:])
        raise ValueError(f"{name} is for images (c, h, w), got samples of shape {shape}")


class Holes(Observation):
    """Images of which a box, a half, or three strokes are missing, each in a third of them."""

    def draw(self, x0: Samples, noise: Noise) -> Given:
        """Choose the kind of the hole, and where it is."""
        check_images(self, x0)
        u = torch.special.ndtr(noise.draw((17,)))[..., None, None]  # uniform
        y, x = (((torch.arange(n, device=u.device) + 0.5) / n) for n in x0.shape[2:])
        y, x = torch.meshgrid(y, x, indexing="ij")
        size = 0.3 + 0.4 * u[:, 0]
        top, left = (u[:, i] * (1 - size) for i in (1, 2))
        box = (top <= y) & (y < top + size) & (left <= x) & (x < left + size)
        halves = torch.stack([y < 0.5, y >= 0.5, x < 0.5, x >= 0.5])
        half = halves[(u[:, 3, 0, 0] * 4).long().clamp(max=3)]
        strokes = (to_segments(y, x, u[:, 4:16].unflatten(1, (3, 4))) < 0.09).any(1)
        kind = u[:, 16] * 3
        hole = torch.where(kind < 1, box, torch.where(kind < 2, half, strokes))
        return Given(x0, ~hole[:, None].to(x0.device))

    def naive(self, given: Given, train: Training) -> Samples:
        """The training image that is nearest in what is known."""
        images, squares = train.flatten(1).T, train.flatten(1).square().T
        known, places = given.known.expand_as(given.values), []
        rows = (part.flatten(1).float().split(NAIVE_ROWS) for part in (known, given.values))
        for known, values in zip(*rows, strict=True):
            distances = known @ squares - 2 * (known * values) @ images  # but for a constant
            places.append(distances.argmin(1))
        return given.paste(train[torch.cat(places)])


def to_segments(
    y: Float[Tensor, "h w"], x: Float[Tensor, "h w"], ends: Float[Tensor, "b n 4 1 1"]
) -> Float[Tensor, "b n h w"]:
    """The distance of each place to each segment, whose ends are at (y, x) and (y, x)."""
    y0, x0, y1, x1 = ends.unbind(2)
    dy, dx = y1 - y0, x1 - x0
    along = ((y - y0) * dy + (x - x0) * dx) / (dy**2 + dx**2).clamp(min=1e-6)
    along = along.clamp(0, 1)
    return torch.hypot(y - y0 - along * dy, x - x0 - along * dx)


@dataclass
class LowResolution(Observation):
    """Images of which a smaller version is known: super-resolution (Ho et al. 2021, 2106.15282).

    Where nothing is known, the network sees zeros in its place, which is an even grey.

    Args:
        factor: how many pixels along each axis are one, which is their mean, as a byte.

    Raises:
        ValueError: if ``factor`` is below 2; when it is used, if the images do not divide by it.
    """

    factor: int = 4

    extra = 1

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"factor must be at least 2, got {self.factor}")

    def draw(self, x0: Samples, noise: Noise) -> Given:
        """Make the smaller version."""
        check_images(self, x0)
        if any(size % self.factor for size in x0.shape[2:]):
            raise ValueError(f"images {tuple(x0.shape[2:])} do not divide by factor {self.factor}")
        return self.of(from_uint8(to_uint8(F.avg_pool2d(x0, self.factor))))

    def of(self, small: Samples) -> Given:
        """That ``small`` images (b, c, h, w) are known, of images ``factor`` times as large."""
        large = F.interpolate(small, scale_factor=self.factor, mode="nearest")
        return Given(large, torch.zeros_like(large[:, :1], dtype=torch.bool), large)

    def small(self, given: Given) -> Samples:
        """The smaller images."""
        assert given.extra is not None
        return given.extra[:, :, :: self.factor, :: self.factor]

    def naive(self, given: Given, train: Training) -> Samples:
        """Bicubic interpolation."""
        small = self.small(given)
        return F.interpolate(small, scale_factor=self.factor, mode="bicubic").clamp(-1, 1)

    def shown(self, given: Given) -> dict[str, Tensor]:
        """The smaller images, as ``given``."""
        return {"given": self.small(given)}
