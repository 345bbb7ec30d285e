"""Where samples come from, and their splits."""

from lightning_ddpm.data.base import ArrayDataModule, ArrayDataset
from lightning_ddpm.data.clips import VideoFolderDataModule
from lightning_ddpm.data.folder import ImageFolderDataModule
from lightning_ddpm.data.mnist import MNISTDataModule
from lightning_ddpm.data.moving import MovingMNISTDataModule
from lightning_ddpm.data.series import SeriesDataModule
from lightning_ddpm.files import DataError

__all__ = [
    "ArrayDataModule",
    "ArrayDataset",
    "DataError",
    "ImageFolderDataModule",
    "MNISTDataModule",
    "MovingMNISTDataModule",
    "SeriesDataModule",
    "VideoFolderDataModule",
]
