"""Folders of images for tests, and what is read of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lightning_ddpm.data import ImageFolderDataModule


def write_images(
    folder: Path, size: tuple[int, int], mode: str = "RGB", n: int = 12, suffix: str = "png"
) -> None:
    """Random images of (width, height), in two classes."""
    draw = np.random.default_rng(0)
    for i in range(n):
        path = folder / ("cats", "dogs")[i % 2] / f"{i:02d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)


def splits(folder: Path, **options: object) -> dict[str, torch.Tensor]:
    data = ImageFolderDataModule(str(folder), **options)
    found = data.load_splits("fit") | data.load_splits("test")
    return {name: split.x0 for name, split in found.items()}


def contents(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}
