"""From a noisy image to the clean one: all that a sampler sees of the model."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from lightning_ddpm.objective import Target
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Factors, Images, Output, TimeSteps, expand_like

Variance = Literal["small", "large", "learned"]
"""The reverse process's variance: fixed as one of the two in Ho et al. 2020, section 3.2, or
learned as in Nichol and Dhariwal 2021, section 3.1."""


class Prediction(NamedTuple):
    """What a denoiser says of x_t.

    ``x0`` and ``noise`` (b, c, *spatial) are the clean image and the noise in x_t; ``v``, 0 for
    small and 1 for large, is where the reverse process's variance lies in between
    (``NoiseSchedule.reverse_variance``).
    """

    x0: Images
    noise: Images
    v: Factors | Images


Denoise = Callable[[Images, TimeSteps], Prediction]
"""``denoise(x_t, t)`` reads the clean image and the noise in ``x_t`` at time steps ``t``."""


class Denoiser:
    """A network, its schedule and its target, together the function ``denoise(x_t, t)``.

    At t = 0 both fixed variances are the small one, for a better code length of the image, and the
    predicted x0 is clipped to the images' range [-1, 1], and the noise is what then remains
    in x_t, as in the code of Ho et al. 2020. Predictions have x_t's precision under any autocast.

    Args:
        network: called as ``network(x_t, t)``. For a learned variance it outputs twice the images'
            channels, the second half being v scaled to [-1, 1].
        schedule: the forward process.
        target: what the network predicts.
        variance: the reverse process's.
    """

    def __init__(
        self,
        network: Callable[[Images, TimeSteps], Output],
        schedule: NoiseSchedule,
        target: Target,
        variance: Variance = "small",
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.target = target
        self.variance = variance

    def __call__(self, x_t: Images, t: TimeSteps) -> Prediction:
        """Predict from ``x_t`` at time steps ``t`` (b), 0 to T - 1."""
        return self.read(self.network(x_t, t), x_t, t)

    def read(self, output: Output, x_t: Images, t: TimeSteps) -> Prediction:
        """What the network's ``output`` for ``x_t`` and ``t`` stands for."""
        alpha, sigma = (expand_like(value, x_t) for value in self.schedule.alpha_sigma(t))
        channels = x_t.shape[1]
        output = output.to(x_t)
        x0 = self.target.x0(output[:, :channels], x_t, alpha, sigma).clamp(-1, 1)
        v = (
            (output[:, channels:] + 1) / 2
            if self.variance == "learned"
            else (t > 0).to(alpha).view_as(alpha) * (self.variance == "large")
        )
        return Prediction(x0, (x_t - alpha * x0) / sigma, v)
