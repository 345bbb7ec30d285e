"""The judge's classifiers: frozen, exact, and good readers."""

from pathlib import Path

import pytest
import torch
from conftest import FULL_MNIST
from torch.backends import cudnn

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.judge import DigitFeatures
from lightning_ddpm.judge import features as features_module


@pytest.mark.skipif(FULL_MNIST is None, reason="LIGHTNING_DDPM_DATA does not name full MNIST")
@pytest.mark.parametrize(("name", "least"), [("convolutions", 0.995), ("patches", 0.985)])
def test_frozen_classifiers_read_the_test_images(name: str, least: float) -> None:
    data, features = MNISTDataModule(source="mnist"), DigitFeatures(name)
    test = data.load_splits("test")["test"]
    right = [
        features.classify(features(test.x0[i])) == test.condition[i]
        for i in torch.arange(0, 10_000, 4).split(500)
    ]
    assert torch.cat(right).double().mean() >= least


@pytest.mark.parametrize("name", ["convolutions", "patches"])
def test_frozen_classifiers_stay_as_they_are(name: str) -> None:
    features = DigitFeatures(name)
    images = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    before = features(images)
    parent = torch.nn.Sequential(features).train()
    with torch.autocast("cpu", torch.bfloat16):
        after = features(images)
    assert torch.equal(before, after)
    assert after.dtype == torch.float32
    assert not any(module.training for module in features.modules())
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    path = Path(features_module.__file__).parent / "weights" / f"{name}.safetensors"
    assert path.stat().st_size < 500_000


def test_features_leave_cudnn_on_and_its_rounding_off() -> None:
    features, seen = DigitFeatures(), []
    features.network.register_forward_hook(
        lambda *_: seen.append((cudnn.enabled, cudnn.allow_tf32))
    )
    features(torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    assert seen == [(True, False)]


def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(features_module.SHA256, "convolutions", "0" * 64)
    with pytest.raises(ValueError, match="damaged: install it again"):
        DigitFeatures()
