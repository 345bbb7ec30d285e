"""The last state of a run, from which it goes on as if it had never stopped."""

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from lightning_ddpm.files import replacing
from lightning_ddpm.training.curves import tensorboard
from lightning_ddpm.training.progress import (
    can_stop,
    epoch_as_it_is,
    has_trainer,
    is_accumulating,
    leave_finished_epoch,
    log_train_step,
)
from lightning_ddpm.training.runs import run_folder

CHECK_EVERY = 10  # batches: a GPU must be waited for, and other processes asked
SAVE = 1  # what a process may ask of all, beside SIGINT (2) and SIGTERM (15)


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

    Args:
        every_n_seconds: from one save to the next.

    Raises:
        ValueError: if ``every_n_seconds`` is below 0.
        OSError: in training, if the file cannot be written; the one before it is kept.
    """

    def __init__(self, every_n_seconds: float = 30.0) -> None:
        if not every_n_seconds >= 0:
            raise ValueError(f"every_n_seconds must be at least 0, got {every_n_seconds}")
        self.every_n_seconds = every_n_seconds
        self.path: Path | None = None
        self.others: list[Checkpoint] = []
        self.gradients: list[Tensor | None] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and listen for signals."""
        folder = run_folder(trainer)
        self.path = None if folder is None else folder / "checkpoints" / "last.ckpt"
        self.saved_at, self.signal, self.batches = time.monotonic(), 0, 0
        leave_finished_epoch(trainer)
        for parameter, kept in zip(pl_module.parameters(), self.gradients, strict=False):
            parameter.grad = None if kept is None else kept.to(parameter.device)
        self.gradients = []
        self.others = [saver for saver in trainer.checkpoint_callbacks if saver is not self]
        if threading.current_thread() is threading.main_thread():  # else Python would refuse
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self.on_signal)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the gradients that wait for a step: the best weights may be found meanwhile."""
        if is_accumulating(trainer):
            checkpoint["gradients"] = mean_gradients(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put them back when the training starts."""
        self.gradients = checkpoint.get("gradients", [])

    @property
    def best_model_path(self) -> str:
        """What ``ckpt_path="best"`` is where this comes first: another's best, or the last."""
        best = [path for c in self.others if (path := getattr(c, "best_model_path", ""))]
        return (best or [str(self.path or "")])[0]

    def on_signal(self, number: int, frame: Any) -> None:
        """Wait for the end of the step; exit at once if asked again."""
        if self.signal:
            sys.exit(128 + number)
        self.signal = number
        # No print: it may be what was interrupted, and Python refuses to enter it twice.
        os.write(1, b"\nstopping:    after this step or measurement; once more to stop at once\n")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, where a run can go on exactly."""
        self.batches += 1
        if self.batches >= CHECK_EVERY and can_stop(trainer):
            late = time.monotonic() - self.saved_at >= self.every_n_seconds
            self.check(trainer, SAVE if late and trainer.is_global_zero else 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        with epoch_as_it_is(trainer):
            self.check(trainer, SAVE)

    def check(self, trainer: Trainer, request: int) -> None:
        """Save or stop, if any process asks for it."""
        asked = torch.tensor(self.signal or request, device=trainer.strategy.root_device)
        asked, self.batches = int(trainer.strategy.reduce(asked, reduce_op="max")), 0
        if asked and self.path:
            log_train_step(trainer)
            if trainer.is_global_zero and (logger := tensorboard(trainer)):
                logger.experiment.flush()
            trainer.save_checkpoint(self.path, weights_only=False)
            self.saved_at = time.monotonic()
        if asked > SAVE:
            if self.path and trainer.is_global_zero:
                found = isinstance(trainer.logger, TensorBoardLogger | CSVLogger | None)
                way = "--resume" if found else f"--ckpt_path {quote(str(self.path))}"
                print(
                    f"\nstopped:     {self.path} has step {trainer.global_step}; go on with {way}"
                )
            # Lightning kills a process whose children exit with anything but 0.
            raise SystemExit(128 + asked if trainer.is_global_zero else 0)


def drop_gradients(module: LightningModule) -> None:
    """Let go of a run's gradients, but for those that wait for more, up to the next step."""
    if has_trainer(module) and not is_accumulating(module.trainer):
        module.zero_grad()


@torch.no_grad()
def mean_gradients(trainer: Trainer, module: nn.Module) -> list[Tensor | None]:
    """The gradients that wait for a step, as it would take them: their mean over all processes.

    A part that only some of the processes have used has no gradient on the others.
    """
    device, reduce = trainer.strategy.root_device, trainer.strategy.reduce
    parameters = list(module.parameters())
    used = torch.tensor([int(p.grad is not None) for p in parameters], device=device)
    used = reduce(used, reduce_op="max").tolist()
    gradients: list[Tensor | None] = []
    for parameter, anywhere in zip(parameters, used, strict=True):
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        mine = gradient.to(device, copy=True)  # each process goes on with its own
        gradients.append(reduce(mine, reduce_op="mean") if anywhere else None)
    return gradients
