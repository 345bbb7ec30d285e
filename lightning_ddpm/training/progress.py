"""Where the Trainer stands: the private names of Lightning, each behind what it means.

Tried on lightning 2.6.6; ``tests/test_progress.py`` fails where another version moves them.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loops.loop import _Loop


def has_trainer(module: LightningModule) -> bool:
    """Whether a module is in the hands of a Trainer: else its ``trainer`` would raise."""
    return module._trainer is not None


def batches_begun(trainer: Trainer) -> int:
    """How many training batches the run has begun, the present one included, also after a stop."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def batch_seed(trainer: Trainer, batches: int | None = None) -> int:
    """The seed of the run's ``batches``-th batch, or of the present one, also after a stop."""
    return hash((torch.initial_seed(), batches or batches_begun(trainer)))


def epoch_and_batch(trainer: Trainer) -> tuple[int, int]:
    """The epoch to train, and how many of its batches have been trained, also after a stop.

    To be asked before the epoch, by workers too, which fetch before Lightning has gone on to the
    next one.
    """
    loop: Any = trainer.fit_loop
    batches = loop.epoch_loop.batch_progress
    return loop.epoch_progress.current.processed, (
        0 if batches.is_last_batch else batches.current.ready
    )


def set_batches(trainer: Trainer, batches: int) -> None:
    """Let so many batches of the epoch have been trained, of the size that they have now."""
    current: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    if before := epoch_and_batch(trainer)[1]:
        for name in ("ready", "started", "processed", "completed"):
            setattr(current, name, getattr(current, name) + batches - before)


def ends(trainer: Trainer) -> dict[str, tuple[float, float]]:
    """What ends the run, by name: how much of it there has been, and at how much it is over.

    Asked for on every process, between two batches or after a step. The epoch that is trained
    counts by its part; of loaders without a length, none is known.
    """
    known: Any = trainer
    loop = known.fit_loop
    epochs, batches, found = loop.epoch_progress.current, loop.epoch_loop.batch_progress, {}
    if (loop.max_steps or -1) > 0:
        found["steps"] = (trainer.global_step, loop.max_steps)
    if loop.max_epochs > 0 and math.isfinite(loop.max_batches):
        complete = batches.is_last_batch and epochs.processed == epochs.started
        part = 0.0 if complete else batches.current.ready / loop.max_batches
        found["epochs"] = (epochs.processed + part, loop.max_epochs)
    for timer in known.callbacks:
        if isinstance(timer, Timer) and timer._duration is not None:
            found["time"] = (trainer.strategy.broadcast(timer.time_elapsed()), timer._duration)
    return found


def is_due(trainer: Trainer, every: int) -> bool:
    """Whether this epoch's validation is the first at or after one in ``every`` epochs; 0: never.

    Not every epoch has one.
    """
    epoch, known = trainer.current_epoch + 1, trainer.check_val_every_n_epoch or 1
    return every > 0 and epoch // every > (epoch - known) // every


def is_accumulating(trainer: Trainer) -> bool:
    """Whether gradients of batches before this one wait for more, up to the next step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def can_stop(trainer: Trainer) -> bool:
    """Whether a run that is saved after this batch goes on exactly: not before validation."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return not (
        is_accumulating(trainer)
        or loop.batch_progress.is_last_batch
        or loop._should_check_val_fx(fetcher)
    )


def leave_finished_epoch(trainer: Trainer) -> None:
    """Go on with the next epoch, if the run was saved at the end of one.

    With ``max_steps``, Lightning would go through the end of the epoch a second time.
    """
    loop: Any = trainer.fit_loop
    epochs = loop.epoch_progress.current
    if loop.restarting and epochs.processed > epochs.completed:
        epochs.completed = epochs.processed
        _Loop.restarting.__set__(loop, False)
        loop.reset_restart_stage()


@contextmanager
def epoch_as_it_is(trainer: Trainer) -> Iterator[None]:
    """Within, an epoch that is cut short by the end of the run has not been processed."""
    loop: Any = trainer.fit_loop
    cut_short = not loop.epoch_loop.batch_progress.is_last_batch
    loop.epoch_progress.current.processed -= cut_short
    yield
    loop.epoch_progress.current.processed += cut_short


def log_train_step(trainer: Trainer) -> None:
    """Log what this step has given, now: curves must reach as far as the checkpoint."""
    connector = trainer._logger_connector
    if connector._first_loop_iter is not None:  # within an epoch
        connector.update_train_step_metrics()


def steps_logged(saved: Mapping[str, Any]) -> int:
    """How many steps the curves of a checkpoint's run have; the rest was logged after it.

    The grid at the end of an epoch is logged one step after its curves, and so is a validation
    while gradients wait for their step.
    """
    batches = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return saved["global_step"] + (batches["is_last_batch"] or "gradients" in saved)


def is_whole(saved: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has all that a run needs to go on."""
    try:
        return steps_logged(saved) >= 0 and {"optimizer_states", "lr_schedulers"} <= set(saved)
    except (KeyError, TypeError):
        return False
