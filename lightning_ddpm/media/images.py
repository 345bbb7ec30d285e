"""8-bit images: from 0..255 to [-1, 1] and back, grids, PNGs and films."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from lightning_ddpm.files import replacing
from lightning_ddpm.media.base import Arrays, Medium, write_png
from lightning_ddpm.shapes import Samples, spaced

GRID_LIMIT, RESTORED_LIMIT, RESTORED_COLUMNS = 400, 64, 8
UNKNOWN = (70, 90, 160)  # the colour of what was not known
CAPTION_HEIGHT = 20  # pixels
STRIP_IMAGES, STRIP_FRAMES = 4, 11
FILM = ("trajectory.gif", "trajectory.png")  # the animation and the film strip


class Images(Medium):
    """Images (b, c, h, w) of one byte a channel, 0..255, grey (c = 1) or RGB (c = 3).

    In files, where the array is ``images``, grey ones are (n, h, w).
    """

    name = "images"
    value_range = (-1.0, 1.0)

    def encode(self, raw: Tensor) -> Samples:
        """Map 0..255, or floats from 0 to 1 as torchvision's ``ToTensor`` gives them, to [-1, 1].

        Raises:
            ValueError: if they are neither.
        """
        if raw.ndim != 4:
            raise ValueError(f"images must be (b, c, h, w), got {tuple(raw.shape)}")
        if raw.dtype == torch.uint8:
            return from_uint8(raw)
        if not raw.is_floating_point() or not (raw.min() >= 0 and raw.max() <= 1):
            raise ValueError(
                f"images must be bytes from 0 to 255 or floats from 0 to 1, got {raw.dtype} from "
                f"{raw.min():g} to {raw.max():g}"
            )
        return raw.float() * 2 - 1

    def decode(self, x0: Samples) -> UInt8[Tensor, "b c *spatial"]:
        """Round to the nearest grey level."""
        return to_uint8(x0)

    def log_likelihood(self, x0: Samples, mean: Samples, std: Tensor) -> Samples:
        """That of 256 grey levels (Ho et al. 2020, eq. 13)."""
        return decoder_log_likelihood(x0, mean, std)

    def picture(self, samples: Arrays) -> UInt8[Tensor, "3 H W"] | None:
        """The first 400 in a grid, each under its label, if there are any.

        If something was known of them, up to 64 in full rows, each between that and the truth.
        Images that are neither grey nor RGB cannot be shown.
        """
        if samples[self.name].shape[1] not in (1, 3):
            return None
        if "truth" in samples:
            return restored_grid(samples[self.name], samples)
        labels = samples["labels"][:GRID_LIMIT].tolist() if "labels" in samples else None
        return image_grid(samples[self.name][:GRID_LIMIT], captions=labels)

    def files(self, film: bool = False, png: bool = False, **options: Any) -> list[str]:
        """Arrays and a grid, one for each image, and the film."""
        singles = ["png/[0-9]*.png"] if png else []
        return [*super().files(), "grid.png", *singles, *(FILM if film else ())]

    def write(self, samples: Arrays, folder: Path, png: bool = False, **options: Any) -> list[Path]:
        """Write ``samples.npz``, ``grid.png`` and, if asked for, ``png/00000.png`` and so on."""
        images = samples[self.name]
        named = {n: a.squeeze(1) if a.ndim == 4 else a for n, a in samples.items()}
        written, picture = super().write(named, folder), self.picture(samples)
        if picture is None:
            return written
        write_png(picture, folder / "grid.png")
        width = max(5, len(str(len(images) - 1)))
        singles = [folder / "png" / f"{i:0{width}d}.png" for i in range(len(images) * png)]
        for path, image in zip(singles, images, strict=False):
            write_png(image, path)
        return [*written, folder / "grid.png", *singles]

    def write_film(self, film: UInt8[Tensor, "n frames c h w"], folder: Path) -> list[Path]:
        """Write an animation, ``trajectory.gif``, and a strip of the first, ``trajectory.png``."""
        if film.shape[2] not in (1, 3):
            return []
        gif, strip = (folder / name for name in FILM)
        write_gif([image_grid(frame) for frame in film.unbind(1)], gif)
        frames = film[:STRIP_IMAGES, spaced(film.shape[1], STRIP_FRAMES)]
        write_png(image_grid(frames.flatten(0, 1), columns=frames.shape[1]), strip)
        return [gif, strip]


def from_uint8(images: UInt8[Tensor, "b c *spatial"]) -> Samples:
    """Map 0..255 to [-1, 1], in float32."""
    return images.float() / 127.5 - 1


def to_uint8(images: Samples) -> UInt8[Tensor, "b c *spatial"]:
    """Map [-1, 1] to 0..255, rounding to the nearest grey level."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def decoder_log_likelihood(x0: Samples, mean: Samples, std: Tensor) -> Samples:
    """Log-probability, in nats, of each 8-bit grey level under a Gaussian (Ho et al. 2020, eq. 13).

    A level's bin reaches halfway to its neighbours; the first and the last one have no end, so
    that the 256 probabilities sum to one.

    Args:
        x0: images of 256 levels in [-1, 1].
        mean: of the Gaussian, in the shape of ``x0``.
        std: of the Gaussian, broadcast over ``x0``.
    """
    low, high = (x0 - 1 / 255 - mean) / std, (x0 + 1 / 255 - mean) / std
    # Left of the mean, where log_ndtr keeps its precision; by symmetry right of it as well.
    left, right = torch.where(low + high > 0, -high, low), torch.where(low + high > 0, -low, high)
    log_right = log_ndtr(right)
    inside = log_right + (-torch.expm1(log_ndtr(left) - log_right)).log()
    darkest, brightest = x0 < -1 + 1 / 255, x0 > 1 - 1 / 255
    outside = log_ndtr(torch.where(darkest, high, -low))
    return torch.where(darkest | brightest, outside, inside)


