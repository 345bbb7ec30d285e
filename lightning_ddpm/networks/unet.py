"""The default noise predictor."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.layers import (
    LabelEmbedding,
    ResidualBlock,
    ResidualStack,
    SelfAttention,
    TimeEmbedding,
)
from lightning_ddpm.shapes import Images, Labels, Output, TimeSteps


class UNet(Network):
    """A small U-Net (Ho et al. 2020, appendix B), with self-attention at the lowest resolution.

    A step down moves every 2x2 square of positions into the channels (space to depth) and a step
    up moves them back, so that nothing is padded: 28x28 images are worked on at 28, 14 and 7.

    Args:
        image_channels: channels of the images.
        channels: channels of each level, from the finest, multiples of 8; each level halves height
            and width, which must allow it.
        blocks: residual blocks of each level, on the way down and again on the way up.
        out_channels: channels of the output; twice ``image_channels`` for a learned variance, and
            ``image_channels`` if not given.
        num_classes: how many classes of images there are; 0 for an unconditional model.

    Raises:
        ValueError: if there is no block or level, or channels are no multiples of 8.
    """

    def __init__(
        self,
        image_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64),
        blocks: int = 1,
        out_channels: int | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        if blocks < 1 or num_classes < 0:
            raise ValueError(
                f"blocks must be at least 1 and num_classes at least 0, got {blocks}, {num_classes}"
            )
        if not channels or any(c < 8 or c % 8 for c in channels):
            raise ValueError(f"channels must be multiples of 8, got {list(channels)}")
        self.image_channels = image_channels
        self.channels = tuple(channels)
        self.blocks = blocks
        self.out_channels = out_channels
        self.num_classes = num_classes
        dim = 4 * channels[0]
        self.embedding = TimeEmbedding(dim)
        self.label = LabelEmbedding(num_classes, dim) if num_classes > 0 else None
        self.stem = nn.Conv2d(image_channels, channels[0], 3, padding=1)
        # The decoder's first block of each level also sees the encoder's output.
        self.encoder = nn.ModuleList(ResidualStack(c, c, dim, blocks) for c in channels)
        self.decoder = nn.ModuleList(ResidualStack(2 * c, c, dim, blocks) for c in channels)
        self.down = nn.ModuleList(
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * fine, coarse, 1))
            for fine, coarse in pairwise(channels)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2))
            for fine, coarse in pairwise(channels)
        )
        self.middle = ResidualBlock(channels[-1], channels[-1], dim)
        self.attention = SelfAttention(channels[-1])
        self.norm = nn.GroupNorm(8, channels[0])
        self.head = nn.Conv2d(channels[0], out_channels or image_channels, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        self.to(memory_format=torch.channels_last)  # the faster layout for convolutions

    def forward(self, x_t: Images, t: TimeSteps, label: Labels | None = None) -> Output:
        """Predict from noisy images ``x_t`` (b, c, h, w) at time steps ``t`` (b)."""
        embedding = self.embedding(t)
        if self.label is not None:
            embedding = embedding + self.label(torch.full_like(t, -1) if label is None else label)
        x = self.stem(x_t.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, blocks in enumerate(self.encoder):
            if level > 0:
                x = self.down[level - 1](x)
            x = blocks(x, embedding)
            skips.append(x)
        x = self.attention(self.middle(x, embedding))
        for level, blocks in reversed(list(enumerate(self.decoder))):
            x = blocks(torch.cat([x, skips[level]], dim=1), embedding)
            if level > 0:
                x = self.up[level - 1](x)
        return self.head(F.silu(self.norm(x)))
