"""Ways from noise to samples."""

from lightning_ddpm.samplers.ancestral import Ancestral
from lightning_ddpm.samplers.base import Sampler
from lightning_ddpm.samplers.ddim import DDIM
from lightning_ddpm.samplers.dpm_solver import DPMSolver
from lightning_ddpm.samplers.heun import Heun

__all__ = ["DDIM", "Ancestral", "DPMSolver", "Heun", "Sampler"]
