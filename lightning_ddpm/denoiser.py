"""From a noisy image to the clean one: all that a sampler sees of the model."""

from collections.abc import Callable

from lightning_ddpm.networks import Network
from lightning_ddpm.objective import Prediction, Target
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, TimeSteps, expand_like

Denoise = Callable[[Images, TimeSteps], Prediction]
"""``denoise(x_t, t)`` reads the clean image and the noise in ``x_t`` at time steps ``t``."""


class Denoiser:
    """A network, its schedule and its target, together the function ``denoise(x_t, t)``.

    The predicted x0 is clipped to the images' range [-1, 1], and the noise is what then remains
    in x_t, as in the code of Ho et al. 2020. Predictions are float32 under any autocast.
    """

    def __init__(self, network: Network, schedule: NoiseSchedule, target: Target) -> None:
        self.network = network
        self.schedule = schedule
        self.target = target

    def __call__(self, x_t: Images, t: TimeSteps) -> Prediction:
        """Predict x0 and noise (b, c, *spatial) from ``x_t`` at time steps ``t`` (b), 0 to T-1."""
        alpha, sigma = (expand_like(value, x_t) for value in self.schedule.alpha_sigma(t))
        output = self.network(x_t, t).float()
        x0 = self.target.predict(output, x_t, alpha, sigma).x0.clamp(-1, 1)
        return Prediction(x0, noise=(x_t - alpha * x0) / sigma)
