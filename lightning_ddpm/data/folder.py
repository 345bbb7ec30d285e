"""Any folder of images."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.functional import pil_to_tensor

from lightning_ddpm.data.base import ArrayDataModule, ArrayDataset, DataError, random_split

GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
FEWEST = 6


class ImageFolderDataModule(ArrayDataModule):
    """The images of a folder and its subfolders, held in memory.

    The subfolders, in the order of their names, are the classes, and the folder itself, if images
    lie in it, the one before them. If all images are grey, they stay so, otherwise all become RGB;
    what is transparent becomes white. One in twenty, and at least two, chosen at random but always
    the same, are for validation, and as many for ``test``. Hidden files are left out.

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
        self.data_dir = Path(data_dir)
        self.image_size = image_size

    @cached_property
    def paths(self) -> list[Path]:
        """The files, in the order of their names."""
        if not self.data_dir.is_dir():
            raise DataError(f"{self.data_dir}: no such folder")
        paths = []
        for folder, folders, names in os.walk(self.data_dir, followlinks=True):
            folders[:] = [name for name in folders if name[0] != "."]
            paths += [Path(folder, name) for name in names if name[0] != "."]
        paths = sorted(path for path in paths if path.suffix.lower() in IMG_EXTENSIONS)
        if len(paths) < FEWEST:
            raise DataError(
                f"{self.data_dir} has {len(paths)} images; at least {FEWEST} are needed"
            )
        return paths

    @property
    def classes(self) -> list[str]:
        """The subfolder of each image, or a dot."""
        parts = [path.relative_to(self.data_dir).parts for path in self.paths]
        return [names[0] if len(names) > 1 else "." for names in parts]

    @property
    def class_names(self) -> list[str]:
        """The subfolders."""
        return sorted(set(self.classes))

    @cached_property
    def heads(self) -> list[tuple[str, tuple[int, int]]]:
        """The mode, and the width and height, of each image."""
        return [self.read_head(path) for path in self.paths]

    @property
    def raw_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels = 1 if all(mode in GREY for mode, _ in self.heads) else 3
        if self.image_size is not None:
            return (channels, self.image_size, self.image_size)
        width, height = self.heads[0][1]
        for path, (_, size) in zip(self.paths, self.heads, strict=True):
            if size != (width, height):
                raise DataError(
                    f"{path} has {size[0]}x{size[1]} pixels, and {self.paths[0]} {width}x{height}: "
                    "--image_size brings all to one size"
                )
        return (channels, height, width)

    def read_head(self, path: Path) -> tuple[str, tuple[int, int]]:
        """The mode, and the width and height of an upright image."""
        try:
            with Image.open(path) as image:
                mode, size = image.mode, image.size
                turned = image.getexif().get(0x0112, 1) > 4  # lies on its side
        except UNREADABLE as error:
            raise DataError(f"{path} cannot be read as an image") from error
        if mode not in (*GREY, *COLOUR):
            raise DataError(f"{path} is of mode {mode}, not of 8 bits, grey or RGB: save it so")
        return mode, (size[1], size[0]) if turned else size

    def read_image(self, path: Path, channels: int) -> UInt8[Tensor, "c h w"]:
        """An image, upright and of ``image_size``."""
        side = self.image_size
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
                if image.has_transparency_data:
                    white = Image.new("RGBA", image.size, "white")
                    image = Image.alpha_composite(white, image.convert("RGBA"))
                image = image.convert("L" if channels == 1 else "RGB")
        except UNREADABLE as error:
            raise DataError(f"{path} cannot be read as an image") from error
        if side is not None:
            image = ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)
        return pil_to_tensor(image)

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        """Read all images, and share them out."""
        read = partial(self.read_image, channels=self.raw_shape[0])
        with ThreadPoolExecutor() as pool:
            images = torch.stack(list(pool.map(read, self.paths)))
        label = {name: i for i, name in enumerate(self.class_names)}
        labels = [label[name] for name in self.classes]
        few = max(2, len(images) // 20)
        sizes = {"train": len(images) - 2 * few, "val": few, "test": few}
        splits = random_split(ArrayDataset(images, torch.tensor(labels)), sizes)
        return {name: splits[name] for name in (["test"] if stage == "test" else ["train", "val"])}
