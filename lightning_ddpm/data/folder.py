"""Any folder of images."""

import hashlib
import math
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, UInt8
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_ddpm.data.base import ArrayDataModule, ArrayDataset
from lightning_ddpm.files import DataError, path_of
from lightning_ddpm.pictures import (
    GREY,
    Head,
    of_any_size,
    pixels,
    read_head,
    read_picture,
)

FEWEST = 6
SHARE = 1 / 20  # of the images, for validation and for test


class ImageFolderDataModule(ArrayDataModule):
    """The images of a folder and its subfolders, held in memory.

    The subfolders, in the order of their names and numbers, are the classes, and the folder itself,
    if images lie in it, the one before them. If all images are grey, they stay so, otherwise all
    become RGB; what is transparent becomes white. About one in twenty, and at least two, are for
    validation, and as many for ``test``: each image's own content decides, so that it stays where
    it is if others are added, and copies stay together. Hidden files are left out, files of other
    kinds as well, with a warning, and a folder that links lead to again is taken once.

    Args:
        data_dir: the folder.
        image_size: height and width to bring images to: the shorter side is scaled to it, and the
            middle is cut out. If not given, all images must be of one size.
        batch_size: images in a batch, of each process.
        num_workers: processes that fetch batches; with images in memory none is fastest.
        num_samples: how many images ``predict`` generates.
        sample_batch_size: how many at once, at most; what suits the device if not given.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the images are read, if there are fewer than six, or one is damaged, of
            another size, or of a mode that is not supported, as of more than 8 bits; it names the
            file.
    """

    def __init__(
        self,
        data_dir: str,
        image_size: int | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        num_samples: int = 16,
        sample_batch_size: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, num_samples, sample_batch_size)
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.save_hyperparameters()
        self.data_dir = path_of(data_dir)
        self.image_size = image_size

    @cached_property
    def paths(self) -> list[Path]:
        """The files, in the order of their names."""
        if not self.data_dir.is_dir():
            raise DataError(f"{self.data_dir}: no such folder")
        found = files_under(self.data_dir)
        paths = [path for path in found if path.suffix.lower() in IMG_EXTENSIONS]
        if len(paths) < FEWEST:
            raise DataError(
                f"{self.data_dir} has {len(paths)} images; at least {FEWEST} are needed"
            )
        if left := sorted(set(found) - set(paths)):
            tell_left_out(self.data_dir, left)
        parts = {path.relative_to(self.data_dir).parts[0] for path in paths}
        if parts <= {"train", "val", "valid", "validation", "test"}:
            rank_zero_warn(f"{self.data_dir}: {', '.join(sorted(parts))} are taken for classes")
        return paths

    @property
    def classes(self) -> list[str]:
        """The subfolder of each image, or a dot."""
        parts = [path.relative_to(self.data_dir).parts for path in self.paths]
        return [names[0] if len(names) > 1 else "." for names in parts]

    @property
    def class_names(self) -> list[str]:
        """The subfolders, 2 before 10."""
        return sorted(set(self.classes), key=natural)

    @cached_property
    def heads(self) -> list[Head]:
        """What each file says of its image."""
        with self.any_size():
            heads = [read_head(path) for path in self.paths]
        several = [path for path, head in zip(self.paths, heads, strict=True) if head.pages > 1]
        if several:
            more = f" and {len(several) - 1} more" if several[1:] else ""
            rank_zero_warn(f"{several[0]}{more}: of several pages, the first is taken")
        return heads

    @property
    def raw_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels = 1 if all(head.mode in GREY for head in self.heads) else 3
        if self.image_size is not None:
            return (channels, self.image_size, self.image_size)
        width, height = self.heads[0].size
        for path, head in zip(self.paths, self.heads, strict=True):
            if head.size != (width, height):
                found = "x".join(map(str, head.size))
                raise DataError(
                    f"{path} has {found} pixels, and {self.paths[0]} {width}x{height}: "
                    "--image_size brings all to one size"
                )
        return (channels, height, width)

    def any_size(self) -> AbstractContextManager[None]:
        """Images that will be scaled may be as large as they like."""
        return nullcontext() if self.image_size is None else of_any_size()

    def read(self, path: Path, channels: int) -> tuple[UInt8[Tensor, "c h w"], float]:
        """An image, of ``image_size``, and a number from 0 to 1 that its content decides."""
        image, side = read_picture(path), self.image_size
        content = hashlib.sha256(image.convert("RGB").tobytes()).digest()
        if side is not None:
            image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        return pixels(image, channels), int.from_bytes(content[:6]) / 2**48

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        """Read all images, and share them out."""
        label = {name: i for i, name in enumerate(self.class_names)}
        labels = torch.tensor([label[name] for name in self.classes])
        read = partial(self.read, channels=self.raw_shape[0])
        with self.any_size(), ThreadPoolExecutor() as pool:
            images, content = zip(*pool.map(read, self.paths), strict=True)
        if images[0].shape[0] == 3 and all((image == image[:1]).all() for image in images):
            rank_zero_warn(
                f"{self.data_dir}: all images are grey, in files of colour: save them grey"
            )
        if len(set(content)) < FEWEST:  # copies of a few, which cannot stay together
            content = torch.rand(len(images), generator=torch.Generator().manual_seed(0)).tolist()
        everything, places = ArrayDataset(torch.stack(images), labels), shared_out(content)
        names = ["test"] if stage == "test" else ["train", "val"]
        return {name: everything.part(places[name]) for name in names}


def tell_left_out(root: Path, left: Collection[Path]) -> None:
    """Warn of files in a folder that are not taken, and of their kinds."""
    kinds = ", ".join(sorted({path.suffix or path.name for path in left})[:9])
    rank_zero_warn(f"{root}: {len(left)} files are left out, of {kinds}")


def files_under(root: Path) -> list[Path]:
    """The files in a folder and its subfolders, in order; hidden ones are left out.

    A folder that several links lead to is gone through once, and where it lies, if it is below.
    """
    folders, links, seen, found = [root], [], set(), []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if (real := folder.resolve()) in seen:
            continue
        seen.add(real)
        for path in sorted(path for path in folder.iterdir() if path.name[0] != "."):
            if path.is_dir():
                (links if path.is_symlink() else folders).append(path)
            else:
                found.append(path)
    return sorted(found)


def natural(name: str) -> list[str | int]:
    """What to sort names by, so that numbers in them count as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def shared_out(content: Sequence[float]) -> dict[str, Int[Tensor, " _"]]:
    """The places of the images for train, val and test, by the number that each content has."""
    number = torch.tensor(content, dtype=torch.float64)
    test = lowest(number, SHARE)
    val = lowest(torch.where(test, math.inf, number), 2 * SHARE) & ~test
    parts = {"train": ~(test | val), "val": val, "test": test}
    return {name: part.nonzero()[:, 0] for name, part in parts.items()}


def lowest(number: Float[Tensor, " n"], limit: float) -> Bool[Tensor, " n"]:
    """Which are at most ``limit``, or the lowest two."""
    return number <= max(limit, number.sort().values[1].item())
