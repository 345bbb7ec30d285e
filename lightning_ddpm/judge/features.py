"""Frozen classifiers of MNIST digits, whose last features the metrics compare images in."""

import hashlib
from importlib.resources import files

import torch
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load
from torch import Tensor, nn

from lightning_ddpm.judge.base import in_float32
from lightning_ddpm.judge.networks import ARCHITECTURES, FEATURES

SHA256 = {
    "convolutions": "81fc63e70f0e0c52a8d64d3f36650911e6653a574712d7cd9ca9eeb215335c96",
    "patches": "94c72bff01bc9193da779b89ad2d5d804553a5606eadb6806b4bd779cef88315",
}


class DigitFeatures(nn.Module):
    """A classifier that stops before its last layer. It never trains and computes in float32.

    Args:
        name: ``convolutions``, the judge, or ``patches``, a small transformer to cross-check it.
            They read 99.70% and 99.04% of the test images, and were made by
            ``python tests/benchmarks/train_reader.py convolutions FILE --epochs 14`` and
            ``... patches FILE --epochs 8``.

    Raises:
        ValueError: if the package's file of weights is not the one that was published.
    """

    num_features = FEATURES  # torchmetrics asks for it

    def __init__(self, name: str = "convolutions") -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # a judge must not disturb the training
            self.network = ARCHITECTURES[name]()
            self.head = nn.Linear(FEATURES, 10)
        data = (files("lightning_ddpm.judge") / "weights" / f"{name}.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != SHA256[name]:
            raise ValueError(f"the package's weights of {name} are damaged: install it again")
        self.load_state_dict(load(data))
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "DigitFeatures":
        """Stay in evaluation mode, whatever the parent does."""
        return super().train(False)

    @torch.no_grad()
    @in_float32()
    def forward(self, images: UInt8[Tensor, "b 1 28 28"]) -> Float[Tensor, "b 128"]:
        """The features of each image, 0..255."""
        with torch.autocast(images.device.type, enabled=False):
            return self.network(images / 255)

    @torch.no_grad()
    @in_float32()
    def classify(self, features: Float[Tensor, "b 128"]) -> Int[Tensor, " b"]:
        """The digit that each image's features are read as."""
        return self.head(features).argmax(1)
