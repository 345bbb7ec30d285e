"""The loop that all samplers share."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import Noise
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Samples, TimeSteps, spaced


class Sampler(ABC):
    """Walks from noise x_T to a sample x_0, down a decreasing sequence of time steps.

    Args:
        steps: number of denoising steps, at most the schedule's T; T if not given.
    """

    def __init__(self, steps: int | None = None) -> None:
        self.steps = steps

    def timesteps(self, schedule: NoiseSchedule) -> list[int]:
        """The time steps, evenly spaced from T - 1 to -1, which is clean data.

        These are the trailing time steps of Lin et al. 2023 (arXiv 2305.08891, section 3.3): the
        first step always starts from the last noise level.

        Raises:
            ValueError: if ``steps`` is not between 1 and T.
        """
        steps = schedule.T if self.steps is None else self.steps
        if not 1 <= steps <= schedule.T:
            raise ValueError(f"sampler steps must be between 1 and T = {schedule.T}, got {steps}")
        times = torch.linspace(schedule.T - 1, -1, steps + 1, dtype=torch.float64)
        return times.round().int().tolist()

    @abstractmethod
    def step(
        self, denoise: Denoise, x_t: Samples, t: TimeSteps, s: TimeSteps, state: Any, noise: Noise
    ) -> tuple[Samples, Any]:
        """Go from x_t to x_s, where s < t, -1 at the end; both are 0-d and on the CPU.

        So are ``denoise.schedule``'s alpha and sigma at t and s: asking for their values does not
        wait for a GPU. ``state`` is what the step before returned beside its samples, None in the
        first step; ``noise.like(x_t)`` is new noise.
        """

    def trajectory(
        self, denoise: Denoise, x: Samples, noise: Noise, times: Sequence[int] | None = None
    ) -> Iterator[Samples]:
        """Yield the samples after each step; the last ones are clean.

        Args:
            denoise: what reads the clean sample in a noisy one.
            x: the samples (b, c, *spatial) to start from: pure noise, or as noisy as ``times`` say.
            noise: where samplers that are stochastic draw from.
            times: the time steps to walk along; ``timesteps(denoise.schedule)`` if not given.
        """
        state = None
        for t, s in pairwise(map(torch.tensor, times or self.timesteps(denoise.schedule))):
            x, state = self.step(denoise, x, t, s, state, noise)
            yield x

    @torch.no_grad()
    def sample(
        self,
        denoise: Denoise,
        x: Samples,
        noise: Noise,
        times: Sequence[int] | None = None,
        progress: bool = False,
        frames: int | None = None,
    ) -> Samples | Float[Tensor, "b frames c *spatial"]:
        """The samples at the end of the ``trajectory``, with a progress bar if asked for.

        If ``frames`` are asked for, that many on the way, evenly spaced from x to the samples, or
        as many as there are. Raises ValueError if they are fewer than two.
        """
        if frames is not None and frames < 2:
            raise ValueError(f"frames must be at least 2, got {frames}")
        times = times or self.timesteps(denoise.schedule)
        steps = self.trajectory(denoise, x, noise, times)
        title = f"sampling {len(x)}"
        bar = tqdm(steps, title, len(times) - 1, leave=False, unit="step", disable=not progress)
        if frames is None:
            (samples,) = deque(bar, maxlen=1)
            return samples
        kept = spaced(len(times), frames)
        return torch.stack([x for i, x in enumerate(chain([x], bar)) if i in kept], dim=1)
