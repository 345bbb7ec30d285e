"""Images to train on."""

from lightning_ddpm.data.base import ImageDataModule
from lightning_ddpm.data.mnist import DataError, MNISTDataModule

__all__ = ["DataError", "ImageDataModule", "MNISTDataModule"]
