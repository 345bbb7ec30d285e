"""Fits that stop and go on with something changed, and what each batch of them was (two processes
are started by ddp_fit.py)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from fits import FewImages, tiny_model, trainer, weights_of
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback

from lightning_ddpm.training import EMA, LastCheckpoint
from lightning_ddpm.training.resume import mean_gradients

LR, IMAGES = 0.01, 100


@dataclass
class Fit(Callback):
    """What happened in a fit: at each batch its images and the rate, and the weights' way."""

    stop: int | None = None
    index: list[list[int]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    moved: float = 0.0

    def on_train_start(self, trainer, pl_module) -> None:
        self.before = weights_of(pl_module)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.index.append(batch["index"].tolist())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.epochs.append(trainer.current_epoch)
        trainer.should_stop = len(self.index) == self.stop

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.moved = (weights_of(pl_module) - self.before).abs().max().item()
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]  # of the next step


def fit(
    folder: Path,
    path: Path | None = None,
    stop: int | None = None,
    batch_size: int = 10,
    callbacks: tuple = (),
    **options: Any,
) -> tuple[Fit, Path]:
    """Three epochs, up to ``stop`` batches; what happened, and the last checkpoint."""
    seed_everything(0, verbose=False)
    notes, last = Fit(stop), LastCheckpoint(every_n_seconds=0)
    settings: dict[str, Any] = {"max_epochs": 3, "num_sanity_val_steps": 0, **options}
    run = trainer(folder, callbacks=[EMA(), notes, last, *callbacks], **settings)
    data = FewImages(batch_size)
    run.fit(tiny_model(lr=LR, warmup_steps=1), data, ckpt_path=path, weights_only=True)
    assert last.path is not None
    return notes, last.path


def check(before: list[Any], after: list[Any], epochs: float) -> None:
    """See what two fits, of one or more processes each, have done together.

    Oracle: the images are counted. Of the epoch in which it was stopped each image is seen once,
    but those that do not divide; the rate falls in a straight line over all images that are left.
    """
    assert all(part.moved > 1e-4 for part in after)
    assert len({tuple(part.rates) for part in after}) == 1  # the same on all processes
    seen: dict[int, list[int]] = {}
    for part in (*before, *after):
        for epoch, index in zip(part.epochs, part.index, strict=True):
            seen.setdefault(epoch, []).extend(index)
    for images in seen.values():
        assert len(images) == len(set(images)) > IMAGES - len(after)
    first, rates = before[0].rate or after[0].rates[0], after[0].rates
    counts = [len(after) * len(index) for index in after[0].index]
    total = epochs * IMAGES - sum(len(index) for part in before for index in part.index)
    passed = torch.tensor([0, *counts]).cumsum(0)[:-1] / total
    torch.testing.assert_close(
        torch.tensor(rates), (first * (1 - passed)).float(), rtol=0, atol=0.06 * LR
    )
    assert after[0].rate == pytest.approx(0, abs=1e-9)


class SaveWithin(Callback):
    """Saves after the fourth batch of five, whose gradients wait for those of the last.

    It also notes the mean of a gradient that the second process alone has, and of none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mean: list[torch.Tensor | None] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if (trainer.current_epoch, batch_idx) == (0, 3):
            trainer.save_checkpoint(self.path)
            layer = torch.nn.Linear(1, 1)
            layer.weight.grad = torch.ones(1, 1) if trainer.global_rank == 1 else None
            self.mean = mean_gradients(trainer, layer)


def two_processes(folder: Path, saved: list[Path]) -> None:
    """Stop in an epoch and at the end of one; go on from each of what one process has saved."""
    for stop in (7, 10):  # batches of 10 by two
        notes, path = fit(folder / f"from{stop}", stop=stop, devices=2, strategy="ddp")
        torch.save(vars(notes) | {"path": str(path)}, folder / f"from{stop}-{rank()}.pt")
    for i, path in enumerate(saved):
        notes, _ = fit(folder / f"to{i}", path, devices=2, strategy="ddp")
        torch.save(vars(notes), folder / f"to{i}-{rank()}.pt")
    within: dict[str, Any] = {"devices": 2, "strategy": "ddp", "accumulate_grad_batches": 3}
    path = folder / "within.ckpt"
    saves = SaveWithin(path)
    _, whole = fit(folder / "whole", callbacks=(saves,), **within)
    _, resumed = fit(folder / "resumed", path, **within)
    seen = {"whole": str(whole), "resumed": str(resumed), "mean": saves.mean}
    torch.save(seen, folder / f"within-{rank()}.pt")


def rank() -> int:
    return torch.distributed.get_rank()
