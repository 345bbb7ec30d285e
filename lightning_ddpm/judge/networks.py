"""The two architectures of the frozen classifiers, each a network and its last layer."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

FEATURES = 128


class ConvBlock(nn.Sequential):
    """A convolution with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
        )


def convolutions() -> nn.Sequential:
    """Six 3x3 convolutions at 28, 14 and 7 pixels, and the mean of 128 channels."""
    return nn.Sequential(
        *(ConvBlock(1, 24), ConvBlock(24, 32), nn.MaxPool2d(2)),
        *(ConvBlock(32, 48), ConvBlock(48, 48), nn.MaxPool2d(2)),
        *(ConvBlock(48, 64), ConvBlock(64, 64), ConvBlock(64, FEATURES, kernel=1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


class Patches(nn.Module):
    """A transformer on the 49 patches of 4x4 pixels, and the mean of its tokens."""

    def __init__(self, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(1, width, 4, stride=4)
        self.place = nn.Parameter(torch.randn(49, width) / 50)
        layer = nn.TransformerEncoderLayer(
            *(width, 4, 2 * width),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Sequential(nn.Linear(width, FEATURES), nn.GELU())

    def forward(self, x: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b 128"]:
        """The features of images in [0, 1]."""
        tokens = self.embedding(x).flatten(2).transpose(1, 2) + self.place  # (b, 49, width)
        return self.out(self.norm(self.encoder(tokens)).mean(1))


ARCHITECTURES: dict[str, Callable[[], nn.Module]] = {
    "convolutions": convolutions,
    "patches": Patches,
}
"""Each makes a network from images (b, 1, 28, 28) in [0, 1] to features (b, 128)."""
