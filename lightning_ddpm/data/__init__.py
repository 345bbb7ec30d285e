"""Where samples come from, and their splits."""

from lightning_ddpm.data.base import ArrayDataModule, ArrayDataset
from lightning_ddpm.data.folder import ImageFolderDataModule
from lightning_ddpm.data.mnist import MNISTDataModule
from lightning_ddpm.data.series import SeriesDataModule
from lightning_ddpm.files import DataError

__all__ = [
    "ArrayDataModule",
    "ArrayDataset",
    "DataError",
    "ImageFolderDataModule",
    "MNISTDataModule",
    "SeriesDataModule",
]
