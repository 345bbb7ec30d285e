"""What may be known of images: what is around a hole, or a smaller version."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lightning_ddpm.batch import Batch
from lightning_ddpm.media.images import from_uint8, to_uint8
from lightning_ddpm.noise import Noise
from lightning_ddpm.observation.base import Given, Observation, Training, uniforms
from lightning_ddpm.shapes import Samples

NAIVE_ROWS = 500  # compared at a time, so that memory stays small


def check_images(observation: Observation, x0: Samples) -> None:
    """Raise ValueError if the samples are no images."""
    if x0.ndim != 4:
        name, shape = type(observation).__name__, tuple(x0.shape[1:])
        raise ValueError(f"{name} is for images (c, h, w), got samples of shape {shape}")


class Holes(Observation):
    """Images of which a box, a half, or three strokes are missing, each in a third of them."""

    def draw(self, x0: Samples, noise: Noise, batch: Batch = None) -> Given:
        """Choose the kind of the hole, and where it is."""
        check_images(self, x0)
        u = uniforms(noise, (17,), x0)[..., None, None]
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
        return Given(x0, ~hole[:, None])

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

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise ValueError(f"factor must be at least 2, got {self.factor}")

    def draw(self, x0: Samples, noise: Noise, batch: Batch = None) -> Given:
        """Make the smaller version."""
        check_images(self, x0)
        if any(size % self.factor for size in x0.shape[2:]):
            raise ValueError(f"images {tuple(x0.shape[2:])} do not divide by factor {self.factor}")
        small = from_uint8(to_uint8(F.avg_pool2d(x0, self.factor)))
        return replace(self.of(small), values=x0)

    def channels(self, channels: int) -> tuple[int, int]:
        """As many more as the smaller images have."""
        return 1, channels

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
