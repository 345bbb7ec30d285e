"""What every network is called with."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from lightning_ddpm.shapes import Condition, Output, Samples, TimeSteps


class Network(nn.Module, ABC):
    """Predicts, for each value of a noisy sample, what the model's target asks for.

    Subclasses keep their constructor's arguments as attributes of the same names. Arguments that
    the data decide (``shape``, ``in_channels``, ``out_channels``, ``num_classes``) may be None in a
    recipe, and are then filled in.
    """

    conditional: bool = False
    """Whether the network is told a condition, such as labels, of which it can go without."""

    num_classes: int = 0
    """How many classes there are, if the condition is labels."""

    weak_dropout: float = 0.0
    """The part of the training samples that train the network's weaker self, which guidance pushes
    away from. If above 0, ``forward`` also takes ``weak`` (b): those that are predicted by it."""

    @abstractmethod
    def forward(self, x_t: Samples, t: TimeSteps, condition: Condition | None = None) -> Output:
        """Predict from noisy samples ``x_t`` (b, c, *spatial) at time steps ``t`` (b), 0 to T - 1.

        Without a ``condition`` (b, ...), the prediction is unconditional.
        """

    def unconditional(self, condition: Condition) -> Condition:
        """What stands for no condition, in the shape of ``condition``: of labels (b), -1."""
        return torch.full_like(condition, -1)
