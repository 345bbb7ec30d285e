"""Where samples come from, and their splits."""

from lightning_ddpm.data.base import ArrayDataModule, ArrayDataset, DataError
from lightning_ddpm.data.folder import ImageFolderDataModule
from lightning_ddpm.data.mnist import MNISTDataModule

__all__ = [
    "ArrayDataModule",
    "ArrayDataset",
    "DataError",
    "ImageFolderDataModule",
    "MNISTDataModule",
]
