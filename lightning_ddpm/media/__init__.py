"""Kinds of data: what a sample is, as x0, as raw data, as a picture and as files."""

from lightning_ddpm.media.base import Arrays, Medium
from lightning_ddpm.media.images import Images
from lightning_ddpm.media.series import Series
from lightning_ddpm.media.videos import Videos

__all__ = ["Arrays", "Images", "Medium", "Series", "Videos"]
