"""What all data modules of images share: batches, loaders, and the samples to predict."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int, UInt8
from lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class DataError(Exception):
    """The data cannot be read or fetched; the message names the file and says what to do."""


class ImageDataset(Dataset):
    """Images in memory, fetched a batch at a time with one indexing operation.

    Args:
        images: (n, c, h, w), 0..255.
        labels: (n), from 0.
    """

    def __init__(self, images: UInt8[Tensor, "n c h w"], labels: Int[Tensor, " n"]) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "ImageDataset":
        """The same images on a device."""
        return ImageDataset(self.images.to(device), self.labels.to(device))

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        index = torch.as_tensor(indices)
        if self.images.is_cuda:  # a copy that does not wait for what the GPU has to do
            index = index.pin_memory().to(self.images.device, non_blocking=True)
        return {"image": self.images[index], "label": self.labels[index], "index": index}


def random_split(dataset: ImageDataset, sizes: dict[str, int]) -> dict[str, ImageDataset]:
    """Split at random, always in the same way."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    parts = zip(sizes, order.split(list(sizes.values())), strict=True)
    return {name: ImageDataset(dataset.images[i], dataset.labels[i]) for name, i in parts}


class TrainingOrder(DistributedSampler):
    """The order of the training images, new in each epoch, from where the Trainer stands.

    A run that goes on in the middle of an epoch gets the rest of it. N processes with batches of B
    see together the batches of N B that one would see: process r has every Nth image, from image r
    on, and the images that do not divide are left out.

    Args:
        dataset: what is put in order.
        batch_size: images in a batch, of each process.
        trainer: knows the epoch, the batch and the process.
    """

    def __init__(self, dataset: ImageDataset, batch_size: int, trainer: Trainer) -> None:
        n, rank, seed = trainer.world_size, trainer.global_rank, torch.initial_seed()
        super().__init__(dataset, n, rank, seed=seed, drop_last=True)
        self.batch_size = batch_size
        self.trainer = trainer

    def __iter__(self) -> Iterator[int]:
        """The rest of the epoch."""
        loop: Any = self.trainer.fit_loop
        # Workers fetch before Lightning has gone on to the next epoch and its batch 0.
        self.set_epoch(loop.epoch_progress.current.processed)
        progress = loop.epoch_loop.batch_progress
        batches = 0 if progress.is_last_batch else progress.current.ready
        return iter(list(super().__iter__())[batches * self.batch_size :])


class SampleIndices(Dataset):
    """The indices of ``num_samples`` samples to generate."""

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> int:
        return index


def as_is(batch: Any) -> Any:
    """Collate nothing: ``ImageDataset`` gives whole batches."""
    return batch


class ImageDataModule(LightningDataModule, ABC):
    """Feeds images in [-1, 1] to training and evaluation, and sample indices to predict.

    A batch holds ``image`` (b, c, h, w) in [-1, 1], ``label`` (b) from 0, and ``index`` (b), each
    image's place in its split, whatever the batch. Subclasses load the splits, which live on the
    device as uint8, unless workers fetch the batches.

    Args:
        batch_size: images in a batch, of each process.
        num_workers: processes that fetch batches; with images in memory none is fastest.
        num_samples: how many images ``predict`` generates.
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
        self.splits: dict[str, ImageDataset] = {}

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """What the classes are called, in the order of their labels."""

    @abstractmethod
    def load_splits(self, stage: str) -> dict[str, ImageDataset]:
        """The splits that ``stage`` needs: test for test, else train and val."""

    def setup(self, stage: str) -> None:
        """Load the splits, onto the Trainer's device if no workers fetch batches.

        ``predict`` needs none.
        """
        if stage == "predict":
            return
        self.splits = self.load_splits(stage)
        if self.trainer is not None and self.num_workers == 0:
            device = self.trainer.strategy.root_device
            self.splits = {name: split.to(device) for name, split in self.splits.items()}

    def train_dataloader(self) -> DataLoader:
        """The training split, shuffled."""
        if self.trainer is None:
            return self._loader("train", shuffle=True)
        order = TrainingOrder(self.splits["train"], self.batch_size, self.trainer)
        return self._loader("train", sampler=order)

    def val_dataloader(self) -> DataLoader:
        """The validation split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        """The test split, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        """The indices (b) of the samples to generate."""
        size = self.sample_batch_size or self.num_samples
        return DataLoader(SampleIndices(self.num_samples), batch_size=size)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Map the images of a batch from 0..255 to [-1, 1], on the device."""
        if isinstance(batch, dict):
            return batch | {"image": batch["image"].float() / 127.5 - 1}
        return batch

    def _loader(self, split: str, **order: Any) -> DataLoader:
        return DataLoader(
            self.splits[split],
            batch_size=self.batch_size,
            **order,
            num_workers=self.num_workers,
            collate_fn=as_is,
            persistent_workers=self.num_workers > 0,
        )
