"""What the Trainer of a run has besides its flags: its folder, its logger and its callbacks."""

from typing import Any

from lightning.pytorch.callbacks import Callback, Checkpoint, LearningRateMonitor

from lightning_ddpm.checkpoints import Saved
from lightning_ddpm.files import path_of
from lightning_ddpm.training.best import BestCheckpoint
from lightning_ddpm.training.ema import EMA
from lightning_ddpm.training.evaluation import SampleEvaluation
from lightning_ddpm.training.finite import FiniteWatch
from lightning_ddpm.training.report import Report
from lightning_ddpm.training.resume import LastCheckpoint, WholeCheckpointIO
from lightning_ddpm.training.runs import placed
from lightning_ddpm.training.samples import SampleWriter

CALLBACKS: dict[str, type[Callback]] = {
    "ema": EMA,
    "samples": SampleWriter,
    "evaluation": SampleEvaluation,
    "best_checkpoint": BestCheckpoint,
    "last_checkpoint": LastCheckpoint,
}
"""Those that have flags, by their names."""


def trainer_options(made: Any, subcommand: str, saved: Saved | None) -> dict[str, Any]:
    """The arguments of a Trainer that logs to TensorBoard, unless told otherwise, and saves.

    Args:
        made: the configuration of the subcommand, with the callbacks of ``CALLBACKS`` made.
        subcommand: of Lightning.
        saved: the checkpoint that the run goes on with, if any.

    Raises:
        OSError: if the run's folder cannot be written.
    """
    config, callbacks = made.trainer, as_list(made.trainer.callbacks)
    saves = config.enable_checkpointing is not False and not config.barebones
    ours = [n for n, callback in CALLBACKS.items() if saves or not issubclass(callback, Checkpoint)]
    callbacks += [made[name] for name in ours]
    logger, root = config.logger, path_of(config.default_root_dir or ".").absolute()
    if subcommand != "predict":
        logger, root = placed(logger, root, saved if made.resume else None)
    if subcommand == "fit":
        callbacks += [FiniteWatch(), Report(resumed=saved is not None)]
        callbacks += [LearningRateMonitor("step")] if logger and not config.barebones else []
    plugins = [*as_list(config.plugins), WholeCheckpointIO()]
    options = {"default_root_dir": str(root), "logger": logger or False, "plugins": plugins}
    bare = {"logger": False, "log_every_n_steps": None} if config.barebones else {}
    return {**options, "callbacks": callbacks, **bare}


def as_list(value: Any) -> list[Any]:
    """One, several or none, as a list."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]
