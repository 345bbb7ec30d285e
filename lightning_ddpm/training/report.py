"""What a person is told of a run."""

import sys
from shlex import quote

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lightning_ddpm.training.curves import tensorboard
from lightning_ddpm.training.module import DiffusionLightningModule
from lightning_ddpm.training.progress import ends
from lightning_ddpm.training.resume import LastCheckpoint


class Report(Callback):
    """Says which precision was chosen, and at the end where everything is, and what to type next.

    Args:
        resumed: whether the run goes on from a checkpoint.
    """

    def __init__(self, resumed: bool = False) -> None:
        self.resumed = resumed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say the precision, and how the classes are numbered."""
        assert isinstance(pl_module, DiffusionLightningModule)
        if not trainer.is_global_zero:
            return
        print(f"precision:   {trainer.precision}")
        data = getattr(trainer, "datamodule", None)
        if pl_module.diffuses and pl_module.model.network.num_classes > 0:
            names = enumerate(getattr(data, "class_names", []))
            print(f"classes:     {', '.join(f'{i} {name}' for i, name in names)}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the rest."""
        assert isinstance(pl_module, DiffusionLightningModule)
        if not trainer.is_global_zero:
            return
        if pl_module.grid_path:
            print(f"samples:     {pl_module.grid_path}")
        if logger := tensorboard(trainer):
            print(f"curves:      tensorboard --logdir {quote(str(logger.save_dir))}")
        savers = trainer.checkpoint_callbacks
        last = next((c.path for c in savers if isinstance(c, LastCheckpoint)), None)
        over = [f"--max_{name}" for name, (now, end) in ends(trainer).items() if now >= end]
        best = [c for c in savers if isinstance(c, ModelCheckpoint)]
        # A resumed run also remembers the best checkpoint of the run before it.
        ours = [c.best_model_path for c in best if c.best_model_path.startswith(str(c.dirpath))]
        path = next(iter(ours), last)
        if last is None and self.resumed and over:
            longer = " and ".join(over)
            print(f"checkpoint:  this run has ended before; a larger {longer} goes on with it")
        if path:
            program = f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else sys.argv[0]
            print(f"checkpoint:  {path}")
            print(f"more digits: {program} predict --ckpt_path {quote(str(path))}")
