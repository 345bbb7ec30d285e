"""A denoising diffusion model (DDPM) on MNIST in PyTorch Lightning."""

from lightning_ddpm.data import MNISTDataModule
from lightning_ddpm.module import DiffusionLightningModule

__all__ = ["DiffusionLightningModule", "MNISTDataModule"]
__version__ = "0.1.0"
