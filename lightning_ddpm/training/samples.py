"""What predict leaves on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from tqdm import tqdm

from lightning_ddpm.files import note, noted, path_of, refuse_others, require_writable
from lightning_ddpm.training.asked import asked_of
from lightning_ddpm.training.grids import shows_progress
from lightning_ddpm.training.module import DiffusionLightningModule

FILM_SAMPLES, FILM_FRAMES = 16, 50


class SampleWriter(BasePredictionWriter):
    """Writes generated samples as their medium does: ``samples.npz`` and, of images, ``grid.png``.

    ``samples.npz`` holds the samples by the medium's name, as ``images``, raw (n, ...), in the
    order of their indices, whatever the number of processes, and the classes they were asked to
    show as ``labels``, int64 (n), if there were any.

    Args:
        outdir: the folder; ``samples`` under the Trainer's ``default_root_dir`` if not given.
        png: whether to write ``png/00000.png`` and so on as well.
        trajectory: whether to write the way from noise to the first 16 samples as well: of images,
            as an animation, ``trajectory.gif``, and as a film strip, ``trajectory.png``.

    Raises:
        OSError: before anything is generated, if the folder cannot be written.
    """

    def __init__(
        self, outdir: str | None = None, png: bool = False, trajectory: bool = False
    ) -> None:
        super().__init__(write_interval="epoch")
        self.outdir = outdir
        self.png = png
        self.trajectory = trajectory

    def folder(self, trainer: Trainer) -> Path:
        """Where the samples go."""
        return path_of(self.outdir or Path(trainer.default_root_dir) / "samples")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that the folder can be written, and has nothing of another's in the way."""
        if stage == "predict":
            assert isinstance(pl_module, DiffusionLightningModule)
            require_writable(folder := self.folder(trainer))
            names = pl_module.model.medium.files(film=self.trajectory, png=self.png)
            refuse_others(folder, names)

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gather the samples of all processes, in order, and write them once."""
        assert isinstance(pl_module, DiffusionLightningModule)
        gathered: list[Any] = [predictions]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, predictions)
        if not trainer.is_global_zero:
            return
        batches = [batch for part in gathered for batch in part]
        arrays = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        order = arrays.pop("index").argsort()
        samples = {name: array[order] for name, array in arrays.items()}
        folder, medium = self.folder(trainer), pl_module.model.medium
        written = medium.write(samples, folder, png=self.png)
        if self.trajectory:
            indices, seed = range(min(len(order), FILM_SAMPLES)), torch.initial_seed()
            with trainer.precision_plugin.forward_context():
                film = pl_module.model.sample(
                    indices=indices,
                    seed=seed,
                    frames=FILM_FRAMES,
                    progress=shows_progress(trainer),
                    **asked_of(trainer, pl_module.model, indices, seed).options,
                )
            written += medium.write_film(medium.decode(film).cpu(), folder)
        kept, made = noted(folder), set(written)
        ours = {path for name in medium.files(film=True, png=True) for path in folder.glob(name)}
        for path in (kept & ours) - made:  # of earlier samples
            path.unlink()
        note(folder, kept - ours | made)
        # Above Lightning's progress bar, not in it.
        names = ", ".join(path.name for path in written if path.parent == folder)
        tqdm.write(f"{len(order)} {medium.name} are in {folder}: {names}")
