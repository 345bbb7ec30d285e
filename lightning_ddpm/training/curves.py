"""What TensorBoard shows beside the curves that are logged."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Float
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto import summary_pb2
from torch import Tensor

LAYOUT = {  # of the tab CUSTOM SCALARS: curves that are read together
    "Loss": {
        "training and validation": ["Multiline", ["train/loss", "val/loss"]],
        "validation, by time step": ["Multiline", ["val_by_time/.*"]],
    },
    "Optimizer": {"learning rate": ["Multiline", ["lr-.*"]]},
    "Samples": {
        "Fréchet distance": ["Multiline", ["eval/frechet_distance", "eval/frechet_floor"]],
        "precision and recall": ["Multiline", ["eval/precision$", "eval/recall$"]],
    },
}


def tensorboard(trainer: Trainer) -> TensorBoardLogger | None:
    """TensorBoard among the loggers of a Trainer, if it is there."""
    return next((log for log in trainer.loggers if isinstance(log, TensorBoardLogger)), None)


def open_hparams(trainer: Trainer, hparams: Mapping[str, Any]) -> None:
    """Open a run's row in the tab HPARAMS, to be filled, unless a resumed run has one."""
    logger, data = tensorboard(trainer), getattr(trainer, "datamodule", None)
    if logger is None:
        return
    hparams = dict(hparams) | dict(data.hparams if data else {})
    if not (Path(logger.log_dir) / logger.NAME_HPARAMS_FILE).exists():
        shown = {name: value for name, value in hparams.items() if not name.startswith("_")}
        logger.log_hyperparams(shown, {"hp/val_loss": math.nan})
        logger.experiment.add_custom_scalars(LAYOUT)


def show_gif(trainer: Trainer, name: str, gif: bytes) -> None:
    """Show a moving picture, which needs no more of TensorBoard than a GIF in an image's place."""
    if logger := tensorboard(trainer):
        summaries: Any = summary_pb2  # whose classes are made when it is imported
        image = summaries.Summary.Image(encoded_image_string=gif)
        summary = summaries.Summary(value=[summaries.Summary.Value(tag=name, image=image)])
        logger.experiment.flush()
        writer: Any = logger.experiment.file_writer
        writer.add_summary(summary, trainer.global_step)


def show_bound(trainer: Trainer, terms: Float[Tensor, " T"]) -> None:
    """Plot the bound's terms over t, where there are any."""
    if logger := tensorboard(trainer):
        for t, term in enumerate(terms.tolist()):
            if not math.isnan(term):
                logger.experiment.add_scalar("test/L_t over t", term, t)
