"""The last state of a run, from which it goes on as if it had never stopped."""

import io
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_ddpm.files import replacing
from lightning_ddpm.module import DiffusionLightningModule

CHECK_EVERY = 10  # batches: a GPU must be waited for, and other processes asked
SAVE, FAILED = 1, 255  # what a process may ask of all, beside SIGINT (2) and SIGTERM (15)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and says which one could not be written."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write beside ``path``, then rename. Raises OSError, and leaves what was there."""
        content, path = io.BytesIO(), Path(path)
        torch.save(checkpoint, content)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())  # before the rename, also if the power fails
        except OSError as error:
            raise OSError(f"the checkpoint {path} cannot be written: {error.strerror}") from error


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, and stops the run in good order.

    It is saved between two batches, at the end of each epoch, and on SIGINT or SIGTERM, after which
    the process exits with 130 or 143; a second signal does not wait. All processes do so together.
    A loss or weights that are not finite are never saved.

    Args:
        every_n_seconds: from one save to the next.

    Raises:
        ValueError: if ``every_n_seconds`` is below 0.
        FloatingPointError: in training, if the loss or the weights are no longer finite; it names
            the step, the time steps and the learning rate.
        OSError: in training, if the file cannot be written; the one before it is kept.
    """

    def __init__(self, every_n_seconds: float = 30.0) -> None:
        if not every_n_seconds >= 0:
            raise ValueError(f"every_n_seconds must be at least 0, got {every_n_seconds}")
        self.every_n_seconds = every_n_seconds
        self.path: Path | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and listen for signals."""
        folder = trainer.log_dir  # collective: asked for on every process
        self.path = None if folder is None else Path(folder) / "checkpoints" / "last.ckpt"
        self.saved_at, self.signal = time.monotonic(), 0
        self.recent: list[tuple[int, Any]] = []
        loop: Any = trainer.fit_loop
        epochs = loop.epoch_progress.current
        if loop.restarting and epochs.processed > epochs.completed:
            # With max_steps, Lightning would go through the end of the epoch a second time.
            epochs.completed = epochs.processed
            _Loop.restarting.__set__(loop, False)
            loop.reset_restart_stage()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.on_signal)

    def on_signal(self, number: int, frame: Any) -> None:
        """Wait for the end of the step; exit at once if asked again."""
        if self.signal:
            sys.exit(128 + number)
        self.signal = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, where a run can go on exactly: not before validation."""
        self.recent.append((trainer.global_step, outputs))
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        between = not (
            loop._should_accumulate()
            or loop.batch_progress.is_last_batch
            or loop._should_check_val_fx(fetcher)
        )
        if between and len(self.recent) >= CHECK_EVERY:
            due = (
                trainer.is_global_zero and self.every_n_seconds <= time.monotonic() - self.saved_at
            )
            self.check(trainer, pl_module, SAVE if due else 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; an epoch that is cut short by the end of the run has not been processed."""
        loop: Any = trainer.fit_loop
        cut_short = not loop.epoch_loop.batch_progress.is_last_batch
        loop.epoch_progress.current.processed -= cut_short
        self.check(trainer, pl_module, SAVE)
        loop.epoch_progress.current.processed += cut_short

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before weights that are not finite are saved as the best ones."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.asked_by_any(trainer, pl_module, 0)

    def asked_by_any(self, trainer: Trainer, pl_module: LightningModule, request: int) -> int:
        """The highest request of all processes; fail if one of them has what is not finite."""
        failure = self.failure(trainer, pl_module)
        asked = torch.tensor(FAILED if failure else request, device=trainer.strategy.root_device)
        asked = int(trainer.strategy.reduce(asked, reduce_op="max"))
        self.recent = []
        if failure:
            raise FloatingPointError(failure)
        if asked == FAILED:
            raise SystemExit(1)
        return asked

    def check(self, trainer: Trainer, pl_module: LightningModule, request: int) -> None:
        """Save, stop or fail, if any process asks for it."""
        asked = self.asked_by_any(trainer, pl_module, self.signal or request)
        if asked and self.path:
            # The curves must reach as far as the checkpoint; Lightning would log this step later.
            if trainer._logger_connector._first_loop_iter is not None:  # within an epoch
                trainer._logger_connector.update_train_step_metrics()
            if isinstance(trainer.logger, TensorBoardLogger) and trainer.is_global_zero:
                trainer.logger.experiment.flush()
            trainer.save_checkpoint(self.path, weights_only=False)
            self.saved_at = time.monotonic()
        if asked > SAVE:
            if self.path and trainer.is_global_zero:
                step = trainer.global_step
                print(f"\nstopped:     {self.path} has step {step}; go on with --resume")
            # Lightning kills a process whose children exit with anything but 0.
            raise SystemExit(128 + asked if trainer.is_global_zero else 0)

    def failure(self, trainer: Trainer, pl_module: LightningModule) -> str | None:
        """What is not finite, if anything: a loss since the last check, or a weight."""
        assert isinstance(pl_module, DiffusionLightningModule)
        losses = torch.stack([outputs["loss"] for _, outputs in self.recent] or [torch.zeros(())])
        if not losses.isfinite().all():
            step, outputs = self.recent[int(losses.isfinite().logical_not().int().argmax())]
            bad = outputs["t"][outputs["loss_of_each"].isfinite().logical_not()]
            what = f"the loss of step {step} is not finite at the time steps {bad.tolist()}"
        elif not torch.stack([w.isfinite().all() for w in pl_module.parameters()]).all():
            step = trainer.global_step
            what = f"the weights are not finite after step {step}"
        else:
            return None
        lr = pl_module.lr * pl_module.lr_factor(step - 1)
        kept = self.path is not None and self.path.is_file()
        advice = f"; {self.path} has the last good state" if kept else ""
        return f"{what}, with a learning rate of {lr:.3g}: lower --lr{advice}"
