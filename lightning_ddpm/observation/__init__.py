"""What may be known of a sample, and how a network is shown it."""

from lightning_ddpm.observation.base import Given, Observation, observed
from lightning_ddpm.observation.images import Holes, LowResolution
from lightning_ddpm.observation.series import Gaps
from lightning_ddpm.observation.video import Frames

__all__ = ["Frames", "Gaps", "Given", "Holes", "LowResolution", "Observation", "observed"]
