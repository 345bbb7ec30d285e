"""Mixed precision trains as float32 does, and leaves the schedule in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fits import trainer
from lightning import seed_everything
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_ddpm import Diffusion, DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.data import ArrayDataset
from lightning_ddpm.data.base import whole
from lightning_ddpm.networks import UNet
from lightning_ddpm.samplers import DDIM


class Recording(DiffusionLightningModule):
    """Notes its losses, and the types of what the network is given."""

    def __init__(self) -> None:
        model = Diffusion(UNet(channels=[16, 16]), sampler=DDIM(2), shape=(1, 14, 14))
        super().__init__(model, lr=1e-2, warmup_steps=5)
        self.losses: list[float] = []
        self.types: set[torch.dtype] = set()
        self.model.network.register_forward_pre_hook(self.note)

    def note(self, network: Any, inputs: tuple) -> None:
        self.types.add(inputs[0].dtype)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"].item())
        self.types |= {buffer.dtype for buffer in self.model.schedule.buffers()}
        self.types |= {outputs["loss_of_each"].dtype, *(p.dtype for p in self.parameters())}


@pytest.fixture(scope="module")
def small_digits(digits: MNISTDataModule) -> ArrayDataset:
    """Digits of half the size, which are quicker."""
    images = digits.splits["train"].x0[:2000]
    return ArrayDataset(F.avg_pool2d(images.float(), 2).to(torch.uint8))


def losses(images: ArrayDataset, folder: Path, precision: str) -> torch.Tensor:
    seed_everything(0)
    module = Recording()
    options = {"precision": precision, "max_steps": 60, "enable_checkpointing": False}
    batches = DataLoader(images, batch_size=16, shuffle=True, collate_fn=whole)
    trainer(folder, **options).fit(module, batches)
    assert module.types == {torch.float32}
    return torch.tensor(module.losses)


def test_mixed_precision_trains_as_float32_does(small_digits, tmp_path: Path) -> None:
    exact, mixed = (losses(small_digits, tmp_path, p) for p in ("32-true", "bf16-mixed"))
    assert not torch.equal(exact, mixed)
    assert exact[-10:].mean() < 0.5 * exact[0]  # it does train
    means = [curve.reshape(6, 10).mean(1) for curve in (exact, mixed)]
    assert ((means[1] / means[0] - 1).abs() < 0.02).all(), means
