"""Short fits in this process: a small model, few images and a quiet Trainer."""

from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_ddpm import Diffusion, DiffusionLightningModule
from lightning_ddpm.data import ArrayDataModule, ArrayDataset
from lightning_ddpm.data.base import whole
from lightning_ddpm.networks import MLP
from lightning_ddpm.objective import NoiseTarget
from lightning_ddpm.samplers import Ancestral
from lightning_ddpm.schedule import CosineSchedule

SHAPE = (1, 4, 4)


class FewImages(ArrayDataModule):
    """Random images: 100 to train, 20 to validate and 20 to test, in three classes."""

    def __init__(self, batch_size: int = 10) -> None:
        super().__init__(batch_size)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        return SHAPE

    @property
    def class_names(self) -> list[str]:
        return ["a", "b", "c"]

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        return {name: few_images(n) for name, n in {"train": 100, "val": 20, "test": 20}.items()}


def few_images(n: int) -> ArrayDataset:
    """The same ``n`` images and labels every time."""
    draw = torch.Generator().manual_seed(n)
    images = torch.randint(256, (n, *SHAPE), dtype=torch.uint8, generator=draw)
    return ArrayDataset(images, torch.arange(n) % 3)


def small_model(**options: Any) -> DiffusionLightningModule:
    """A model of MNIST's images that has something of everything, and is quick."""
    network = MLP(hidden=32, time_dim=8)
    model = Diffusion(network, CosineSchedule(50), NoiseTarget(), Ancestral(5))
    return DiffusionLightningModule(model, **{"lr": 0.002, **options})


def tiny_model(**options: Any) -> DiffusionLightningModule:
    """A model of ``FewImages``."""
    network = MLP(shape=SHAPE, hidden=8, time_dim=4)
    model = Diffusion(network, CosineSchedule(50), sampler=Ancestral(1), shape=SHAPE)
    return DiffusionLightningModule(model, **options)


def trainer(folder: Path, **options: Any) -> Trainer:
    """A Trainer that shows and logs nothing."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", **{**quiet, **options})


def validation_loss(
    module: DiffusionLightningModule, split: ArrayDataset, folder: Path, size: int = 100
) -> float:
    """The loss that a Trainer finds on a split, in batches of ``size``."""
    batches = DataLoader(split, batch_size=size, collate_fn=whole)
    (logged,) = trainer(folder).validate(module, batches, verbose=False)
    return logged["val/loss"]


def weights_of(module: torch.nn.Module) -> Tensor:
    """All weights in one vector."""
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()
