"""The exponential moving average of the weights, which all samples are drawn with."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch.nn import Module
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lightning_ddpm.training.progress import has_trainer

SHARED_OUT = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


class EMA(WeightAveraging):
    """Averages the weights after each optimizer step, and puts the average in for validation.

    Buffers, as the statistics of a BatchNorm, are copied.

    Checkpoints hold the average in ``state_dict``, so predict and test use it; the weights in
    training are in ``current_model_state``.

    Args:
        decay: weight of the average, from 0 to below 1, against the new weights. It starts lower,
            n / (9 + n) after n updates, so that the first weights are soon forgotten.

    Raises:
        ValueError: if ``decay`` is out of range; before a fit, if processes share the weights out.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay must be at least 0 and below 1, got {decay}")

        super().__init__(use_buffers=False)
        self.decay = decay
        self._swapped = False

    @property
    def average(self) -> Module | None:
        """The module with the average of its weights, once a fit has begun."""
        return None if self._average_model is None else self._average_model.module

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew with each fit, from the weights there are, which must be whole."""
        if isinstance(trainer.strategy, SHARED_OUT):
            name = type(trainer.strategy).__name__
            raise ValueError(f"{name} shares weights out, and their average needs them whole: ddp")
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._latest_update_step, self._swapped = 0, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to where the model is now; it was copied before that was moved."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average, after an optimizer step, without waiting for a GPU as the parent would."""
        n = self._latest_update_step
        if trainer.global_step > n:
            assert self._average_model is not None
            average = get_ema_multi_avg_fn(min(self.decay, n / (9 + n)))
            weights = [p.detach() for p in pl_module.parameters()]
            average([p.detach() for p in self._average_model.module.parameters()], weights, n)
            for kept, now in zip(
                self._average_model.module.buffers(), pl_module.buffers(), strict=True
            ):
                kept.copy_(now)
            self._latest_update_step = trainer.global_step

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait: the module draws its grid after this hook, and shall draw it with the average."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights in training back."""
        if self._swapped:
            super().on_validation_epoch_end(trainer, pl_module)
            self._swapped = False

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put the weights in training back before a checkpoint is saved."""
        self.on_validation_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average; outside fit the average is the model's own weights."""
        if trainer.state.fn == "fit":
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def raw_weights(module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Let a fit without the average go on with the weights that the optimizer's state is of."""
    if not has_trainer(module) or "current_model_state" not in checkpoint:
        return
    trainer: Any = module.trainer
    averaged = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)
    if trainer.state.fn == "fit" and not averaged:
        checkpoint["state_dict"] = checkpoint["current_model_state"]


def average_alone(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Put the average, if there is one, into a checkpoint that has weights and no more."""
    known: Any = trainer
    for callback in known.callbacks:
        if isinstance(callback, EMA) and callback.average and "optimizer_states" not in checkpoint:
            checkpoint["state_dict"] = callback.average.state_dict()
