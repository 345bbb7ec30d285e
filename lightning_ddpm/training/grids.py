"""Grids of samples, for TensorBoard and as PNGs."""

from pathlib import Path

from lightning.pytorch import Trainer

from lightning_ddpm.data.base import DRAWN, ArrayDataModule
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.media.base import write_png
from lightning_ddpm.training.asked import arrays_of, asked_of
from lightning_ddpm.training.curves import show_gif, tensorboard
from lightning_ddpm.training.runs import run_folder


def draw_grid(trainer: Trainer, model: Diffusion, seed: int) -> Path | None:
    """Draw samples of the current weights; return the PNG, if there is one."""
    folder = run_folder(trainer)  # collective
    if not trainer.is_global_zero:
        return None
    with trainer.precision_plugin.forward_context():
        data = getattr(trainer, "datamodule", None)
        indices = data.drawn if isinstance(data, ArrayDataModule) else range(DRAWN)
        asked = asked_of(trainer, model, indices, seed)
        progress = shows_progress(trainer)
        x0 = model.sample(indices=indices, seed=seed, progress=progress, **asked.options)
    arrays = arrays_of(model, x0, asked)
    picture = model.medium.picture(arrays)
    if folder is None or picture is None:
        return None
    path = folder / "grids" / f"step-{trainer.global_step:06d}.png"
    write_png(picture, path)
    if logger := tensorboard(trainer):
        logger.experiment.add_image("samples", picture, trainer.global_step)
    if (gif := model.medium.gif(arrays)) is not None:
        show_gif(trainer, "moving_samples", gif)
    return path


def shows_progress(trainer: Trainer) -> bool:
    """Whether this process of the Trainer shows progress bars."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None
