"""The configuration of a run, kept where it is of use."""

from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger


class SaveConfig(SaveConfigCallback):
    """Keeps the whole configuration of a training run: as a file, and in TensorBoard as text.

    Checkpoints keep the class and the arguments of the data.
    """

    data: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it when training starts."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Show it in TensorBoard."""
        if isinstance(trainer.logger, TensorBoardLogger):
            text = self.parser.dump(self.config, skip_none=False)
            trainer.logger.experiment.add_text("config", f"```yaml\n{text}\n```")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let ``test`` and ``validate`` know the data."""
        if self.data is None:
            self.data = yaml.safe_load(self.parser.dump(self.config, skip_none=False))["data"]
        checkpoint["data"] = self.data
