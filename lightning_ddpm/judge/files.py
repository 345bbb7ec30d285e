"""Any file of digits, also of other projects, as bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from lightning_ddpm.files import path_of
from lightning_ddpm.pictures import pixels, read_picture

PICTURES = (".png", ".jpg", ".jpeg")


def read_samples(path: Path) -> tuple[UInt8[Tensor, "n 1 28 28"], Tensor | None]:
    """The images of a file or folder as 0..255, and their ``labels``, if a .npz or .pt has some.

    Raises:
        ValueError: if there are no images of 28x28 pixels, or it is unclear what their values mean.
        DataError: if a picture cannot be read.
    """
    path = path_of(path)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        paths = [p for p in found if p.name[0] != "."]
        if not paths:
            raise ValueError(f"{path} has no {' or '.join(PICTURES)} files")
        digits = [to_digits(pixels(read_picture(p), 1)[None], p) for p in paths]
        return torch.cat(digits), None
    arrays = read_arrays(path)
    names = [name for name in ("images", "samples", "x", "arr_0") if name in arrays]
    if not names and len(arrays) != 1:
        raise ValueError(f"{path} has no array named images, but {sorted(arrays)}")
    images = arrays[names[0] if names else next(iter(arrays))]
    labels = arrays.get("labels", arrays.get("arr_1"))
    return to_digits(images, path), None if labels is None else to_labels(labels, images, path)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """What a .npz, .npy or .pt file holds, by name; no code in it is run."""
    try:
        if path.suffix == ".pt":
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
        else:
            content = np.load(path, allow_pickle=False)
        content = content if hasattr(content, "keys") else {"images": content}
        arrays = {name: content[name] for name in content}
        return {name: torch.as_tensor(v) for name, v in arrays.items() if is_array(v)}
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except Exception as error:  # what is damaged fails in any way
        raise ValueError(f"{path}: not a file of arrays that can be read safely") from error


def is_array(value: Any) -> bool:
    """Whether it holds numbers; text and settings may stand beside the images."""
    return isinstance(value, Tensor) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    )


def to_labels(labels: Tensor, images: Tensor, path: Path) -> Int[Tensor, " n"]:
    """The digit that each image was to show.

    Raises:
        ValueError: if there are as many others, or what is no digit.
    """
    if labels.shape != (len(images),):
        raise ValueError(f"{path}: {len(images)} images, but labels of shape {tuple(labels.shape)}")
    whole = labels.long()
    if not ((whole == labels) & (whole >= 0) & (whole <= 9)).all():
        raise ValueError(f"{path}: labels must be digits from 0 to 9")
    return whole


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
        raise ValueError(f"{path}: expected images of 28x28 pixels, got {tuple(images.shape)}")
    if len(images) == 0:
        raise ValueError(f"{path} has no images")
    if images.dtype == torch.uint8 and images.max() == 1:
        raise ValueError(f"{path}: the images are bytes of 0 and 1, not of 0 to 255: scale them")
    if images.dtype == torch.uint8:
        return images.float().mean(1, keepdim=True).round().to(torch.uint8)
    low, high = images.min().item(), images.max().item()
    if not images.is_floating_point() or not (low >= -1.01 and high <= 1.01):
        raise ValueError(
            f"{path}: expected uint8, or floats in [-1, 1] or [0, 1], got {images.dtype} from "
            f"{low:g} to {high:g}"
        )
    images = images.float() if low > -0.5 else (images.float() + 1) / 2
    return (images.mean(1, keepdim=True) * 255).round().clamp(0, 255).to(torch.uint8)
