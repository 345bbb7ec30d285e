"""From a noisy sample to the clean one: all that a sampler sees of the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch

from lightning_ddpm.objective import Target
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Factors, Output, Samples, TimeSteps, expand_like

Variance = Literal["small", "large", "learned"]
"""The reverse process's variance: fixed as one of the two in Ho et al. 2020, section 3.2, or
learned, as in Nichol and Dhariwal 2021, section 3.1, by a network of twice the output channels."""


class Prediction(NamedTuple):
    """What a denoiser says of x_t.

    ``x0`` and ``noise`` (b, c, *spatial) are the clean sample and the noise in x_t; ``large``, 0
    for the small and 1 for the large one, is where the reverse process's variance lies in between
    (``NoiseSchedule.reverse_variance``).
    """

    x0: Samples
    noise: Samples
    large: Factors | Samples


@runtime_checkable
class Predict(Protocol):
    """A network with all but x_t and t given: what a ``Denoiser`` reads and guidance changes."""

    def __call__(self, x_t: Samples, t: TimeSteps) -> Output:
        """The output for ``x_t`` at time steps ``t``."""
        ...


@runtime_checkable
class Denoise(Protocol):
    """Reads the clean sample and the noise in a noisy one; it carries the forward process."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The forward process."""
        ...

    def __call__(self, x_t: Samples, t: TimeSteps) -> Prediction:
        """Predict from ``x_t`` at time steps ``t``, (b) or one for all, 0 to T - 1."""
        ...


@dataclass
class Denoiser:
    """A network, its schedule and its target, together the function ``denoise(x_t, t)``.

    At t = 0 both fixed variances are the small one, for a better code length of the data, and the
    predicted x0 is clipped to the range of the data, and the noise is what then remains in x_t, as
    in the code of Ho et al. 2020. Predictions have x_t's precision under any autocast.

    Args:
        predict: called as ``predict(x_t, t)`` with t (b) or 0-d. For a learned variance it outputs
            twice the samples' channels, the second half being ``large`` scaled to [-1, 1].
        schedule: the forward process.
        target: what the network predicts.
        variance: the reverse process's.
        value_range: of the data; None if they have no bounds.
        paste: puts what is known of x0 in its place, if anything is.
    """

    predict: Predict
    schedule: NoiseSchedule
    target: Target
    variance: Variance = "small"
    value_range: tuple[float, float] | None = (-1.0, 1.0)
    paste: Callable[[Samples], Samples] | None = None

    def __call__(self, x_t: Samples, t: TimeSteps) -> Prediction:
        """Predict from ``x_t`` at time steps ``t``, (b) or one for all, 0 to T - 1."""
        return self.read(self.predict(x_t, t), x_t, t)

    def read(self, output: Output, x_t: Samples, t: TimeSteps) -> Prediction:
        """What the network's ``output`` for ``x_t`` and ``t`` stands for."""
        alpha, sigma = (expand_like(value, x_t) for value in self.schedule.alpha_sigma(t))
        channels = x_t.shape[1]
        output = output.to(x_t)
        x0 = self.target.x0(output[:, :channels], x_t, alpha, sigma)
        if self.value_range is not None:
            x0 = x0.clamp(*self.value_range)
        if self.paste is not None:
            x0 = self.paste(x0)
        if self.variance == "learned":
            large = (output[:, channels:] + 1) / 2
        else:
            large = expand_like((t > 0).to(x_t.dtype), x_t) * (self.variance == "large")
        return Prediction(x0, (x_t - alpha * x0) / sigma, large)


def for_each(t: TimeSteps, x: Samples) -> TimeSteps:
    """A time step (b) for each of the samples ``x``, where one was given for all."""
    return t if t.ndim else torch.full((len(x),), t.item(), device=x.device)
