"""Runs on disk, and how to go on with one."""

import os
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_ddpm.checkpoints import Saved, is_weights, read_saved
from lightning_ddpm.files import require_writable
from lightning_ddpm.training.module import DiffusionLightningModule
from lightning_ddpm.training.progress import is_whole, steps_logged


def newest_run(root: Path) -> Saved | None:
    """The newest whole ``last.ckpt`` of the runs under ``root``, if there are any; says which.

    Raises:
        ValueError: if all are damaged.
    """
    say = rank_zero_only(print)
    paths = [*root.glob("lightning_logs/*/checkpoints/last.ckpt"), root / "checkpoints/last.ckpt"]
    paths = [path for path in paths if path.is_file()]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            saved = read_saved(path)
        except ValueError:
            saved = None
        if saved and is_whole(saved.state):
            say(f"resume:      {path}")
            return saved
        say(f"resume:      {path} is damaged")
    if paths:
        raise ValueError(f"no whole last.ckpt under {root}")
    say(f"resume:      no last.ckpt under {root} as yet; starting anew")
    return None


def to_go_on_with(path: Path) -> Saved:
    """A checkpoint that training can go on from.

    Raises:
        ValueError: if it is none.
    """
    if is_weights(path):
        raise ValueError(f"{path}: fit goes on from a checkpoint only")
    saved = read_saved(path)
    if not is_whole(saved.state):
        raise ValueError(f"{path}: not a checkpoint that fit has saved")
    return saved


def check_optimizer(module: DiffusionLightningModule, saved: Saved) -> None:
    """Raise ValueError if a checkpoint holds the state of another optimizer than the module's."""
    trained = saved.recipe.get("training", {}).get("optimizer")
    if trained != module.optimizer:
        raise ValueError(f"--optimizer: the checkpoint holds the state of {trained}")


def tensorboard(root: str | Path | None, resumed: Saved | None = None) -> TensorBoardLogger:
    """The logger of a new run under ``root``, or of the run that is resumed, where it was saved.

    Raises:
        OSError: if the folder cannot be written.
    """
    root, curves = Path(root or os.getcwd()), {}
    require_writable(root)
    run = resumed.path.resolve().parents[1] if resumed else root
    if resumed and run.parent.name == "lightning_logs":
        curves = {"version": run.name, "purge_step": steps_logged(resumed.state)}
    return TensorBoardLogger(root, default_hp_metric=False, **curves)
