"""Ways from noise to images."""

from lightning_ddpm.samplers.ancestral import AncestralSampler
from lightning_ddpm.samplers.base import Sampler

__all__ = ["AncestralSampler", "Sampler"]
