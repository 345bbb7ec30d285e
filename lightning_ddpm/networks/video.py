"""A U-Net for videos: an image network for each frame, and attention between frames."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.layers import (
    ResidualBlock,
    TimeEmbedding,
    Upsample,
    group_norm,
    in_order,
)
from lightning_ddpm.shapes import Condition, Output, Samples, TimeSteps

ATTENTION_LEVELS = 2  # from the coarsest
PATCH = 2  # pixels along each axis, which are one place to the network
HIDDEN = 32  # channels of the perceptron of relative positions


class VideoUNet(Network):
    """A U-Net whose frames attend to one another (FDM, Harvey et al. 2022, arXiv 2205.11495).

    Frames are samples of a batch to its convolutions, and patches of 2 by 2 pixels one place, which
    saves half the time. After each block of the two coarsest levels comes temporal attention, which
    is told the distances of the frames, so that they may be any frames of a longer video.

    Args:
        in_channels: channels of what it sees; if not given, the data's in a recipe, else 1.
        channels: channels of each level, from the finest, two or more; but for the first they
            divide by ``heads``.
        out_channels: channels of the output; ``in_channels`` if not given.
        heads: of the attention.

    Raises:
        ValueError: if the channels are too few or do not divide by ``heads``; when it is called, if
            the frames cannot be halved as often as the levels ask for.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        channels: Sequence[int] = (32, 64, 96),
        out_channels: int | None = None,
        heads: int = 4,
    ) -> None:
        super().__init__()
        few, odd = len(channels) < ATTENTION_LEVELS, any(c % heads for c in channels[1:])
        if few or odd or min(*channels, heads) < 1:
            raise ValueError(
                "channels must be of two levels or more, those below the first divisible by heads, "
                f"got {list(channels)} and {heads} heads"
            )
        self.in_channels = in_channels = in_channels or 1
        self.channels = tuple(channels)
        self.out_channels = out_channels
        self.heads = heads
        dim, upwards = 4 * channels[0], channels[::-1]
        self.embedding = TimeEmbedding(dim)
        stem = nn.Conv2d(PATCH**2 * in_channels, channels[0], 3, padding=1)
        self.stem = nn.Sequential(nn.PixelUnshuffle(PATCH), stem)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.encoder = nn.ModuleList(ResidualBlock(c, c) for c in channels[1:])
        self.middle = ResidualBlock(channels[-1], channels[-1])
        self.decoder = nn.ModuleList(ResidualBlock(2 * c, c) for c in upwards)
        self.up = nn.ModuleList(Upsample(a, b) for a, b in pairwise(upwards))
        # One layer makes the scales and shifts of all blocks, in the order of their use.
        widths = (*channels[1:], channels[-1], *upwards)
        self.widths = [2 * c for c in widths]
        self.modulation = nn.Linear(dim, sum(self.widths))
        last = len(channels) + ATTENTION_LEVELS
        first = max(len(channels) - ATTENTION_LEVELS - 1, 0)  # the finest level has no encoder
        self.attention = nn.ModuleDict(
            {str(i): TemporalAttention(widths[i], heads) for i in range(first, last)}
        )
        self.norm = group_norm(channels[0])
        head = nn.Conv2d(channels[0], PATCH**2 * (out_channels or in_channels), 3, padding=1)
        self.head = nn.Sequential(head, nn.PixelShuffle(PATCH))
        for parameter in (self.modulation.weight, self.modulation.bias, head.weight):
            nn.init.zeros_(parameter)
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        x_t: Samples,
        t: TimeSteps,
        condition: Condition | None = None,
        positions: Int[Tensor, "b frames"] | None = None,
    ) -> Output:
        """Predict from noisy videos ``x_t`` (b, c, frames, h, w) at time steps ``t`` (b).

        ``positions`` are the indices of the frames in their video; 0, 1, ... if not given.
        """
        divisor = PATCH * 2 ** len(self.down)
        if x_t.ndim != 5 or any(size % divisor for size in x_t.shape[3:]):
            raise ValueError(
                f"VideoUNet with {len(self.channels)} levels needs frames whose height and width "
                f"divide by {divisor}, got {tuple(x_t.shape[1:])}"
            )
        b, frames = x_t.shape[0], x_t.shape[2]
        positions = in_order(x_t) if positions is None else positions
        told = self.modulation(F.silu(self.embedding(t))).repeat_interleave(frames, 0)
        factors = told[..., None, None].split(self.widths, dim=1)
        blocks = [*self.encoder, self.middle, *self.decoder]

        def block(i: int, x: Tensor) -> Tensor:
            x = blocks[i](x, *factors[i].chunk(2, dim=1))
            return self.attention[str(i)](x, positions) if str(i) in self.attention else x

        x = x_t.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        skips = [x]
        for i, down in enumerate(self.down):
            x = block(i, down(x))
            skips.append(x)
        x, deepest = block(len(self.down), x), len(self.down) + 1
        for level in range(len(self.decoder)):
            x = self.up[level - 1](x) if level else x
            x = block(deepest + level, torch.cat([x, skips.pop()], dim=1))
        x = self.head(F.silu(self.norm(x)))
        return x.unflatten(0, (b, frames)).transpose(1, 2)


class TemporalAttention(nn.Module):
    """Attention of each place to the same place in all frames, which is added to it.

    Keys and values have relative position embeddings (Shaw et al. 2018, arXiv 1803.02155), which a
    perceptron makes of the distance of two frames, on a logarithmic scale, as in FDM.

    Args:
        channels: of a frame.
        heads: of the attention.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.attend, self.mix = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.distance = nn.Sequential(
            nn.Linear(3, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * channels)
        )
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(
        self, x: Float[Tensor, "n c h w"], positions: Int[Tensor, "b frames"]
    ) -> Float[Tensor, "n c h w"]:
        """Attend between the ``frames`` of each of the b videos, n together."""
        size = x.shape[2:]
        tokens = self.norm(x).flatten(2).unflatten(0, positions.shape).permute(0, 3, 1, 2)
        heads = self.attend(tokens).unflatten(-1, (3, self.heads, -1))  # (b, hw, frames, 3, ...)
        q, k, v = heads.permute(3, 0, 1, 4, 2, 5)  # (b, hw, heads, frames, d)
        ahead = (positions[:, None] - positions[:, :, None]).to(x)
        apart = [ahead.relu().log1p(), (-ahead).relu().log1p(), (ahead == 0).to(x)]
        apart = self.distance(torch.stack(apart, dim=-1)).unflatten(-1, (2, self.heads, -1))
        keys, values = apart.permute(3, 0, 4, 1, 2, 5)  # (b, heads, frames, frames, d)
        scores = q @ k.mT + torch.einsum("bshid,bhijd->bshij", q, keys)
        weights = (scores / math.sqrt(q.shape[-1])).softmax(-1)
        found = weights @ v + torch.einsum("bshij,bhijd->bshid", weights, values)
        found = self.mix(found.transpose(2, 3).flatten(3))  # (b, hw, frames, c)
        return x + found.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, size)
