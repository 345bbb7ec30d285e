"""The conditional recipe on full MNIST: it makes the digits that it is asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FULL_MNIST
from digit_reader import share_read_as, trained_reader
from inversion import check_reconstruction, inverted

from lightning_ddpm import MNISTDataModule, load_model
from lightning_ddpm.media.images import to_uint8

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(FULL_MNIST is None, reason="LIGHTNING_DDPM_DATA does not name full MNIST"),
]


@pytest.fixture(scope="module")
def test_digits() -> MNISTDataModule:
    data = MNISTDataModule(source="mnist")
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def checkpoint(train_py_in, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seventh of the recipe's training."""
    folder = tmp_path_factory.mktemp("conditional")
    options = ("--max_steps", 700, "--limit_val_batches", 4, "--steps", 100)
    train_py_in(folder, "--config", "conditional", "--source", "mnist", *options)
    return next(folder.rglob("last.ckpt"))


def test_nineteen_in_twenty_digits_are_read_as_their_label(
    checkpoint: Path, test_digits: MNISTDataModule, train_py, tmp_path: Path
) -> None:
    reader = trained_reader(test_digits.splits["train"])
    test = test_digits.load_splits("test")["test"]
    real = share_read_as(reader, test.x0, test.condition)
    options = ("--guidance", 2, "--sampler", "DPMSolver", "--steps", 20, "--num_samples", 500)
    train_py("predict", "--ckpt_path", checkpoint, *options)
    samples = np.load(tmp_path / "samples" / "samples.npz")
    assert np.bincount(samples["labels"]).tolist() == [50] * 10
    images = torch.from_numpy(samples["images"])[:, None]
    generated = share_read_as(reader, images, torch.from_numpy(samples["labels"]))
    print(f"read as their label: {real:.1%} of real, {generated:.1%} of generated digits")
    assert real >= 0.98
    assert generated >= 0.95


def test_inversion_reconstructs_real_digits_from_half_the_noise(checkpoint: Path) -> None:
    # With velocity on the cosine schedule; the paper's objective is in test_inversion.py.
    model = load_model(checkpoint)
    batch, x_T = inverted(model)
    check_reconstruction(model, batch, x_T)
    print(f"standard deviation of the inverted digits: {x_T.std():.3f}")
    assert x_T.std() < 0.85  # the README says so


def test_a_trained_model_samples_the_same_in_any_batch(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    together = to_uint8(model.sample(10, seed=5, progress=False)).int()
    alone = [model.sample(indices=[i], seed=5, progress=False) for i in (0, 3, 9)]
    alone = [to_uint8(image).int() for image in alone]
    assert (together[[0, 3, 9]] - torch.cat(alone)).abs().max() <= 1
