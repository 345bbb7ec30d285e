"""All that knows the Trainer: the Lightning module and what happens around training."""

from lightning_ddpm.training.best import BestCheckpoint
from lightning_ddpm.training.ema import EMA
from lightning_ddpm.training.evaluation import SampleEvaluation
from lightning_ddpm.training.finite import FiniteWatch
from lightning_ddpm.training.module import DiffusionLightningModule
from lightning_ddpm.training.options import CALLBACKS, trainer_options
from lightning_ddpm.training.resume import LastCheckpoint, WholeCheckpointIO
from lightning_ddpm.training.samples import SampleWriter

__all__ = [
    "CALLBACKS",
    "EMA",
    "BestCheckpoint",
    "DiffusionLightningModule",
    "FiniteWatch",
    "LastCheckpoint",
    "SampleEvaluation",
    "SampleWriter",
    "WholeCheckpointIO",
    "trainer_options",
]
