"""From model values in [-1, 1] to pictures."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from lightning_ddpm.files import replacing
from lightning_ddpm.shapes import Images

CAPTION_HEIGHT = 20  # pixels


def to_uint8(images: Images) -> UInt8[Tensor, "b c *spatial"]:
    """Map [-1, 1] to 0..255, rounding to the nearest grey level."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def image_grid(
    images: UInt8[Tensor, "b c h w"],
    scale: int | None = None,
    columns: int | None = None,
    captions: Sequence[object] | None = None,
) -> UInt8[Tensor, "3 H W"]:
    """Lay images out row by row, with a caption above each if there are any.

    Args:
        images: what to show.
        scale: pixels for a pixel; if not given, as many as make small images at most 128 wide.
        columns: images in a row; if not given, as many as make a square.
        captions: a short text for each image.
    """
    scale = scale or max(1, 128 // images.shape[3])
    cells = images.cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    if captions is not None:
        pairs = zip(cells, captions, strict=True)
        cells = torch.stack([captioned(cell, str(caption)) for cell, caption in pairs])
    columns = columns or math.ceil(math.sqrt(len(images)))
    return make_grid(cells, nrow=columns, padding=2 * scale)


def captioned(image: UInt8[Tensor, "c h w"], text: str) -> UInt8[Tensor, "c H w"]:
    """Write ``text`` above an image."""
    picture = to_pil_image(F.pad(image, (0, 0, CAPTION_HEIGHT, 0)))
    place = (picture.width / 2, CAPTION_HEIGHT / 2)
    ImageDraw.Draw(picture).text(place, text, "white", anchor="mm", font_size=CAPTION_HEIGHT - 6)
    return pil_to_tensor(picture)


def write_png(picture: UInt8[Tensor, "c h w"], path: Path) -> None:
    """Write a grey (c = 1) or RGB (c = 3) picture, making its folder first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        to_pil_image(picture).save(temporary, format="png")


def write_gif(pictures: Sequence[UInt8[Tensor, "c h w"]], path: Path) -> None:
    """Write pictures as an animation, which stays on the last one for two seconds."""
    first, *rest = map(to_pil_image, pictures)
    durations = [*[80] * len(rest), 2000]  # milliseconds
    with replacing(path) as temporary:
        first.save(
            *(temporary, "gif"), save_all=True, append_images=rest, duration=durations, loop=0
        )
