"""What every network is called with."""

from abc import ABC, abstractmethod

from torch import nn

from lightning_ddpm.shapes import Images, TimeSteps


class Network(nn.Module, ABC):
    """Predicts, for each pixel of a noisy image, what the model's target asks for.

    Subclasses keep their constructor's arguments as attributes of the same names.
    """

    @abstractmethod
    def forward(self, x_t: Images, t: TimeSteps) -> Images:
        """Predict from noisy images ``x_t`` (b, c, h, w) at time steps ``t`` (b), 0 to T - 1."""
