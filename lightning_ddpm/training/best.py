"""The best checkpoints of a run."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ddpm.training.evaluation import SampleEvaluation


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for a figure that is not there in every epoch, as ``eval/...``.

    It knows the best one again where a run's folder was moved, and gives several a name each.

    Args:
        options: those of ModelCheckpoint.

    Raises:
        ValueError: before the training, if there will be no such figure.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.save_top_k not in (0, 1) and self.filename and "{" not in self.filename:
            self.filename += "-{epoch}-{step}"
        if "/" in (self.filename or ""):  # of a figure's name, which would make folders
            self.auto_insert_metric_name = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that samples are evaluated, if they are to be monitored."""
        super().setup(trainer, pl_module, stage)
        never = not any(judge.every(trainer) for judge in judges_of(trainer))
        if stage == "fit" and (self.monitor or "").startswith("eval/") and never:
            raise ValueError(
                f"best_checkpoint.monitor {self.monitor}: no samples are evaluated in training; "
                "--evaluation.every_n_epochs says when"
            )

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See that validation gives the figure."""
        name, found = self.monitor or "", trainer.callback_metrics
        if name.startswith("val") and name not in found:
            raise ValueError(f"best_checkpoint.monitor {name}: there are {', '.join(found)}")

    def has_figure(self, trainer: Trainer) -> bool:
        """Whether there is what is monitored, and anew: samples are not judged in each epoch."""
        done = any(judge.done(trainer) for judge in judges_of(trainer))
        return done or not (self.monitor or "").startswith("eval/")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if the figure is there and among the best."""
        if self.has_figure(trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if the figure is there and among the best."""
        if self.has_figure(trainer):
            super().on_validation_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score if its file is in this run's folder, moved or not."""
        if Path(self.here(state_dict["best_model_path"])).is_file():
            paths = ("best_model_path", "kth_best_model_path", "last_model_path")
            moved = {name: self.here(state_dict[name]) for name in paths}
            models = {self.here(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict = state_dict | moved | {"best_k_models": models, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)

    def here(self, path: str) -> str:
        """The file of this name in this run's folder."""
        return str(Path(str(self.dirpath), Path(path).name)) if path else ""


def judges_of(trainer: Trainer) -> list[SampleEvaluation]:
    """What judges samples in training."""
    known: Any = trainer
    return [c for c in known.callbacks if isinstance(c, SampleEvaluation)]
