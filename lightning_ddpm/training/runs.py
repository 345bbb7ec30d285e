"""Runs on disk, and how to go on with one."""

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lightning_ddpm.checkpoints import Saved, is_weights, read_saved
from lightning_ddpm.files import require_writable
from lightning_ddpm.training.progress import is_whole, steps_logged

RUNS = "lightning_logs"
FOLDERS: WeakKeyDictionary[Trainer, Path] = WeakKeyDictionary()


def run_folder(trainer: Trainer) -> Path | None:
    """The folder of this run alone, asked for on every process; none in a ``fast_dev_run``.

    It is the logger's. Without a logger it is ``default_root_dir``, or a new one below it if
    another run has left its checkpoint there.
    """
    known: Any = trainer
    logger, root = trainer.logger, Path(trainer.default_root_dir)
    if known.fast_dev_run:
        return None
    if isinstance(logger, TensorBoardLogger | CSVLogger):
        return Path(str(trainer.log_dir))
    if trainer not in FOLDERS:
        if logger is None:
            last = root / "checkpoints" / "last.ckpt"
            gone_on = trainer.ckpt_path and Path(trainer.ckpt_path).resolve() == last.resolve()
            taken = last.exists() and not gone_on and root.parent.name != RUNS
            folder = new_run(root) if taken else root
        else:  # where ModelCheckpoint saves as well
            version = logger.version
            version = version if isinstance(version, str) else f"version_{version}"
            folder = Path(logger.save_dir or root, str(logger.name), version)
        FOLDERS[trainer] = trainer.strategy.broadcast(folder)
    return FOLDERS[trainer]


def new_run(root: Path) -> Path:
    """The next folder for a run under ``root``, as Lightning's loggers count them."""
    names = [path.name.removeprefix("version_") for path in (root / RUNS).glob("version_*")]
    return root / RUNS / f"version_{max([-1, *map(int, filter(str.isdecimal, names))]) + 1}"


def newest_run(root: Path, runs: Path) -> Saved | None:
    """The newest whole ``last.ckpt`` of the ``runs``, or of ``root`` itself, if any; says which.

    Raises:
        ValueError: if all are damaged.
    """
    say = rank_zero_only(print)
    paths = [*runs.glob("*/checkpoints/last.ckpt"), root / "checkpoints/last.ckpt"]
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
        raise ValueError(f"no whole last.ckpt under {runs}")
    say(f"resume:      no last.ckpt under {runs} as yet; starting anew")
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


def folder_of(root: Path, resumed: Saved | None = None) -> Path:
    """The folder of a new run under ``root``, or of the run that is resumed, where it was saved.

    Raises:
        OSError: if the folder cannot be written.
    """
    require_writable(root)
    run = resumed.path.absolute().parents[1] if resumed else root
    return run if run.parent.name == RUNS else new_run(root)


def placed(logger: Any, root: Path, resumed: Saved | None = None) -> tuple[Any, Path]:
    """The logger of a run, TensorBoard's if none is named, and the Trainer's ``default_root_dir``.

    Without a logger, False, that is the run's own folder.

    Raises:
        OSError: if the folder cannot be written.
    """
    if logger is False:
        return False, folder_of(root, resumed)
    if logger not in (None, True):
        return logger, root
    version, purge = folder_of(root, resumed).name, steps_logged(resumed.state) if resumed else None
    options = {"version": version, "purge_step": purge}
    return TensorBoardLogger(root, default_hp_metric=False, **options), root
