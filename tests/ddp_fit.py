"""A fit on gloo processes, each of which notes what it saw (run by test_ddp.py)."""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.callbacks import EMA
from lightning_ddpm.networks import MLP
from lightning_ddpm.samplers import Ancestral


class Notes(Callback):
    """Writes the indices, the noise and the last weights of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.indices = folder, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.indices.append(batch["index"])

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch, batch_idx) -> None:
        if batch_idx == 0:
            self.t, self.loss_of_each = outputs["t"], outputs["loss_of_each"].detach()

    def on_train_end(self, trainer, pl_module) -> None:
        notes = {
            "index": torch.stack(self.indices),
            "t": self.t,
            "loss_of_each": self.loss_of_each,
            "weights": torch.nn.utils.parameters_to_vector(pl_module.parameters()),
            "val_loss": trainer.callback_metrics["val/loss"],
        }
        torch.save(notes, self.folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    folder, source, processes = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    seed_everything(0)
    torch.set_num_threads(1)
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp",
        max_epochs=1,
        limit_train_batches=20,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=False,
        callbacks=[EMA(), Notes(folder), ModelCheckpoint(folder, "last")],
    )
    model = DiffusionLightningModule(MLP(hidden=32), sampler=Ancestral(2))
    trainer.fit(model, MNISTDataModule(source=source, batch_size=100 // processes))
