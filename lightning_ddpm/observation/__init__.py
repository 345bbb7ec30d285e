"""What may be known of a sample, and how a network is shown it."""

from lightning_ddpm.observation.base import Given, Observation, observed
from lightning_ddpm.observation.images import Holes, LowResolution
from lightning_ddpm.observation.series import Gaps

__all__ = ["Gaps", "Given", "Holes", "LowResolution", "Observation", "observed"]
