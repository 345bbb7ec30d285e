"""Images to train on."""

from lightning_ddpm.data.base import DataError, ImageDataModule
from lightning_ddpm.data.folder import ImageFolderDataModule
from lightning_ddpm.data.mnist import MNISTDataModule

__all__ = ["DataError", "ImageDataModule", "ImageFolderDataModule", "MNISTDataModule"]
