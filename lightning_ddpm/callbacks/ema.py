"""The exponential moving average of the weights, which all samples are drawn with."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA(WeightAveraging):
    """Averages the weights after each optimizer step, and puts the average in for validation.

    Checkpoints hold the average in ``state_dict``, so predict and test use it; the weights in
    training are in ``current_model_state``.

    Args:
        decay: weight of the average, from 0 to below 1, against the new weights. It starts lower,
            (1 + n) / (10 + n) after n updates, so that the first weights are soon forgotten.

    Raises:
        ValueError: if ``decay`` is out of range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay must be at least 0 and below 1, got {decay}")

        def update(averages: Any, weights: Any, updates: int | Tensor) -> None:
            n = int(updates)
            get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, weights, n)

        super().__init__(use_buffers=False, multi_avg_fn=update)
        self.decay = decay
        self._swapped = False

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
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
