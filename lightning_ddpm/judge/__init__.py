"""The judges of generated samples: figures that each have a floor, and the bound."""

from lightning_ddpm.judge.base import Judge, table, with_floors
from lightning_ddpm.judge.bound import VariationalBound
from lightning_ddpm.judge.by_time import LossByTime
from lightning_ddpm.judge.digits import DigitJudge, frechet_distance
from lightning_ddpm.judge.features import DigitFeatures
from lightning_ddpm.judge.manifold import Manifold
from lightning_ddpm.judge.memorisation import memorisation, nearest

__all__ = [
    "DigitFeatures",
    "DigitJudge",
    "Judge",
    "LossByTime",
    "Manifold",
    "VariationalBound",
    "frechet_distance",
    "memorisation",
    "nearest",
    "table",
    "with_floors",
]
