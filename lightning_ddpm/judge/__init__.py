"""The judges of generated samples: figures that each have a floor, and the bound."""

from lightning_ddpm.judge.base import Judge, in_float32, table, with_floors
from lightning_ddpm.judge.bound import VariationalBound
from lightning_ddpm.judge.by_time import LossByTime
from lightning_ddpm.judge.digits import DigitJudge, frechet_distance
from lightning_ddpm.judge.features import DigitFeatures
from lightning_ddpm.judge.manifold import Manifold
from lightning_ddpm.judge.memorisation import memorisation, nearest
from lightning_ddpm.judge.restoration import restoration_error
from lightning_ddpm.judge.series import SeriesJudge
from lightning_ddpm.judge.videos import VideoJudge

__all__ = [
    "DigitFeatures",
    "DigitJudge",
    "Judge",
    "LossByTime",
    "Manifold",
    "SeriesJudge",
    "VariationalBound",
    "VideoJudge",
    "frechet_distance",
    "in_float32",
    "memorisation",
    "nearest",
    "restoration_error",
    "table",
    "with_floors",
]
