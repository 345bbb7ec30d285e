"""The judge of generated digits: frozen features, and figures that each have a floor."""

from lightning_ddpm.metrics.features import DigitFeatures
from lightning_ddpm.metrics.judge import Judge, frechet_distance, table, with_floors
from lightning_ddpm.metrics.manifold import Manifold
from lightning_ddpm.metrics.memorisation import memorisation, nearest

__all__ = [
    "DigitFeatures",
    "Judge",
    "Manifold",
    "frechet_distance",
    "memorisation",
    "nearest",
    "table",
    "with_floors",
]
