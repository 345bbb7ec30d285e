"""The default network."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.layers import (
    CONVOLUTIONS,
    LabelEmbedding,
    ResidualBlock,
    TimeEmbedding,
    Upsample,
    group_norm,
)
from lightning_ddpm.shapes import MNIST_SHAPE, Condition, Mask, Output, Samples, TimeSteps


class UNet(Network):
    """A small U-Net (Ho et al. 2020, appendix B), without attention.

    Each step down turns two positions along each axis into one, and each step up one into two, so
    that nothing is padded: 28x28 images are worked on at 28, 14 and 7. At the finest level, which
    costs most, there is a block on the way up only.

    Args:
        in_channels: channels of what it sees, which are the samples' or, where a part of them may
            be known, more; if not given, the data's in a recipe, else 1.
        channels: channels of each level, from the finest; each level halves the spatial axes, which
            must allow it.
        out_channels: channels of the output: the samples', or twice as many for a learned
            variance; ``in_channels`` if not given.
        num_classes: how many classes of samples there are; 0 for an unconditional model, and None
            for those of the data in a recipe.
        weak_dropout: the part of the training samples that train the weaker self, which goes
            without the last two blocks of the coarsest level, where the shape of the whole is made.
        dims: number of spatial axes: 1 for series, 2 for images.

    Raises:
        ValueError: if there is no level, or one has no channels, or ``num_classes`` is below 0, or
            ``weak_dropout`` is not from 0 to 1, or ``dims`` not from 1 to 3; when it is called, if
            the samples cannot be halved as often as the levels ask for.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        channels: Sequence[int] = (16, 48, 64),
        out_channels: int | None = None,
        num_classes: int | None = 0,
        weak_dropout: float = 0.0,
        dims: int = 2,
    ) -> None:
        super().__init__()
        if num_classes is None:
            raise ValueError("num_classes must be given where no data decide it")
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0, got {num_classes}")
        if not channels or min(channels) < 1:
            raise ValueError(f"channels must be at least 1 on each level, got {list(channels)}")
        if not 0 <= weak_dropout <= 1:
            raise ValueError(f"weak_dropout must be from 0 to 1, got {weak_dropout}")
        if dims not in CONVOLUTIONS:
            raise ValueError(f"dims must be from 1 to 3, got {dims}")
        self.in_channels = in_channels = in_channels or MNIST_SHAPE[0]
        self.channels = tuple(channels)
        self.out_channels = out_channels
        self.num_classes = num_classes
        self.conditional = num_classes > 0
        self.weak_dropout = weak_dropout
        self.dims = dims
        conv, dim = CONVOLUTIONS[dims], 4 * channels[0]
        self.embedding = TimeEmbedding(dim)
        self.label = LabelEmbedding(num_classes, dim) if num_classes > 0 else None
        self.stem = conv(in_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(
            conv(fine, coarse, 2, stride=2) for fine, coarse in pairwise(channels)
        )
        self.encoder = nn.ModuleList(ResidualBlock(c, c, dims) for c in channels[1:])
        self.middle = ResidualBlock(channels[-1], channels[-1], dims)
        # From the coarsest level up; each block also sees what the encoder had there.
        upwards = channels[::-1]
        self.decoder = nn.ModuleList(ResidualBlock(2 * c, c, dims) for c in upwards)
        self.up = nn.ModuleList(Upsample(coarse, fine, dims) for coarse, fine in pairwise(upwards))
        # One layer makes the scales and shifts of all blocks, in the order of their use.
        self.widths = [2 * c for c in (*channels[1:], channels[-1], *upwards)]
        self.modulation = nn.Linear(dim, sum(self.widths))
        self.norm = group_norm(channels[0])
        self.head = conv(channels[0], out_channels or in_channels, 3, padding=1)
        for parameter in (self.modulation.weight, self.modulation.bias, self.head.weight):
            nn.init.zeros_(parameter)
        if dims == 2:  # the faster layout for convolutions
            self.to(memory_format=torch.channels_last)

    def forward(
        self,
        x_t: Samples,
        t: TimeSteps,
        condition: Condition | None = None,
        weak: Mask | None = None,
    ) -> Output:
        """Predict from noisy samples ``x_t`` (b, c, *spatial) at time steps ``t`` (b).

        The ``condition`` is labels (b) from 0; -1, like none at all, is unknown.
        """
        divisor = 2 ** len(self.down)
        if x_t.ndim != 2 + self.dims or any(size % divisor for size in x_t.shape[2:]):
            raise ValueError(
                f"UNet with {len(self.channels)} levels needs {self.dims} spatial axes "
                f"(dims), each divisible by {divisor}, got {tuple(x_t.shape[1:])}"
            )
        embedding = self.embedding(t)
        if self.label is not None:
            unknown = torch.full_like(t, -1, dtype=torch.long)
            embedding = embedding + self.label(unknown if condition is None else condition)
        return self.of(x_t, embedding, weak)

    def of(
        self, x_t: Samples, embedding: Float[Tensor, "b dim"], weak: Mask | None = None
    ) -> Output:
        """Predict from noisy samples and an ``embedding`` (b, dim) of all that is told of them."""
        modulation = self.modulation(F.silu(embedding))[(..., *[None] * self.dims)]
        factors = iter([part.chunk(2, dim=1) for part in modulation.split(self.widths, dim=1)])
        if self.dims == 2:
            x_t = x_t.contiguous(memory_format=torch.channels_last)
        x = self.stem(x_t)
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
