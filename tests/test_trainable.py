"""The Lightning module trains whatever has ``loss(batch, noise)``: here, an autoencoder."""

from pathlib import Path

import torch
from fits import SHAPE, FewImages, trainer, weights_of
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from lightning_ddpm import DiffusionLightningModule
from lightning_ddpm.batch import raw_and_condition
from lightning_ddpm.media.images import from_uint8
from lightning_ddpm.training import EMA, FiniteWatch, LastCheckpoint


class Autoencoder(nn.Module):
    """Learns to undo a little noise through a bottleneck."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16, width),
            nn.ReLU(),
            nn.Linear(width, 16),
            nn.Unflatten(1, SHAPE),
        )

    def loss(self, batch, noise) -> Tensor:
        x0 = from_uint8(raw_and_condition(batch)[0])
        return (self.layers(x0 + 0.1 * noise.like(x0)) - x0).square().flatten(1).mean(1)


class Stop(Callback):
    """Ends the run in the middle of the second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        trainer.should_stop = trainer.global_step == 14


def fit(folder: Path, *callbacks: Callback, **options) -> DiffusionLightningModule:
    torch.manual_seed(0)
    module = DiffusionLightningModule(Autoencoder(), lr=1e-2)
    always = [EMA(), FiniteWatch(), LastCheckpoint(every_n_seconds=0)]
    run = trainer(folder, max_epochs=4, min_epochs=1, callbacks=[*always, *callbacks])
    run.fit(module, FewImages(), **options)
    return module


def test_it_trains_validates_and_draws_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = weights_of(DiffusionLightningModule(Autoencoder()))
    module = fit(tmp_path)
    assert not torch.equal(weights_of(module), before)
    assert module.trainer.callback_metrics["val/loss"] < 0.5
    assert not list(tmp_path.rglob("grids"))


def test_it_goes_on_exactly_and_reloads_without_arguments(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole")
    fit(tmp_path / "cut", Stop())
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 15
    resumed = fit(tmp_path / "resumed", ckpt_path=last, weights_only=True)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    again = DiffusionLightningModule.load_from_checkpoint(last, weights_only=True)
    assert isinstance(again.model, Autoencoder)
