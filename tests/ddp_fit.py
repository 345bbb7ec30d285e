"""A fit on gloo processes, each of which notes what it saw (run by test_ddp.py)."""

import sys
from pathlib import Path
from typing import Any

import torch
from changed import two_processes
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_ddpm import Diffusion, DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.data import ArrayDataset
from lightning_ddpm.networks import MLP, UNet
from lightning_ddpm.objective import VelocityTarget
from lightning_ddpm.observation import Holes
from lightning_ddpm.samplers import Ancestral
from lightning_ddpm.schedule import CosineSchedule
from lightning_ddpm.training import EMA, SampleWriter

SIZES = (5, 64, 101)  # of which only one can be shared out evenly


class Notes(Callback):
    """Writes the indices, the time steps, the losses and the last weights of this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.indices, self.times = folder, [], []

    def on_fit_start(self, trainer, pl_module) -> None:
        loss = pl_module.model.denoising_loss
        pl_module.model.denoising_loss = lambda x0, t, *rest: (
            self.times.append(t) or loss(x0, t, *rest)
        )

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.indices.append(batch["index"])

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch, batch_idx) -> None:
        if batch_idx == 0:
            self.t, self.loss_of_each = self.times[-1], outputs["loss_of_each"]

    def on_train_end(self, trainer, pl_module) -> None:
        notes = {
            "index": torch.stack(self.indices),
            "t": self.t,
            "loss_of_each": self.loss_of_each,
            "weights": torch.nn.utils.parameters_to_vector(pl_module.parameters()),
            "val_loss": trainer.callback_metrics["val/loss"],
            "figures": judged(trainer.global_rank, trainer.world_size),
        }
        torch.save(notes, self.folder / f"rank{trainer.global_rank}.pt")


def judged(rank: int, processes: int) -> dict[str, float]:
    """The figures of 101 test images, of which this process adds its share."""
    judge: Any = MNISTDataModule(source="packaged").judge()
    images, labels = judge.test
    return judge.score(images[:101], labels[:101], rank, processes)


class SomeDigits(MNISTDataModule):
    """So many digits to validate, and seven to generate."""

    def __init__(self, source: str, size: int) -> None:
        super().__init__(source=source, batch_size=10, num_samples=7, sample_batch_size=2)
        self.size = size

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        return {"val": super().load_splits("fit")["val"].part(torch.arange(self.size))}


def fit(folder: Path, source: str, processes: int) -> None:
    """Train, validate, judge, generate and fill holes on so many processes."""
    seed_everything(0)
    torch.set_num_threads(1)
    options: dict[str, Any] = {"accelerator": "cpu", "devices": processes, "logger": False}
    options |= {"strategy": "ddp" if processes > 1 else "auto", "default_root_dir": folder}
    trainer = Trainer(
        **options,
        max_epochs=1,
        limit_train_batches=20,
        num_sanity_val_steps=0,
        callbacks=[EMA(), Notes(folder), ModelCheckpoint(folder, "last")],
    )
    model = Diffusion(MLP(hidden=32), sampler=Ancestral(2))
    data = MNISTDataModule(source=source, batch_size=100 // processes)
    module = DiffusionLightningModule(model)
    trainer.fit(module, data)
    own = TensorDataset(*data.splits["val"].part(torch.arange(200)).pair())
    (logged,) = trainer.validate(module, DataLoader(own, 100 // processes), verbose=False)
    losses = {"own": logged["val/loss"]}
    for size in SIZES:
        (logged,) = trainer.validate(module, SomeDigits(source, size), verbose=False)
        losses[str(size)] = logged["val/loss"]
    torch.save(losses, folder / f"losses{trainer.global_rank}.pt")
    for sampler in (True, False):
        writer = SampleWriter(str(folder / f"samples-{sampler}"))
        writes = Trainer(**options, callbacks=[writer], use_distributed_sampler=sampler)
        writes.predict(module, SomeDigits(source, 1))
    seed_everything(0)
    network = UNet(2, (8, 16), out_channels=1)
    torch.nn.init.normal_(network.head.weight, std=0.1)
    parts = (CosineSchedule(50), VelocityTarget())
    filling = Diffusion(network, *parts, sampler=Ancestral(2), observation=Holes())
    test_digits = MNISTDataModule(source="packaged", num_samples=7, sample_batch_size=2)
    writes = Trainer(**options, callbacks=[SampleWriter(str(folder / "filled"))])
    writes.predict(DiffusionLightningModule(filling), test_digits)


if __name__ == "__main__":
    fit(Path(sys.argv[1]), sys.argv[2], processes=2)
    two_processes(Path(sys.argv[1]), [Path(path) for path in sys.argv[3:]])
