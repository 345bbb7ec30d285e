"""Mixed precision trains as float32 does, and leaves the schedule in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer, seed_everything

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.networks import UNet
from lightning_ddpm.samplers import DDIM


class Recording(DiffusionLightningModule):
    """Notes its losses, and the types of what the network is given."""

    def __init__(self) -> None:
        super().__init__(UNet(channels=[16, 16]), sampler=DDIM(2), lr=1e-2, warmup_steps=5)
        self.losses: list[float] = []
        self.types: set[torch.dtype] = set()
        self.network.register_forward_pre_hook(self.note)

    def note(self, network: Any, inputs: tuple) -> None:
        self.types.add(inputs[0].dtype)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].item())
        self.types |= {buffer.dtype for buffer in self.schedule.buffers()}
        self.types |= {outputs["loss_of_each"].dtype, *(p.dtype for p in self.parameters())}


def losses(digits: MNISTDataModule, folder: Path, precision: str) -> torch.Tensor:
    seed_everything(0)
    model = Recording()
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=60,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(model, digits)
    assert model.types == {torch.float32}
    return torch.tensor(model.losses)


def test_mixed_precision_trains_as_float32_does(digits: MNISTDataModule, tmp_path: Path) -> None:
    exact, mixed = (losses(digits, tmp_path, p) for p in ("32-true", "bf16-mixed"))
    assert not torch.equal(exact, mixed)
    assert exact[-10:].mean() < 0.5 * exact[0]  # it does train
    means = [curve.reshape(6, 10).mean(1) for curve in (exact, mixed)]
    assert ((means[1] / means[0] - 1).abs() < 0.02).all(), means


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_half_precision_is_refused_with_the_reason(
    digits: MNISTDataModule, tmp_path: Path, precision: str
) -> None:
    with pytest.raises(ValueError, match=r"does not keep the noise schedule .* in float32"):
        losses(digits, tmp_path, precision)
