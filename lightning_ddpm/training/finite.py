"""The watch for what is not finite."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.training.module import DiffusionLightningModule
from lightning_ddpm.training.progress import batches_begun
from lightning_ddpm.training.resume import LastCheckpoint

CHECK_EVERY = 10  # batches: a GPU must be waited for, and other processes asked


class FiniteWatch(Callback):
    """Stops a run whose loss or weights are not finite, before they are saved or validated.

    All processes stop together.

    Raises:
        FloatingPointError: in training; it names the step, the time steps and the learning rate.
    """

    def __init__(self) -> None:
        self.recent: list[tuple[int, int, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the losses until they are looked at."""
        self.recent.append((trainer.global_step, batches_begun(trainer), outputs["loss_of_each"]))
        if len(self.recent) >= CHECK_EVERY:
            self.check(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail before weights that are not finite are the best ones."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.check(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Fail before they are saved."""
        self.check(trainer, pl_module)

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail if any process has what is not finite."""
        assert isinstance(pl_module, DiffusionLightningModule)
        failure = self.failure(trainer, pl_module)
        failed = torch.tensor(int(failure is not None), device=trainer.strategy.root_device)
        failed, self.recent = trainer.strategy.reduce(failed, reduce_op="max"), []
        if failure:
            raise FloatingPointError(failure)
        if failed:
            raise SystemExit(1)

    def failure(self, trainer: Trainer, pl_module: DiffusionLightningModule) -> str | None:
        """What is not finite, if anything: a loss since the last check, or a weight."""
        checked = [losses for *_, losses in self.recent] + list(pl_module.parameters())
        if torch.stack([values.detach().isfinite().all() for values in checked]).all():
            return None
        for step, batches, losses in self.recent:
            if not losses.isfinite().all():
                what = f"the loss of step {step} is not finite"
                if isinstance(model := pl_module.model, Diffusion):
                    # As they were drawn: the first of what is random.
                    noise = pl_module.batch_noise(len(losses), batches)
                    t = model.time_sampler.draw(model.schedule, noise).to(losses.device)
                    what += f" at the time steps {t[losses.isfinite().logical_not()].tolist()}"
                break
        else:
            step = trainer.global_step
            what = f"the weights are not finite after step {step}"
        kept = [
            c.path for c in trainer.checkpoint_callbacks if isinstance(c, LastCheckpoint) and c.path
        ]
        advice = [f"; {path} has the last good state" for path in kept if path.is_file()]
        return f"{what}: lower --lr, which is {pl_module.lr:.3g}{''.join(advice)}"
