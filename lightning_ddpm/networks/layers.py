"""The blocks that the networks are made of."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ddpm.shapes import Labels, Mask, TimeSteps


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
    """Two convolutions, the second of a scaled and shifted input, and a skip connection.

    Scale and shift are how a network tells the block of the time step and the label (Perez et al.
    2017, arXiv 1709.07871, eq. 2; in diffusion models Dhariwal and Nichol 2021, arXiv 2105.05233,
    section 3.1).

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out, affine=False)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv2d(channels_in, channels_out, 1)
        )
        nn.init.zeros_(self.conv2.weight)

    def forward(
        self,
        x: Float[Tensor, "b c_in h w"],
        scale: Float[Tensor, "b c_out 1 1"],
        shift: Float[Tensor, "b c_out 1 1"],
        skipped: Mask | None = None,
    ) -> Float[Tensor, "b c_out h w"]:
        """Apply the block, but for the images (b) that are ``skipped``; height and width stay."""
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        h = torch.addcmul(shift, h, 1 + scale)
        h = self.conv2(F.silu(h))
        if skipped is not None:
            h = h.masked_fill(skipped[:, None, None, None], 0)
        return self.skip(x) + h


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation in groups of 32 channels, or in one: smaller ones are slow on CPUs."""
    return nn.GroupNorm(1 if channels % 32 else channels // 32, channels, affine=affine)
