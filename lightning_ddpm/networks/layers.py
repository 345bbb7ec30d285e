"""The blocks that the networks are made of."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ddpm.shapes import Labels, TimeSteps


class TimeEmbedding(nn.Module):
    """Sinusoids of the time step through a small MLP (Ho et al. 2020, appendix B).

    Args:
        dim: width of the embedding, even.

    Raises:
        ValueError: if ``dim`` is odd or below 2.
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"a time embedding needs an even width, got {dim}")
        frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2) / (dim // 2))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: TimeSteps) -> Float[Tensor, "b dim"]:
        """Embed time steps ``t`` (b), counted from 0."""
        angles = t[:, None] * self.frequencies
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=1))


class LabelEmbedding(nn.Module):
    """A vector for each class, and one for an unknown one.

    Args:
        num_classes: how many classes there are.
        dim: width of the embedding.
    """

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_classes + 1, dim)

    def forward(self, label: Labels) -> Float[Tensor, "b dim"]:
        """Embed labels (b) from -1, unknown, to num_classes - 1."""
        return self.table(label + 1)


class ResidualBlock(nn.Module):
    """Two convolutions with the time embedding added in between, and a skip connection.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        dim: width of the time embedding.
    """

    def __init__(self, channels_in: int, channels_out: int, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time = nn.Linear(dim, channels_out)
        self.norm2 = nn.GroupNorm(8, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )
        nn.init.zeros_(self.conv2.weight)

    def forward(
        self, x: Float[Tensor, "b c_in h w"], embedding: Float[Tensor, "b dim"]
    ) -> Float[Tensor, "b c_out h w"]:
        """Apply the block; height and width stay."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(embedding))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return self.skip(x) + h


class ResidualStack(nn.ModuleList):
    """Residual blocks one after the other.

    Args:
        channels_in: channels of the input.
        channels: channels of the output, and of everything between.
        dim: width of the time embedding.
        blocks: how many blocks.
    """

    def __init__(self, channels_in: int, channels: int, dim: int, blocks: int) -> None:
        widths = [channels_in] + [channels] * (blocks - 1)
        super().__init__(ResidualBlock(width, channels, dim) for width in widths)

    def forward(
        self, x: Float[Tensor, "b c_in h w"], embedding: Float[Tensor, "b dim"]
    ) -> Float[Tensor, "b c h w"]:
        """Apply the blocks; height and width stay."""
        for block in self:
            x = block(x, embedding)
        return x


class SelfAttention(nn.Module):
    """Self-attention, with one head, over all positions of the feature map; and a skip connection.

    Args:
        channels: channels of the input and the output, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Let every position see every other."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (b, h*w, c)
        q, k, v = self.qkv(tokens).chunk(3, dim=2)  # each (b, h*w, c)
        attended = self.out(F.scaled_dot_product_attention(q, k, v))
        return x + attended.transpose(1, 2).reshape(x.shape)
