"""The learning rate over a run: up in a straight line, and down to zero at the run's end."""

from collections.abc import Callable
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_ddpm.training.progress import set_batches


class LinearDecay(LRScheduler):
    """Takes the rate of each parameter group down to zero, in step with what is done of the run.

    A run that goes on with another length, batch size or number of devices goes down from where it
    is to zero at its new end. Where nothing tells the end, the rate stays.

    Args:
        optimizer: its groups' own rates are where the fall starts.
        lr: the rate that these belong to.
        warmup_steps: optimizer steps over which the rate first rises to that line.
        ends: asks for what ends the run, by name: how much of it there has been, and at how much it
            is over. Whichever ends first counts.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr: float,
        warmup_steps: int,
        ends: Callable[[], dict[str, tuple[float, float]]],
    ) -> None:
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.ends = ends
        self.progress = 0.0  # the part of the run that is done
        self.passed: dict[str, float] = {}  # of each that ends the run, when that was asked last
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the next step, one of each group."""
        factor = min((self.last_epoch + 1) / self.warmup_steps, 1 - self.progress)
        return [lr * factor for lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        """Go on, after a step of the optimizer."""
        if self.last_epoch >= 0:  # not in the constructor, where no end can be known as yet
            self.advance()
        super().step()

    def advance(self) -> None:
        """Add to what is done the share of what was left that has passed since."""
        ends = self.ends()
        shares = [
            (now - before) / (end - before)
            for name, (now, end) in ends.items()
            if (before := self.passed.get(name, 0.0)) < min(now, end)
        ]
        self.progress += (1 - self.progress) * min(max(shares, default=0.0), 1.0)
        self.passed = {name: now for name, (now, _) in ends.items()}

    def go_on(self, lr: float) -> None:
        """Begin, or go on from a checkpoint, with the rates of this run, in proportion to ``lr``.

        A run that had come to its end, and has a later one now, is as far as it is of that.
        """
        self.base_lrs = [rate * lr / self.lr for rate in self.base_lrs]
        self.lr, ends = lr, self.ends()
        if self.progress == 1 and all(now < end for now, end in ends.values()):
            self.progress = max((now / end for now, end in ends.values()), default=0.0)
        self.passed = {n: min(self.passed.get(n, now), now) for n, (now, _) in ends.items()}
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """What is done, without the rates: a run that goes on has its own."""
        return {name: getattr(self, name) for name in ("progress", "passed", "last_epoch")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was done."""
        self.__dict__ |= state_dict


def go_on(trainer: Trainer) -> None:
    """Let training begin, or go on from a checkpoint, with this run's rates, length and batches."""
    order = getattr(getattr(trainer, "datamodule", None), "order", None)
    module: Any = trainer.lightning_module
    if order is not None:
        set_batches(trainer, order.begun)
    for config in trainer.lr_scheduler_configs:
        if isinstance(config.scheduler, LinearDecay):
            config.scheduler.go_on(module.lr)  # as found, if it was searched for
            if not config.scheduler.passed:
                rank_zero_warn("nothing tells when the run ends: the learning rate stays")
