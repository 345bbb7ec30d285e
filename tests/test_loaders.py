"""One's own DataLoader: dicts, and pairs as torchvision gives them."""

from pathlib import Path

import pytest
import torch
from fits import SHAPE, few_images, tiny_model, trainer, weights_of
from lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_ddpm import Diffusion, DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.data.order import TrainingOrder
from lightning_ddpm.networks import UNet
from lightning_ddpm.samplers import Ancestral

IMAGES, LABELS = few_images(60).x0, few_images(60).condition


def pairs(size: int = 10) -> DataLoader:
    """As of torchvision's data sets with ``ToTensor``: floats from 0 to 1, and labels."""
    return DataLoader(TensorDataset(IMAGES / 255, LABELS), batch_size=size)


def dicts(size: int = 10) -> DataLoader:
    """Bytes, labels, and each image's place."""
    rows = [
        {"x0": x, "condition": c, "index": i}
        for i, (x, c) in enumerate(zip(IMAGES, LABELS, strict=True))
    ]
    return DataLoader(rows, batch_size=size)


def test_pairs_and_dicts_train_validate_and_test_alike(tmp_path: Path) -> None:
    outcomes = []
    for loader in (pairs, dicts):
        torch.manual_seed(0)
        module, fit = tiny_model(), trainer(tmp_path, max_epochs=1, enable_checkpointing=False)
        fit.fit(module, loader(), loader())
        (tested,) = fit.test(module, loader(), verbose=False)
        assert fit.global_step == 6
        outcomes.append([weights_of(module), fit.callback_metrics["test/loss"], tested])
    assert outcomes[0][0].equal(outcomes[1][0])
    assert outcomes[0][2] == pytest.approx(outcomes[1][2], rel=1e-5)
    assert "test/bits_per_dim" in outcomes[0][2]


@pytest.mark.parametrize("size", [60, 7])
def test_without_an_index_samples_are_counted(size: int, tmp_path: Path) -> None:
    # Oracle: the places that the dicts say.
    torch.manual_seed(0)
    module = tiny_model()
    losses = [
        trainer(tmp_path).validate(module, loader, verbose=False)[0]["val/loss"]
        for loader in (dicts(), pairs(size))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ([IMAGES, LABELS, LABELS], "got a list"),
        (IMAGES, "got a Tensor"),
        ([IMAGES], "got a list"),
        ({"image": IMAGES, "label": LABELS}, "got a dict with image, label"),
    ],
)
def test_anything_else_is_one_line_that_names_the_contract(batch, found: str, tmp_path) -> None:
    loader = DataLoader([0], collate_fn=lambda _: batch)
    with pytest.raises(
        ValueError, match=r"a batch must be a dict of tensors x0 and.*pair"
    ) as error:
        trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(tiny_model(), loader)
    assert str(error.value).endswith(found)
    assert "\n" not in str(error.value)


def test_images_of_another_shape_and_missing_labels_are_named(tmp_path: Path) -> None:
    wide = DataLoader(TensorDataset(torch.zeros(4, 1, 4, 8), LABELS[:4]))
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\) of the model is not that of the data"):
        trainer(tmp_path, max_epochs=1).fit(tiny_model(), wide)
    network = UNet(channels=(4,), num_classes=3)
    module = DiffusionLightningModule(Diffusion(network, sampler=Ancestral(1), shape=SHAPE))
    unlabelled = DataLoader([{"x0": x} for x in IMAGES], batch_size=10)
    with pytest.raises(
        ValueError, match="UNet is told a condition of each of 10 samples, got none"
    ):
        trainer(tmp_path, max_epochs=1).fit(module, unlabelled)


def test_training_batches_are_what_the_documentation_says(digits: MNISTDataModule) -> None:
    split, (batch, *_) = digits.splits["train"], digits.train_dataloader()
    assert set(batch) == {"x0", "condition", "index"}
    assert torch.equal(batch["x0"], split.x0[batch["index"]])
    assert torch.equal(batch["condition"], split.condition[batch["index"]])
    assert batch["x0"].dtype == torch.uint8


def test_fewer_images_than_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "world_size", 3)
    with pytest.raises(ValueError, match="2 samples are below the 3 processes"):
        TrainingOrder(few_images(2), 1, trainer(tmp_path))
