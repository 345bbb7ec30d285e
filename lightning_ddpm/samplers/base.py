"""The loop that all samplers share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise

import torch

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, TimeSteps


class Sampler(ABC):
    """Walks from noise x_T to an image x_0, down a decreasing sequence of time steps.

    Args:
        steps: number of denoising steps, at most the schedule's T; T if not given.
    """

    def __init__(self, steps: int | None = None) -> None:
        self.steps = steps

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """The time steps, evenly spaced from T - 1 to 0, and then -1, which is clean data.

        Raises:
            ValueError: if ``steps`` is not between 1 and T.
        """
        steps = schedule.T if self.steps is None else self.steps
        if not 1 <= steps <= schedule.T:
            raise ValueError(f"sampler steps must be between 1 and T = {schedule.T}, got {steps}")
        return [*torch.linspace(schedule.T - 1, 0, steps).round().int().tolist(), -1]

    @abstractmethod
    def step(
        self,
        denoise: Denoise,
        schedule: NoiseSchedule,
        x_t: Images,
        t: TimeSteps,
        s: TimeSteps,
        noise: SampleNoise,
    ) -> Images:
        """Go from x_t to x_s, where s < t (both (b), all entries alike), -1 at the end."""

    def trajectory(
        self, denoise: Denoise, schedule: NoiseSchedule, x_T: Images, noise: SampleNoise
    ) -> Iterator[Images]:
        """Yield the images after each step; the last ones are the samples.

        Args:
            denoise: what reads the clean image in a noisy one.
            schedule: the forward process.
            x_T: pure noise (b, c, *spatial).
            noise: where samplers that are stochastic draw from.
        """
        times = self.timesteps(schedule)
        x = x_T
        for t, s in pairwise(times):
            t, s = (torch.full((len(x),), time, device=x.device) for time in (t, s))
            x = self.step(denoise, schedule, x, t, s, noise)
            yield x
