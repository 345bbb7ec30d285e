"""The configuration of a run, kept where it is of use."""

from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from lightning_ddpm.files import replacing
from lightning_ddpm.training.curves import tensorboard
from lightning_ddpm.training.runs import run_folder


class SaveConfig(SaveConfigCallback):
    """Keeps the whole configuration of a training run: in its folder, and in TensorBoard as text.

    It can be run again as it is: what the run went on with is left out. Checkpoints keep the class
    and the arguments of the data, and what the classes are called.
    """

    data: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it when training starts."""
        if stage == "fit":
            self.folder = run_folder(trainer)  # collective
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it, and show it in TensorBoard."""
        config = self.config.clone()
        config.resume, config.ckpt_path = False, None
        text = self.parser.dump(config, skip_none=False)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / self.config_filename) as temporary:
                temporary.write_text(text, "utf-8")
        if logger := tensorboard(trainer):
            logger.experiment.add_text("config", f"```yaml\n{text}\n```")

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let later calls know the data."""
        if self.data is None:
            self.data = yaml.safe_load(self.parser.dump(self.config, skip_none=False))["data"]
            data = getattr(trainer, "datamodule", None)
            self.class_names = list(getattr(data, "class_names", ()))  # asked of all files
        checkpoint["data"], checkpoint["class_names"] = self.data, self.class_names
