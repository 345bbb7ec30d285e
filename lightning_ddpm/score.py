"""Judge any file of digits: ``python train.py score FILE.npz|FILE.pt|FOLDER``."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from lightning_ddpm.data import DataError, MNISTDataModule
from lightning_ddpm.metrics import Judge, table, with_floors

PICTURES = (".png", ".jpg", ".jpeg")


def read_samples(path: Path) -> tuple[UInt8[Tensor, "n 1 28 28"], Tensor | None]:
    """The images of a file or folder as 0..255, and their ``labels``, if a .npz or .pt has some.

    Raises:
        DataError: if there are no images of 28x28 pixels, or it is unclear what their values mean.
    """
    if path.is_dir():
        paths = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not paths:
            raise DataError(f"{path} has no {' or '.join(PICTURES)} files")
        try:
            pictures = [decode_image(str(p), ImageReadMode.GRAY) for p in paths]
            return to_digits(torch.stack(pictures), path), None
        except RuntimeError as error:
            raise DataError(f"{path}: the pictures cannot be read as one set: {error}") from error
    arrays = read_arrays(path)
    names = [name for name in ("images", "samples", "x", "arr_0") if name in arrays]
    if not names and len(arrays) != 1:
        raise DataError(f"{path} has no array named images, but {sorted(arrays)}")
    images = arrays[names[0] if names else next(iter(arrays))]
    labels = arrays.get("labels")
    if labels is not None and labels.shape != (len(images),):
        raise DataError(f"{path}: {len(images)} images, but labels of shape {tuple(labels.shape)}")
    return to_digits(images, path), labels


def read_arrays(path: Path) -> dict[str, Tensor]:
    """What a .npz, .npy or .pt file holds, by name; no code in it is run."""
    try:
        if path.suffix == ".pt":
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = np.load(path, allow_pickle=False)
        content = content if hasattr(content, "keys") else {"images": content}
        return {name: torch.as_tensor(content[name]) for name in content}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # what is damaged fails in any way
        raise DataError(f"{path}: not a file of arrays that can be read safely") from error


def to_digits(images: Tensor, path: Path) -> UInt8[Tensor, "n 1 28 28"]:
    """Bring (n, 28, 28), (n, c, 28, 28) or (n, 28, 28, c) to one channel of 0..255.

    Floats may be in [-1, 1] or [0, 1]: if none is near -1, they are in [0, 1], as the background of
    a digit is black. Images of 32x32 pixels lose the border that others have added.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.ndim == 4 and images.shape[2:] == (32, 32):
        images = images[:, :, 2:30, 2:30]
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2:] != (28, 28):
        raise DataError(f"{path}: expected images of 28x28 pixels, got {tuple(images.shape)}")
    if len(images) == 0:
        raise DataError(f"{path} has no images")
    if images.dtype == torch.uint8:
        return images.float().mean(1, keepdim=True).round().to(torch.uint8)
    low, high = images.min().item(), images.max().item()
    if not images.is_floating_point() or not (low >= -1.01 and high <= 1.01):
        raise DataError(
            f"{path}: expected uint8, or floats in [-1, 1] or [0, 1], got {images.dtype} from "
            f"{low:g} to {high:g}"
        )
    images = images.float() if low > -0.5 else (images.float() + 1) / 2
    return (images.mean(1, keepdim=True) * 255).round().clamp(0, 255).to(torch.uint8)


def score(
    images: UInt8[Tensor, "n 1 28 28"], labels: Tensor | None, data: MNISTDataModule
) -> dict[str, float]:
    """The figures of the images, beside those of as many test images, against the training ones.

    Of more images than there are test images only the first ones are judged.
    """
    data.prepare_data()
    judge, test = Judge(data.load_splits("fit")["train"]), data.load_splits("test")["test"]
    size = min(len(images), len(test))
    figures = judge.score(images[:size], None if labels is None else labels[:size])
    floors = judge.score(test.images[:size], None if labels is None else test.labels[:size])
    return {"samples": size, **with_floors(figures, floors)}


def main() -> None:
    """Score the file that is named on the command line."""
    parser = argparse.ArgumentParser(prog="python train.py score", description=__doc__)
    parser.add_argument("file", type=Path, help=".npz, .npy or .pt, or a folder of pictures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--data_dir", help="folder of MNIST, as for train.py")
    options = parser.parse_args()
    try:
        images, labels = read_samples(options.file)
        figures = score(images, labels, MNISTDataModule(options.data_dir))
    except (DataError, ValueError, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    print(json.dumps(figures, indent=2) if options.json else table(figures))


if __name__ == "__main__":
    main()
