"""Images to train on."""

from lightning_ddpm.data.base import Batch, ImageDataModule
from lightning_ddpm.data.mnist import DataError, MNISTDataModule

__all__ = ["Batch", "DataError", "ImageDataModule", "MNISTDataModule"]
