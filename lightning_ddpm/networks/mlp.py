"""The article's network: a multilayer perceptron on the flattened sample."""

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.layers import TimeEmbedding
from lightning_ddpm.shapes import MNIST_SHAPE, Condition, Output, Samples, TimeSteps


class MLP(Network):
    """The 784-1000-1000-784 perceptron with ReLU, and the time step embedded in its input.

    Args:
        shape: of a sample: channels, height and width of an image; if not given, the data's in a
            recipe, and MNIST's in Python.
        hidden: width of the two hidden layers.
        time_dim: width of the time embedding; 0 leaves the time step out, as the article's
            script did. It then cannot know how much noise to look for, and its samples fail.

    Raises:
        ValueError: if ``hidden`` is below 1, or ``time_dim`` is odd or negative.
    """

    def __init__(
        self, shape: Sequence[int] | None = None, hidden: int = 1000, time_dim: int = 128
    ) -> None:
        super().__init__()
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        self.shape = tuple(shape or MNIST_SHAPE)
        self.hidden = hidden
        self.time_dim = time_dim
        self.embedding = TimeEmbedding(time_dim) if time_dim != 0 else None
        values = prod(self.shape)
        self.layers = nn.Sequential(
            nn.Linear(values + time_dim, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, values),
        )

    def forward(self, x_t: Samples, t: TimeSteps, condition: Condition | None = None) -> Output:
        """Predict from noisy samples ``x_t`` (b, c, *spatial) at time steps ``t`` (b)."""
        x = x_t.flatten(1)  # (b, c * ...)
        if self.embedding is not None:
            x = torch.cat([x, self.embedding(t)], dim=1)
        return self.layers(x).view_as(x_t)
