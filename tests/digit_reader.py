"""A classifier of the tests' own, to read what was generated."""

import torch
from torch import nn
from torch.nn import functional as F

from lightning_ddpm.data import ArrayDataset


def trained_reader(train: ArrayDataset, epochs: int = 2) -> nn.Module:
    """A small convolutional network, trained on real digits."""
    reader = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.Adam(reader.parameters(), 2e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(train)).split(128):
            loss = F.cross_entropy(reader(train.x0[index] / 255), train.condition[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return reader.eval()


@torch.no_grad()
def share_read_as(reader: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The part of ``images`` (n, 1, 28, 28), 0..255, that are read as their label."""
    return (reader(images / 255).argmax(1) == labels).double().mean().item()
