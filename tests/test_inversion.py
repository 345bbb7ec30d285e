"""The conditional recipe with the paper's objective: real digits come from pure noise."""

from pathlib import Path

import pytest
from conftest import FULL_MNIST
from inversion import check_reconstruction, inverted

from lightning_ddpm import load_model

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(FULL_MNIST is None, reason="LIGHTNING_DDPM_DATA does not name full MNIST"),
]


def test_real_digits_are_inverted_to_pure_noise_and_back(train_py, tmp_path: Path) -> None:
    options = ("--max_steps", 1500, "--limit_val_batches", 4, "--steps", 100)
    train_py("--config", "conditional", "--config", "paper", "--source", "mnist", *options)
    model = load_model(next(tmp_path.rglob("best.ckpt")))
    batch, x_T = inverted(model)
    check_reconstruction(model, batch, x_T)
    print(f"standard deviation of the inverted digits: {x_T.std():.3f}")
    assert x_T.std().item() == pytest.approx(1, abs=0.15)
