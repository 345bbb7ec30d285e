"""A denoising diffusion model (DDPM) on MNIST in PyTorch Lightning.

```
MNISTDataModule ──batch──▶ DiffusionLightningModule ──grids, curves──▶ TensorBoard
  data/                      │ module.py, diffusion.py                 callbacks/
                             │
        owns what the paper speaks of, each in a file of its own:
                             │
  NoiseSchedule  q(x_t | x_0)      schedule.py     how much image and noise there is at t
  Network        f(x_t, t, label)  networks/       what is learned
  Target         f ↔ noise, x_0, v objective.py    what it predicts, what errors cost
  Denoiser       x_t, t → x_0      denoiser.py     the three as one: all that the rest sees
  Sampler        x_T → x_0         samplers/       and editing.py and likelihood.py

Trainer: device placement, mixed precision, DDP, checkpoints, progress bars
metrics/ judge samples;  checkpoints.py and export.py keep models;  cli.py is train.py
```

A batch has `image` (b, c, h, w) in [-1, 1], `label` (b) and `index` (b). Time steps `t` (b) count
from 0 to T - 1; -1 is clean data. None of these five knows anything of Lightning or MNIST, nor of
those below it. `load_model()` is a trained model, ready to `sample`.
"""

# With __all__, pdoc would leave out the modules.
from lightning_ddpm.checkpoints import load_model as load_model
from lightning_ddpm.data import ImageFolderDataModule as ImageFolderDataModule
from lightning_ddpm.data import MNISTDataModule as MNISTDataModule
from lightning_ddpm.module import DiffusionLightningModule as DiffusionLightningModule

__version__ = "0.1.0"
