"""From model values in [-1, 1] to pictures."""

import math
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from lightning_ddpm.files import replacing
from lightning_ddpm.shapes import Images


def to_uint8(images: Images) -> UInt8[Tensor, "b c *spatial"]:
    """Map [-1, 1] to 0..255, rounding to the nearest grey level."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def image_grid(
    images: UInt8[Tensor, "b c h w"], scale: int = 4, columns: int | None = None
) -> UInt8[Tensor, "3 H W"]:
    """Lay images out row by row, in a square if not told how wide, each pixel ``scale`` wide."""
    picture = make_grid(images, nrow=columns or math.ceil(math.sqrt(len(images))))
    return picture.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def write_png(picture: UInt8[Tensor, "c h w"], path: Path) -> None:
    """Write a grey (c = 1) or RGB (c = 3) picture, making its folder first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        to_pil_image(picture.cpu()).save(temporary, format="png")
