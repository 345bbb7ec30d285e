"""What predict leaves on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from tqdm import tqdm

from lightning_ddpm.files import replacing, require_writable
from lightning_ddpm.images import image_grid, to_uint8, write_gif, write_png
from lightning_ddpm.module import DiffusionLightningModule
from lightning_ddpm.samplers.base import evenly_spaced

GRID_LIMIT = 400
FILM_IMAGES, FILM_FRAMES = 16, 50  # of the animation
STRIP_IMAGES, STRIP_FRAMES = 4, 11


class SampleWriter(BasePredictionWriter):
    """Writes generated images: ``samples.npz``, ``grid.png`` and, if asked for, PNGs and a film.

    ``samples.npz`` holds ``images``, uint8 (n, h, w), or (n, c, h, w) if they have colours, in the
    order of their indices, whatever the number of processes, and the classes they were asked to
    show as ``labels``, int64 (n), if there were any. The grid shows the first 400, each under its
    label.

    Args:
        outdir: the folder; ``samples`` under the Trainer's ``default_root_dir`` if not given.
        png: whether to write ``png/00000.png`` and so on as well.
        trajectory: whether to write the way from noise to the first 16 images as an animation,
            ``trajectory.gif``, and to the first 4 as a film strip, ``trajectory.png``.

    Raises:
        OSError: before any image is generated, if the folder cannot be written.
    """

    def __init__(
        self, outdir: str | None = None, png: bool = False, trajectory: bool = False
    ) -> None:
        super().__init__(write_interval="epoch")
        self.outdir = outdir
        self.png = png
        self.trajectory = trajectory

    def folder(self, trainer: Trainer) -> Path:
        """Where the images go."""
        return Path(self.outdir or Path(trainer.default_root_dir) / "samples")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that the folder can be written."""
        if stage == "predict":
            require_writable(self.folder(trainer))

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gather the images of all processes, in order, and write them once."""
        gathered: list[Any] = [predictions]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, predictions)
        if not trainer.is_global_zero:
            return
        batches = [batch for part in gathered for batch in part]
        order = torch.cat([batch["index"] for batch in batches]).argsort()
        images = torch.cat([batch["image"] for batch in batches])[order]  # (n, c, h, w)
        arrays: dict[str, Any] = {"images": images.squeeze(1).numpy()}
        if "label" in batches[0]:
            arrays["labels"] = torch.cat([batch["label"] for batch in batches])[order].numpy()
        folder = self.folder(trainer)
        with replacing(folder / "samples.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        captions = arrays["labels"][:GRID_LIMIT].tolist() if "labels" in arrays else None
        write_png(image_grid(images[:GRID_LIMIT], captions=captions), folder / "grid.png")
        films = [folder / "trajectory.gif", folder / "trajectory.png"]
        for path in [*(folder / "png").glob("[0-9]" * 5 + ".png"), *films]:
            path.unlink(missing_ok=True)  # of earlier samples
        if self.png:
            for index, image in enumerate(images):
                write_png(image, folder / "png" / f"{index:05d}.png")
        if self.trajectory:
            self.write_film(trainer, pl_module, len(images), folder)
        # Above Lightning's progress bar, not in it.
        names = ["samples.npz", "grid.png", *(path.name for path in films if path.exists())]
        tqdm.write(f"{len(images)} images are in {folder}: {', '.join(names)}")

    def write_film(
        self, trainer: Trainer, pl_module: LightningModule, samples: int, folder: Path
    ) -> None:
        """Generate the first images once more, and keep what they were on the way."""
        assert isinstance(pl_module, DiffusionLightningModule)
        with trainer.precision_plugin.forward_context():
            film = pl_module.sample(
                min(samples, FILM_IMAGES),
                seed=torch.initial_seed(),
                frames=FILM_FRAMES,
                progress=pl_module.shows_progress,
            )
        film = to_uint8(film).cpu()  # (b, frames, c, h, w)
        write_gif([image_grid(frame) for frame in film.unbind(1)], folder / "trajectory.gif")
        strip = film[:STRIP_IMAGES, evenly_spaced(film.shape[1], STRIP_FRAMES)]
        picture = image_grid(strip.flatten(0, 1), columns=strip.shape[1])
        write_png(picture, folder / "trajectory.png")
