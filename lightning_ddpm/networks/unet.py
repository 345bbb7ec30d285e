"""The default network."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.layers import (
    LabelEmbedding,
    ResidualBlock,
    TimeEmbedding,
    group_norm,
)
from lightning_ddpm.shapes import Images, Labels, Mask, Output, TimeSteps


class UNet(Network):
    """A small U-Net (Ho et al. 2020, appendix B), without attention.

    Each step down turns squares of 2x2 positions into one, and each step up one into 2x2, so that
    nothing is padded: 28x28 images are worked on at 28, 14 and 7. At the finest level, which costs
    most, there is a block on the way up only.

    Args:
        image_channels: channels of the images.
        channels: channels of each level, from the finest; each level halves height and width, which
            must allow it.
        out_channels: channels of the output; twice ``image_channels`` for a learned variance, and
            ``image_channels`` if not given.
        num_classes: how many classes of images there are; 0 for an unconditional model.
        weak_dropout: the part of the training images that train the weaker self, which goes without
            the last two blocks of the coarsest level, where the shape of the whole is made.

    Raises:
        ValueError: if there is no level, or one has no channels, or ``num_classes`` is below 0, or
            ``weak_dropout`` is not from 0 to 1; when it is called, if the images cannot be halved
            as often as the levels ask for.
    """

    def __init__(
        self,
        image_channels: int = 1,
        channels: Sequence[int] = (16, 48, 64),
        out_channels: int | None = None,
        num_classes: int = 0,
        weak_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {num_classes}")
        if not channels or min(channels) < 1:
            raise ValueError(f"channels must be at least 1 on each level, got {list(channels)}")
        if not 0 <= weak_dropout <= 1:
            raise ValueError(f"weak_dropout must be from 0 to 1, got {weak_dropout}")
        self.image_channels = image_channels
        self.channels = tuple(channels)
        self.out_channels = out_channels
        self.num_classes = num_classes
        self.weak_dropout = weak_dropout
        dim = 4 * channels[0]
        self.embedding = TimeEmbedding(dim)
        self.label = LabelEmbedding(num_classes, dim) if num_classes > 0 else None
        self.stem = nn.Conv2d(image_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(channels)
        )
        self.encoder = nn.ModuleList(ResidualBlock(c, c) for c in channels[1:])
        self.middle = ResidualBlock(channels[-1], channels[-1])
        # From the coarsest level up; each block also sees what the encoder had there.
        upwards = channels[::-1]
        self.decoder = nn.ModuleList(ResidualBlock(2 * c, c) for c in upwards)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2))
            for coarse, fine in pairwise(upwards)
        )
        # One layer makes the scales and shifts of all blocks, in the order of their use.
        self.widths = [2 * c for c in (*channels[1:], channels[-1], *upwards)]
        self.modulation = nn.Linear(dim, sum(self.widths))
        self.norm = group_norm(channels[0])
        self.head = nn.Conv2d(channels[0], out_channels or image_channels, 3, padding=1)
        for parameter in (self.modulation.weight, self.modulation.bias, self.head.weight):
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)  # the faster layout for convolutions

    def forward(
        self, x_t: Images, t: TimeSteps, label: Labels | None = None, weak: Mask | None = None
    ) -> Output:
        """Predict from noisy images ``x_t`` (b, c, h, w) at time steps ``t`` (b)."""
        divisor = 2 ** len(self.down)
        if x_t.shape[2] % divisor or x_t.shape[3] % divisor:
            raise ValueError(
                f"UNet with {len(self.channels)} levels needs an image_shape with height and width "
                f"divisible by {divisor}, got {tuple(x_t.shape[1:])}"
            )
        embedding = self.embedding(t)
        if self.label is not None:
            embedding = embedding + self.label(torch.full_like(t, -1) if label is None else label)
        modulation = self.modulation(F.silu(embedding))[:, :, None, None]
        factors = iter([part.chunk(2, dim=1) for part in modulation.split(self.widths, dim=1)])
        x = self.stem(x_t.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for down, block in zip(self.down, self.encoder, strict=True):
            x = block(down(x), *next(factors))
            skips.append(x)
        x = self.middle(x, *next(factors), weak)
        for level, block in enumerate(self.decoder):
            if level > 0:
                x = self.up[level - 1](x)
            x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, *next(factors), weak if level == 0 else None)
        return self.head(F.silu(self.norm(x)))
