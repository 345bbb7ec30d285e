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
from lightning_ddpm.images import image_grid, write_png

GRID_LIMIT = 400


class SampleWriter(BasePredictionWriter):
    """Writes generated images: ``samples.npz``, ``grid.png`` and, if asked for, a PNG each.

    ``samples.npz`` holds ``images``, uint8 (n, h, w), or (n, c, h, w) if they have colours, in the
    order of their indices, whatever the number of processes, and the classes they were asked to
    show as ``labels``, int64 (n), if there were any. The grid shows the first 400.

    Args:
        out: the folder; ``samples`` under the Trainer's ``default_root_dir`` if not given.
        png: whether to write ``png/00000.png`` and so on as well.

    Raises:
        OSError: before any image is generated, if the folder cannot be written.
    """

    def __init__(self, out: str | None = None, png: bool = False) -> None:
        super().__init__(write_interval="epoch")
        self.out = out
        self.png = png

    def folder(self, trainer: Trainer) -> Path:
        """Where the images go."""
        return Path(self.out or Path(trainer.default_root_dir) / "samples")

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
        write_png(image_grid(images[:GRID_LIMIT]), folder / "grid.png")
        for path in (folder / "png").glob("[0-9]" * 5 + ".png"):
            path.unlink()  # of earlier samples
        if self.png:
            for index, image in enumerate(images):
                write_png(image, folder / "png" / f"{index:05d}.png")
        # Above Lightning's progress bar, not in it.
        tqdm.write(
            f"{len(images)} images are in {folder / 'samples.npz'} and {folder / 'grid.png'}"
        )
