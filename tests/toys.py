"""A schedule, a target, a sampler, a network, a medium, data and callbacks of somebody else."""

import os
import signal
from math import pi
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback

from lightning_ddpm.data import ArrayDataModule, ArrayDataset
from lightning_ddpm.data.base import random_split
from lightning_ddpm.media import Medium
from lightning_ddpm.networks import Network
from lightning_ddpm.objective import Target
from lightning_ddpm.samplers import Sampler
from lightning_ddpm.schedule import NoiseSchedule


class ConstantSchedule(NoiseSchedule):
    """Every step adds the same noise."""

    def __init__(self, T: int = 40, beta: float = 0.2) -> None:
        super().__init__()
        self.T = T
        self.beta = beta

    def alpha_sigma(self, t) -> tuple[torch.Tensor, torch.Tensor]:
        alpha_bar = (1 - self.beta) ** (t + 1)
        return alpha_bar**0.5, (1 - alpha_bar) ** 0.5


class NegativeTarget(Target):
    """The clean sample's negative."""

    def target(self, x0, noise, alpha, sigma) -> torch.Tensor:
        return -x0

    def x0(self, output, x_t, alpha, sigma) -> torch.Tensor:
        return -output

    def x0_error(self, alpha, sigma) -> torch.Tensor:
        return torch.ones_like(alpha)


class Cold(Sampler):
    """Noises the predicted sample again with new noise."""

    def __init__(self, steps: int | None = 40) -> None:
        super().__init__(steps)

    def step(self, denoise, x_t, t, s, state, noise) -> tuple[torch.Tensor, Any]:
        x0 = denoise(x_t, t).x0
        return denoise.schedule.add_noise(x0, noise.like(x0), s), state


class Pointwise(Network):
    """Sees one value at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return self.layer(x_t[..., None])[..., 0]


class Dropping(Network):
    """A network with dropout and with statistics."""

    def __init__(self, hidden: int = 8, in_channels: int = 1) -> None:
        super().__init__()
        self.hidden = hidden
        self.in_channels = in_channels
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(in_channels, hidden, 3, padding=1),
            torch.nn.BatchNorm2d(hidden),
            torch.nn.Dropout(0.5),
            torch.nn.Conv2d(hidden, 1, 1),
        )

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return self.layers(x_t)


class Waves(Medium):
    """Series (b, length) of some unit, as x0 (b, 1, length) around zero."""

    name = "waves"

    def __init__(self, mean: float = 3.0, std: float = 2.0) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def shape(self, raw_shape) -> tuple[int, ...]:
        return (1, *raw_shape)

    def encode(self, raw) -> torch.Tensor:
        return (raw[:, None] - self.mean) / self.std

    def decode(self, x0) -> torch.Tensor:
        return x0[:, 0] * self.std + self.mean


class WaveData(ArrayDataModule):
    """Slow waves and fast ones, around 3."""

    def __init__(self, length: int = 16, batch_size: int = 20, num_samples: int = 4) -> None:
        super().__init__(batch_size=batch_size, num_samples=num_samples)
        self.length = length

    @property
    def raw_shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def class_names(self) -> list[str]:
        return ["slow", "fast"]

    def load_splits(self, stage) -> dict[str, ArrayDataset]:
        label = torch.arange(100) % 2
        place, phase = torch.arange(self.length) / self.length, torch.arange(100)[:, None] / 50
        waves = 3 + 2 * torch.sin(2 * pi * ((label[:, None] + 1) * place + phase))
        return random_split(ArrayDataset(waves, label), {"train": 60, "val": 20, "test": 20})


class StopInValidation(Callback):
    """Sends SIGTERM when the second epoch is validated, which is saved at the epoch's end."""

    def on_validation_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


class StopEarly(Callback):
    """Ends the run in the second epoch, as max_time would."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        trainer.should_stop = trainer.global_step == 89
