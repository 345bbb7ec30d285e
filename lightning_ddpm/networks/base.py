"""What every network is called with."""

from abc import ABC, abstractmethod

from torch import nn

from lightning_ddpm.shapes import Images, Labels, Output, TimeSteps


class Network(nn.Module, ABC):
    """Predicts, for each pixel of a noisy image, what the model's target asks for.

    Subclasses keep their constructor's arguments as attributes of the same names.
    """

    num_classes: int = 0
    """How many classes of images the network can be told of; 0 for an unconditional model."""

    weak_dropout: float = 0.0
    """The part of the training images that train the network's weaker self, which guidance pushes
    away from. If above 0, ``forward`` also takes ``weak`` (b): which images are predicted by it."""

    @abstractmethod
    def forward(self, x_t: Images, t: TimeSteps, label: Labels | None = None) -> Output:
        """Predict from noisy images ``x_t`` (b, c, h, w) at time steps ``t`` (b), 0 to T - 1.

        ``label`` (b) is the class of each image, from 0; -1, like no ``label``, is unknown.
        """
