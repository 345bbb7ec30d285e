"""A denoising diffusion model (DDPM) in PyTorch Lightning, at home on MNIST.

```
MNISTDataModule ──batch──▶ DiffusionLightningModule ──grids, curves──▶ TensorBoard
  data/                      │ training/
                             ▼ trains
                           Diffusion                 diffusion.py; no Lightning from here on
                             │
        owns what the paper speaks of, each in a file of its own:
                             │
  NoiseSchedule  q(x_t | x_0)          schedule.py     how much signal and noise there is at t
  Network        f(x_t, t, condition)  networks/       what is learned
  Target         f ↔ noise, x_0, v     objective.py    what it predicts, what errors cost
  Denoiser       x_t, t → x_0          denoiser.py     the three as one: all that the rest sees
  Sampler        x_T → x_0             samplers/       and editing.py and likelihood.py
  Medium         x_0 ↔ raw data        media/          what a sample is: a picture and files of it

Trainer: device placement, mixed precision, DDP, checkpoints, progress bars
judge/ judges samples;  checkpoints.py reads models from disk;  cli/ is train.py
```

A batch has ``x0`` (b, ...), raw as the medium has it, ``condition`` (b, ...) and ``index`` (b); a
sample x0 (b, c, *spatial) may have any number of spatial axes. Time steps `t` (b) count from 0 to
T - 1; -1 is clean data. `load_model()` is a trained model, ready to `sample`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # With __all__, pdoc would leave out the modules.
    from lightning_ddpm.checkpoints import load_model as load_model
    from lightning_ddpm.data import ImageFolderDataModule as ImageFolderDataModule
    from lightning_ddpm.data import MNISTDataModule as MNISTDataModule
    from lightning_ddpm.diffusion import Diffusion as Diffusion
    from lightning_ddpm.training import DiffusionLightningModule as DiffusionLightningModule

__version__ = "0.1.0"

HOMES = {
    "load_model": "checkpoints",
    "Diffusion": "diffusion",
    "ImageFolderDataModule": "data",
    "MNISTDataModule": "data",
    "DiffusionLightningModule": "training",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that what needs no Lightning does not wait for it."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
