"""What the network predicts, at which time steps, and what its errors cost."""

from abc import ABC, abstractmethod

import torch

from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Factors, Images, PerSample, TimeSteps


class Target(ABC):
    """What the network is trained to output, and how x0 is read from its output.

    ``alpha`` and ``sigma`` are the schedule's, ready to broadcast over the images.
    """

    @abstractmethod
    def target(self, x0: Images, noise: Images, alpha: Factors, sigma: Factors) -> Images:
        """The output that a perfect network would give for x_t = alpha x0 + sigma noise."""

    @abstractmethod
    def x0(self, output: Images, x_t: Images, alpha: Factors, sigma: Factors) -> Images:
        """The clean image that the network's ``output`` for ``x_t`` stands for."""

    @abstractmethod
    def x0_error(self, alpha: PerSample, sigma: PerSample) -> PerSample:
        """The squared error (b) of x0 that a squared error of 1 in the output stands for."""


class NoiseTarget(Target):
    """The network predicts the noise (Ho et al. 2020, arXiv 2006.11239, eq. 11 and 14)."""

    def target(self, x0: Images, noise: Images, alpha: Factors, sigma: Factors) -> Images:
        """The noise itself."""
        return noise

    def x0(self, output: Images, x_t: Images, alpha: Factors, sigma: Factors) -> Images:
        """Solve x_t = alpha x0 + sigma noise for x0; infinite where alpha is zero."""
        return (x_t - sigma * output) / alpha

    def x0_error(self, alpha: PerSample, sigma: PerSample) -> PerSample:
        """One over the signal-to-noise ratio."""
        return (sigma / alpha) ** 2


class DataTarget(Target):
    """The network predicts the clean image (Ho et al. 2020, section 3.2)."""

    def target(self, x0: Images, noise: Images, alpha: Factors, sigma: Factors) -> Images:
        """The clean image itself."""
        return x0

    def x0(self, output: Images, x_t: Images, alpha: Factors, sigma: Factors) -> Images:
        """The output itself."""
        return output

    def x0_error(self, alpha: PerSample, sigma: PerSample) -> PerSample:
        """One."""
        return torch.ones_like(alpha)


class VelocityTarget(Target):
    r"""The network predicts :math:`v = \alpha \epsilon - \sigma x_0`.

    (Salimans and Ho 2022, arXiv 2202.00512, section 4 and appendix D.)
    """

    def target(self, x0: Images, noise: Images, alpha: Factors, sigma: Factors) -> Images:
        """The velocity of x_t on the circle from the image to the noise."""
        return alpha * noise - sigma * x0

    def x0(self, output: Images, x_t: Images, alpha: Factors, sigma: Factors) -> Images:
        """Turn back by the angle between the image and x_t."""
        return alpha * x_t - sigma * output

    def x0_error(self, alpha: PerSample, sigma: PerSample) -> PerSample:
        """The noise's variance."""
        return sigma**2


class TimeSampler(ABC):
    """Draws the time steps that a batch is trained at."""

    @abstractmethod
    def draw(self, schedule: NoiseSchedule, size: int, generator: torch.Generator) -> TimeSteps:
        """Time steps (size) from 0 to T - 1, on the generator's device."""


class UniformTimes(TimeSampler):
    """All time steps alike (Ho et al. 2020, algorithm 1)."""

    def draw(self, schedule: NoiseSchedule, size: int, generator: torch.Generator) -> TimeSteps:
        """Draw uniformly."""
        return torch.randint(schedule.T, (size,), generator=generator, device=generator.device)


class LogitNormalTimes(TimeSampler):
    """t / T is the sigmoid of a Gaussian (Esser et al. 2024, arXiv 2403.03206, section 3.1).

    Args:
        mean: of the Gaussian; below 0 for more time steps with little noise.
        std: of the Gaussian, above 0.

    Raises:
        ValueError: if ``std`` is not above 0.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        if not std > 0:
            raise ValueError(f"std of the time steps must be above 0, got {std}")
        self.mean = mean
        self.std = std

    def draw(self, schedule: NoiseSchedule, size: int, generator: torch.Generator) -> TimeSteps:
        """Draw with the middle time steps preferred."""
        normal = torch.randn(size, generator=generator, device=generator.device)
        time = torch.sigmoid(normal * self.std + self.mean)
        return (time * schedule.T).long().clamp(max=schedule.T - 1)


class Weighting(ABC):
    """What the squared error of the network's output costs at each noise level."""

    @abstractmethod
    def weight(self, target: Target, alpha: PerSample, sigma: PerSample) -> PerSample:
        """The factor (b) of each sample's squared error."""


class UniformWeighting(Weighting):
    """Every error counts alike: the paper's L_simple (Ho et al. 2020, eq. 14)."""

    def weight(self, target: Target, alpha: PerSample, sigma: PerSample) -> PerSample:
        """One."""
        return torch.ones_like(alpha)


class MinSNRWeighting(Weighting):
    """The error of x0 counts min(SNR, gamma), whatever the target (arXiv 2303.09556, eq. 6).

    Args:
        gamma: where the signal-to-noise ratio is capped, above 0.

    Raises:
        ValueError: if ``gamma`` is not above 0.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        self.gamma = gamma

    def weight(self, target: Target, alpha: PerSample, sigma: PerSample) -> PerSample:
        """The weight of x0's error, in units of the target's own error."""
        snr = (alpha / sigma) ** 2
        return snr.clamp(max=self.gamma) * target.x0_error(alpha, sigma)


def squared_error(output: Images, target: Images) -> PerSample:
    """Mean squared error of each sample (b), in float32."""
    return (output.float() - target).square().flatten(1).mean(1)
