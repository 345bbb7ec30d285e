"""What the network predicts, at which time steps, and what its errors cost."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from lightning_ddpm.noise import Noise
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import (
    Factors,
    Known,
    Output,
    PerSample,
    PerTime,
    Samples,
    TimeSteps,
    expand_like,
)


class Target(ABC):
    """What the network is trained to output, and how x0 is read from its output.

    ``alpha`` and ``sigma`` are the schedule's, ready to broadcast over the samples.
    """

    @abstractmethod
    def target(self, x0: Samples, noise: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """The output that a perfect network would give for x_t = alpha x0 + sigma noise."""

    @abstractmethod
    def x0(self, output: Samples, x_t: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """The clean sample that the network's ``output`` for ``x_t`` stands for."""

    @abstractmethod
    def x0_error(self, alpha: PerTime, sigma: PerTime) -> PerTime:
        """The squared error of x0 that a squared error of 1 in the output stands for."""


class NoiseTarget(Target):
    """The network predicts the noise (Ho et al. 2020, arXiv 2006.11239, eq. 11 and 14)."""

    def target(self, x0: Samples, noise: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """The noise itself."""
        return noise

    def x0(self, output: Samples, x_t: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """Solve x_t = alpha x0 + sigma noise for x0; infinite where alpha is zero."""
        return (x_t - sigma * output) / alpha

    def x0_error(self, alpha: PerTime, sigma: PerTime) -> PerTime:
        """One over the signal-to-noise ratio."""
        return (sigma / alpha) ** 2


class DataTarget(Target):
    """The network predicts the clean sample (Ho et al. 2020, section 3.2)."""

    def target(self, x0: Samples, noise: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """The clean sample itself."""
        return x0

    def x0(self, output: Samples, x_t: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """The output itself."""
        return output

    def x0_error(self, alpha: PerTime, sigma: PerTime) -> PerTime:
        """One."""
        return torch.ones_like(alpha)


class VelocityTarget(Target):
    r"""The network predicts :math:`v = \alpha \epsilon - \sigma x_0`, for alpha^2 + sigma^2 = 1.

    (Salimans and Ho 2022, arXiv 2202.00512, section 4 and appendix D; of any other schedule it is
    the velocity on the circle, to a factor.)
    """

    def target(self, x0: Samples, noise: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """The velocity of x_t on the circle from the data to the noise."""
        return alpha * noise - sigma * x0

    def x0(self, output: Samples, x_t: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """Turn back by the angle between the clean sample and x_t."""
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)

    def x0_error(self, alpha: PerTime, sigma: PerTime) -> PerTime:
        """The noise's variance."""
        return (sigma / (alpha**2 + sigma**2)) ** 2


class FlowTarget(Target):
    r"""The network predicts :math:`\epsilon - x_0`, the velocity of ``RectifiedFlow``.

    (Liu et al. 2022, arXiv 2209.03003, eq. 1, from the data to the noise. It says the same of any
    other schedule, where it is no velocity.)
    """

    def target(self, x0: Samples, noise: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """The straight way from the clean sample to the noise."""
        return noise - x0

    def x0(self, output: Samples, x_t: Samples, alpha: Factors, sigma: Factors) -> Samples:
        """Go the way back from x_t."""
        return (x_t - sigma * output) / (alpha + sigma)

    def x0_error(self, alpha: PerTime, sigma: PerTime) -> PerTime:
        """The square of the way that is left to the clean sample."""
        return (sigma / (alpha + sigma)) ** 2


class TimeSampler(ABC):
    """Draws the time steps that a batch is trained at."""

    @abstractmethod
    def draw(self, schedule: NoiseSchedule, noise: Noise) -> TimeSteps:
        """A time step (b) from 0 to T - 1 for each sample of the batch."""


class UniformTimes(TimeSampler):
    """All time steps alike (Ho et al. 2020, algorithm 1)."""

    def draw(self, schedule: NoiseSchedule, noise: Noise) -> TimeSteps:
        """Draw uniformly."""
        return step_of(noise.uniform(), schedule)


@dataclass
class LogitNormalTimes(TimeSampler):
    """t / T is the sigmoid of a Gaussian (Esser et al. 2024, arXiv 2403.03206, section 3.1).

    Args:
        mean: of the Gaussian; below 0 for more time steps with little noise.
        std: of the Gaussian, above 0.

    Raises:
        ValueError: if ``std`` is not above 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise ValueError(f"std of the time steps must be above 0, got {self.std}")

    def draw(self, schedule: NoiseSchedule, noise: Noise) -> TimeSteps:
        """Draw with the middle time steps preferred."""
        return step_of(torch.sigmoid(noise.normal() * self.std + self.mean), schedule)


def step_of(time: PerSample, schedule: NoiseSchedule) -> TimeSteps:
    """The time steps (b) from 0 to T - 1 of times from 0 to 1, as parts of T."""
    return (time * schedule.T).long().clamp(max=schedule.T - 1)


class Weighting(ABC):
    """What the squared error of the network's output costs at each noise level."""

    @abstractmethod
    def weight(self, target: Target, alpha: PerTime, sigma: PerTime) -> PerTime:
        """The factor of each sample's squared error."""


class UniformWeighting(Weighting):
    """Every error counts alike: the paper's L_simple (Ho et al. 2020, eq. 14)."""

    def weight(self, target: Target, alpha: PerTime, sigma: PerTime) -> PerTime:
        """One."""
        return torch.ones_like(alpha)


@dataclass
class MinSNRWeighting(Weighting):
    """The error of x0 counts min(SNR, gamma), whatever the target (arXiv 2303.09556, eq. 6).

    Args:
        gamma: where the signal-to-noise ratio is capped, above 0.

    Raises:
        ValueError: if ``gamma`` is not above 0.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be above 0, got {self.gamma}")

    def weight(self, target: Target, alpha: PerTime, sigma: PerTime) -> PerTime:
        """The weight of x0's error, in units of the target's own error."""
        snr = (alpha / sigma) ** 2
        return snr.clamp(max=self.gamma) * target.x0_error(alpha, sigma)


def weighted_error(
    weighting: Weighting,
    target: Target,
    output: Output,
    x0: Samples,
    noise: Samples,
    alpha: PerTime,
    sigma: PerTime,
    unknown: Known | None = None,
) -> PerSample:
    """What the error (b) of the network's ``output`` costs.

    ``output`` may have more channels than ``x0``, as for a learned variance, which cost nothing.
    Nor do values that are not ``unknown``: errors are means over all values, as if theirs were 0.
    """
    wanted = target.target(x0, noise, expand_like(alpha, x0), expand_like(sigma, x0))
    output = output[:, : x0.shape[1]]
    if unknown is not None:
        output, wanted = output * unknown, wanted * unknown
    return weighting.weight(target, alpha, sigma) * squared_error(output, wanted)


def squared_error(output: Samples, target: Samples) -> PerSample:
    """Mean squared error of each sample (b), in float32."""
    return (output.float() - target).square().flatten(1).mean(1)
