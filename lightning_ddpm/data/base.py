"""What data modules share: batches, loaders, and the samples to predict."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_ddpm.data.order import SampleIndices, Share, TrainingOrder
from lightning_ddpm.judge import Judge
from lightning_ddpm.shapes import shuffled

DRAWN = 16  # samples of a grid


class ArrayDataset(Dataset):
    """Raw samples in memory, fetched a batch at a time with one indexing operation.

    Args:
        x0: raw samples (n, ...), as images (n, c, h, w), 0..255.
        condition: what a network may be told of each, as labels (n) from 0; None if nothing.
    """

    def __init__(
        self, x0: Shaped[Tensor, "n ..."], condition: Shaped[Tensor, "n ..."] | None = None
    ) -> None:
        self.x0 = x0
        self.condition: Any = condition  # a tensor wherever there are labels

    def __len__(self) -> int:
        return len(self.x0)

    def pair(self) -> tuple[Tensor, Tensor]:
        """The samples and their condition, which there must be."""
        assert self.condition is not None
        return self.x0, self.condition

    def part(self, index: Tensor) -> "ArrayDataset":
        """The samples at ``index``."""
        return ArrayDataset(
            self.x0[index], None if self.condition is None else self.condition[index]
        )

    def to(self, device: torch.device) -> "ArrayDataset":
        """The same samples on a device."""
        told = None if self.condition is None else self.condition.to(device)
        return ArrayDataset(self.x0.to(device), told)

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        index = torch.as_tensor(indices)
        if self.x0.is_cuda:  # a copy that does not wait for what the GPU has to do
            index = index.pin_memory().to(self.x0.device, non_blocking=True)
        return self.batch(index) | {"index": index}

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """What stands at ``index`` (b)."""
        batch = {"x0": self.x0[index]}
        return batch if self.condition is None else batch | {"condition": self.condition[index]}


def random_split(dataset: ArrayDataset, sizes: dict[str, int]) -> dict[str, ArrayDataset]:
    """Split at random, always in the same way."""
    parts = zip(sizes, shuffled(len(dataset)).split(list(sizes.values())), strict=True)
    return {name: dataset.part(index) for name, index in parts}


def whole(batch: Any) -> Any:
    """Collate nothing: ``ArrayDataset`` gives whole batches."""
    return batch


class ArrayDataModule(LightningDataModule, ABC):
    """Feeds samples in memory to training and evaluation, and sample indices to predict.

    A batch holds ``x0`` (b, ...), raw as the medium has it, ``condition`` (b, ...), if there is
    one, and ``index`` (b), each sample's place in its split, whatever the batch. Subclasses load
    the splits, which live on the device, unless workers fetch the batches.

    Args:
        batch_size: samples in a batch, of each process.
        num_workers: processes that fetch batches; with samples in memory none is fastest.
        num_samples: how many samples ``predict`` generates.
        sample_batch_size: how many at once, at most; what suits the device if not given.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        batch_size: int = 128,
        num_workers: int = 0,
        num_samples: int = 16,
        sample_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("num_samples", num_samples, 1),
            ("sample_batch_size", sample_batch_size, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.num_samples = num_samples
        self.sample_batch_size = sample_batch_size
        self.splits: dict[str, ArrayDataset] = {}
        self.held_out_split = "val"
        self.order: TrainingOrder | None = None
        self.restored: int | None = None

    @property
    @abstractmethod
    def raw_shape(self) -> tuple[int, ...]:
        """The shape of a raw sample: channels, height and width of an image."""

    @property
    def class_names(self) -> list[str]:
        """What the classes are called, in the order of their labels, if there are any."""
        return []

    @abstractmethod
    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        """The splits that ``stage`` needs: test for test, else train and val."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a recipe leaves to the data beside the shape, by the name of the argument."""
        return {"num_classes": len(self.class_names)}

    @property
    def drawn(self) -> Sequence[int]:
        """The indices of the samples that are drawn in training, to be looked at."""
        return range(DRAWN)

    def training_split(self) -> ArrayDataset:
        """The training split, whatever stage is set up."""
        return self.splits.get("train") or self.load_splits("fit")["train"]

    def held_out(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A batch of held-out samples, in random order, always the same.

        In training they are of validation, and else of test. Where there are fewer than are asked
        for, they come again.
        """
        split = self.splits[self.held_out_split]
        places = shuffled(len(split))[torch.tensor(indices) % len(split)]
        return split.__getitems__(places.tolist())

    def judge(self) -> Judge | None:
        """The judge of samples that are to be like these data, if there is one."""
        return None

    @property
    def model(self) -> Any:
        """What the Trainer trains or uses, if there is one."""
        module = None if self.trainer is None else self.trainer.lightning_module
        return getattr(module, "model", None)

    def predicted(self) -> dict[str, ArrayDataset]:
        """As ``test``, the samples that ``predict`` may be given a part of."""
        return self.load_splits("test")

    def needed(self, stage: str) -> bool:
        """Whether ``stage`` needs samples: ``predict`` does for a model that is given some."""
        observes = getattr(self.model, "observation", None) is not None
        return stage != "predict" or observes

    def setup(self, stage: str) -> None:
        """Load the splits, onto the Trainer's device if no workers fetch batches."""
        if not self.needed(stage):
            return
        self.splits = self.predicted() if stage == "predict" else self.load_splits(stage)
        self.held_out_split = "test" if stage in ("test", "predict") else "val"
        if self.trainer is not None and self.num_workers == 0:
            device = self.trainer.strategy.root_device
            self.splits = {name: split.to(device) for name, split in self.splits.items()}

    def train_dataloader(self) -> DataLoader:
        """The training split, shuffled anew in each epoch; under a Trainer, what is left of it."""
        if self.trainer is None:
            return self._loader("train", shuffle=True)
        trainer, passed, self.restored = self.trainer, self.restored, None
        self.order = TrainingOrder(self.splits["train"], self.batch_size, trainer, passed)
        return self._loader("train", sampler=self.order)

    def val_dataloader(self) -> DataLoader:
        """The validation split, in order."""
        return self._loader("val", sampler=self.share(self.splits["val"]))

    def test_dataloader(self) -> DataLoader:
        """The test split, in order."""
        return self._loader("test", sampler=self.share(self.splits["test"]))

    def predict_dataloader(self) -> DataLoader:
        """The indices (b) of the samples to generate."""
        indices = SampleIndices(self.num_samples)
        size = self.sample_batch_size or self.num_samples
        return DataLoader(indices, batch_size=size, sampler=self.share(indices))

    def share(self, dataset: Dataset) -> Share | None:
        """What this process has of a data set; all of it without a Trainer."""
        return None if self.trainer is None else Share(dataset, self.trainer)

    def state_dict(self) -> dict[str, Any]:
        """How far an epoch has come, in samples: batches may be larger when the run goes on."""
        return {"passed": self.order.passed()} if self.order else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there."""
        self.restored = state_dict["passed"]

    def _loader(self, split: str, **order: Any) -> DataLoader:
        return DataLoader(
            self.splits[split],
            batch_size=self.batch_size,
            **order,
            num_workers=self.num_workers,
            collate_fn=whole,
            persistent_workers=self.num_workers > 0,
        )
