"""What happens around training and prediction."""

from lightning_ddpm.callbacks.checkpoint import LastCheckpoint, WholeCheckpointIO
from lightning_ddpm.callbacks.ema import EMA
from lightning_ddpm.callbacks.evaluation import SampleEvaluation
from lightning_ddpm.callbacks.samples import SampleWriter

__all__ = ["EMA", "LastCheckpoint", "SampleEvaluation", "SampleWriter", "WholeCheckpointIO"]