def log_ndtr(x: Samples) -> Samples:
    """The logarithm of the standard Gaussian's distribution function, which Apple's GPUs lack."""
    on_cpu = x.cpu() if x.device.type == "mps" else x
    return torch.special.log_ndtr(on_cpu).to(x.device)


def image_grid(
    images: UInt8[Tensor, "b c h w"],
    scale: int | None = None,
    columns: int | None = None,
    captions: Sequence[object] | None = None,
) -> UInt8[Tensor, "3 H W"]:
    """Lay images out row by row, with a caption above each if there are any.

    Args:
        images: what to show.
        scale: pixels for a pixel; if not given, as many as keep small images within 128.
        columns: images in a row; if not given, as many as make a square, or nearly.
        captions: a short text for each image.
    """
    from torchvision.utils import make_grid

    height, width = images.shape[2:]
    scale = scale or max(1, 128 // max(height, width))
    cells = images.cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    if captions is not None:
        pairs = zip(cells, captions, strict=True)
        cells = torch.stack([captioned(cell, str(caption)) for cell, caption in pairs])
    columns = columns or math.ceil(math.sqrt(len(images) * height / width))
    return make_grid(cells, nrow=columns, padding=2 * scale)


def restored_grid(images: UInt8[Tensor, "b c h w"], beside: Arrays) -> UInt8[Tensor, "3 H W"]:
    """Below what was known of each image, the image, and below it the truth; what was not is blue.

    Args:
        images: what was made.
        beside: the ``truth``, and what was ``known`` of it or the smaller image that was ``given``.
    """
    truth, columns = beside["truth"], min(RESTORED_COLUMNS, len(images))
    if "given" in beside:
        seen = F.interpolate(beside["given"].float(), images.shape[2:]).to(torch.uint8)
    else:
        blue = torch.tensor(UNKNOWN, dtype=torch.uint8)[:, None, None]
        seen = torch.where(beside["known"], truth, blue)
    shown = min(RESTORED_LIMIT, len(images)) // columns * columns
    coloured = [part[:shown].expand(-1, 3, -1, -1) for part in (seen, images, truth)]
    rows = [part.split(columns) for part in coloured]
    cells = [row for together in zip(*rows, strict=True) for row in together]
    return image_grid(torch.cat(cells), columns=columns)


def captioned(image: UInt8[Tensor, "c h w"], text: str) -> UInt8[Tensor, "c H w"]:
    """Write ``text`` above an image."""
    from PIL import ImageDraw
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    picture = to_pil_image(F.pad(image, (0, 0, CAPTION_HEIGHT, 0)))
    place = (picture.width / 2, CAPTION_HEIGHT / 2)
    ImageDraw.Draw(picture).text(place, text, "white", anchor="mm", font_size=CAPTION_HEIGHT - 6)
    return pil_to_tensor(picture)


def write_gif(pictures: Sequence[UInt8[Tensor, "c h w"]], path: Path) -> None:
    """Write pictures as an animation, which stays on the last one for two seconds."""
    with replacing(path) as temporary:
        temporary.write_bytes(gif_of(pictures))


def gif_of(pictures: Sequence[UInt8[Tensor, "c h w"]]) -> bytes:
    """Such an animation as the content of a file."""
    from torchvision.transforms.functional import to_pil_image

    first, *rest = map(to_pil_image, pictures)
    durations = [*[80] * len(rest), 2000]  # milliseconds
    gif = BytesIO()
    first.save(gif, "gif", save_all=True, append_images=rest, duration=durations, loop=0)
    return gif.getvalue()
