"""Which samples a process gets, and in which order."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import Dataset, DistributedSampler, SequentialSampler


class Share(DistributedSampler):
    """A process's share of a data set, in order: every Nth sample of N processes, none twice.

    Lightning's own would fill up the shares with copies, which would count in means.

    Args:
        dataset: what is shared out.
        trainer: knows the process.

    Raises:
        ValueError: if there are fewer samples than processes.
    """

    def __init__(self, dataset: Dataset, trainer: Trainer) -> None:
        self.size, n = len(dataset), trainer.world_size  # pyright: ignore[reportArgumentType]
        if self.size < n:
            raise ValueError(f"{self.size} samples are below the {n} processes")
        super().__init__(dataset, n, trainer.global_rank, seed=torch.initial_seed())

    def __len__(self) -> int:
        return len(range(self.rank, self.size, self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        """The share."""
        return iter(range(self.rank, self.size, self.num_replicas))


class TrainingOrder(Share, SequentialSampler):  # which Lightning leaves in ``overfit_batches``
    """The order of the training samples, new in each epoch, from where the training stands.

    A run that goes on in the middle of an epoch gets the rest of it, whatever the batches and the
    processes are now. N processes with batches of B see together the batches of N B that one would
    see: process r has every Nth sample, from sample r on, and the samples that do not divide are
    left out.

    Args:
        dataset: what is put in order.
        batch_size: samples in a batch, of each process.
        trainer: knows the process; its module, if it says so, where the training stands.
        passed: samples of the epoch that all processes together went through before.

    Raises:
        ValueError: if there are fewer samples than processes.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, trainer: Trainer, passed: int | None = None
    ) -> None:
        super().__init__(dataset, trainer)
        self.batch_size, self.together = batch_size, batch_size * self.num_replicas
        self.trainer = trainer
        _, batches = self.epoch_and_batch()
        start = batches * self.together if passed is None or batches == 0 else passed
        self.start = min(start, self.size)  # of fewer samples than then
        left = (self.size - self.start) // self.num_replicas
        self.begun = math.ceil(len(self) / batch_size) - math.ceil(left / batch_size)

    def __len__(self) -> int:
        return self.size // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """The rest of the epoch."""
        epoch, batches = self.epoch_and_batch()
        if batches == 0:
            self.start = self.begun = 0
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(self.size, generator=generator)
        if self.trainer.overfit_batches:  # pyright: ignore[reportAttributeAccessIssue]
            order = order.sort().values
        left = order[self.start : self.size - (self.size - self.start) % self.num_replicas]
        return iter(left[self.rank :: self.num_replicas].tolist())

    def epoch_and_batch(self) -> tuple[int, int]:
        """The epoch to train, and how many of its batches have been trained."""
        module: Any = self.trainer.lightning_module
        known = hasattr(module, "epoch_and_batch")
        return module.epoch_and_batch() if known else (self.trainer.current_epoch, 0)

    def passed(self) -> int:
        """Samples of this epoch that all processes together have been through."""
        _, batches = self.epoch_and_batch()
        return self.start + (batches - self.begun) * self.together if batches else 0


class SampleIndices(Dataset):
    """The indices of ``num_samples`` samples to generate."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> int:
        return index
