from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn

from lightning_ddpm import Diffusion, DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.networks import MLP, Network
from lightning_ddpm.samplers import Ancestral
from lightning_ddpm.training import EMA


class Recording(DiffusionLightningModule):
    """Notes a weight after each step, in validation, and when it draws and when it is saved."""

    def __init__(self) -> None:
        model = Diffusion(MLP(hidden=8, time_dim=4), sampler=Ancestral(1))
        super().__init__(model, lr=0.1, warmup_steps=1)
        self.raw, self.validated, self.drawn = [], [], []

    @property
    def weight(self) -> torch.Tensor:
        return next(self.model.parameters()).detach().double().clone()

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.raw.append(self.weight)

    def validation_step(self, batch, batch_idx) -> None:
        super().validation_step(batch, batch_idx)
        self.validated.append(self.weight)

    def draw_grid(self) -> None:
        self.drawn.append(self.weight)

    def average(self, decay: float, steps: int) -> torch.Tensor:
        """Oracle: the recursion of the docstring, in float64."""
        average = self.raw[0]
        for n, weight in enumerate(self.raw[1:steps], start=1):
            d = min(decay, n / (9 + n))
            average = d * average + (1 - d) * weight
        return average


def fit(model: DiffusionLightningModule, data: MNISTDataModule, folder: Path, **options) -> Trainer:
    checkpoints = ModelCheckpoint(
        folder, "last", save_on_train_epoch_end=True, save_on_exception=True
    )
    trainer = Trainer(
        callbacks=[EMA(decay=0.4), checkpoints],
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_train_batches=6,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(model, data)
    return trainer


def test_average_is_validated_drawn_and_saved(tmp_path: Path, digits: MNISTDataModule) -> None:
    model = Recording()
    fit(model, digits, tmp_path, max_epochs=2)
    expected = [model.average(0.4, 6), model.average(0.4, 12)]
    close = {"atol": 1e-6, "rtol": 0}
    torch.testing.assert_close(model.validated, expected, **close)
    torch.testing.assert_close(model.drawn, [*expected, expected[-1]], **close)
    assert (expected[1] - model.raw[-1]).abs().max() > 1e-4  # the average is not the weights
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    name = next(name for name, _ in model.named_parameters())
    torch.testing.assert_close(checkpoint["state_dict"][name].double(), expected[-1], **close)
    torch.testing.assert_close(checkpoint["current_model_state"][name].double(), model.raw[-1])


class Normed(Network):
    """Has statistics of its own beside its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1))

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return self.layers(x_t)


def test_statistics_are_those_of_the_weights_in_training(
    tmp_path: Path, digits: MNISTDataModule
) -> None:
    model = DiffusionLightningModule(Diffusion(Normed(), sampler=Ancestral(1)))
    assert (
        model.model.network.layers[0].num_batches_tracked == 0
    )  # no check has counted as training
    fit(model, digits, tmp_path, max_epochs=1)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        saved, current = (
            checkpoint[key][f"model.network.layers.0.{name}"]
            for key in ("state_dict", "current_model_state")
        )
        assert torch.equal(saved, current)
    assert saved == 6


def test_an_error_in_validation_saves_the_weights_unswapped(
    tmp_path: Path, digits: MNISTDataModule
) -> None:
    class Failing(Recording):
        def validation_step(self, batch, batch_idx) -> None:
            raise RuntimeError("validation failed")

    model = Failing()
    with pytest.raises(RuntimeError, match="validation failed"):
        fit(model, digits, tmp_path, max_epochs=1)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    name = next(name for name, _ in model.named_parameters())
    torch.testing.assert_close(checkpoint["current_model_state"][name].double(), model.raw[-1])


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="EMA decay must be"):
        EMA(decay)


def test_weights_that_are_shared_out_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path)
    monkeypatch.setattr(Trainer, "strategy", FSDPStrategy())  # which asks for GPUs
    with pytest.raises(ValueError, match="FSDPStrategy shares weights out, and their"):
        EMA().setup(given, Recording(), "fit")
