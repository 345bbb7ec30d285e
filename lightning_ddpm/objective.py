"""What the network predicts, and the loss it is trained with."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from lightning_ddpm.shapes import Factors, Images, PerSample


class Prediction(NamedTuple):
    """What a denoiser says of x_t: the clean image and the noise in it, both (b, c, *spatial)."""

    x0: Images
    noise: Images


class Target(ABC):
    """What the network is trained to output, and how a prediction is read from its output.

    ``alpha`` and ``sigma`` (b, 1, ...) are the schedule's, ready to broadcast over the images.
    """

    @abstractmethod
    def target(self, x0: Images, noise: Images, alpha: Factors, sigma: Factors) -> Images:
        """The output that a perfect network would give for x_t = alpha x0 + sigma noise."""

    @abstractmethod
    def predict(self, output: Images, x_t: Images, alpha: Factors, sigma: Factors) -> Prediction:
        """The clean image and the noise that the network's ``output`` for ``x_t`` stands for."""


class NoiseTarget(Target):
    """The network predicts the noise (Ho et al. 2020, arXiv 2006.11239, eq. 11 and 14)."""

    def target(self, x0: Images, noise: Images, alpha: Factors, sigma: Factors) -> Images:
        """The noise itself."""
        return noise

    def predict(self, output: Images, x_t: Images, alpha: Factors, sigma: Factors) -> Prediction:
        """Solve x_t = alpha x0 + sigma noise for x0."""
        return Prediction(x0=(x_t - sigma * output) / alpha, noise=output)


def squared_error(output: Images, target: Images) -> PerSample:
    """Mean squared error of each sample (b), in float32: the paper's L_simple (eq. 14)."""
    return (output.float() - target).square().flatten(1).mean(1)
