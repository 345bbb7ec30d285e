"""The blocks that the networks are made of."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ddpm.shapes import Condition, Mask, Samples, TimeSteps, expand_like

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


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

    def forward(self, label: Condition) -> Float[Tensor, "b dim"]:
        """Embed labels (b) from -1, unknown, to num_classes - 1.

        Raises:
            ValueError: if the condition is of another shape or type.
        """
        if label.ndim != 1 or label.is_floating_point():
            shape = f"{label.dtype} of shape {tuple(label.shape)}"
            raise ValueError(f"the condition must be labels, integers of shape (b), got {shape}")
        return self.table(label.long() + 1)


class ResidualBlock(nn.Module):
    """Two convolutions, the second of a scaled and shifted input, and a skip connection.

    Scale and shift are how a network tells the block of the time step and the label (Perez et al.
    2017, arXiv 1709.07871, eq. 2; in diffusion models Dhariwal and Nichol 2021, arXiv 2105.05233,
    section 3.1).

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        dims: number of spatial axes.
    """

    def __init__(self, channels_in: int, channels_out: int, dims: int = 2) -> None:
        super().__init__()
        conv = CONVOLUTIONS[dims]
        self.norm1 = group_norm(channels_in)
        self.conv1 = conv(channels_in, channels_out, 3, padding=1)
        self.norm2 = group_norm(channels_out, affine=False)
        self.conv2 = conv(channels_out, channels_out, 3, padding=1)
        self.skip = (
            nn.Identity() if channels_in == channels_out else conv(channels_in, channels_out, 1)
        )
        nn.init.zeros_(self.conv2.weight)

    def forward(
        self,
        x: Float[Tensor, "b c_in *spatial"],
        scale: Float[Tensor, "b c_out *_"],
        shift: Float[Tensor, "b c_out *_"],
        skipped: Mask | None = None,
    ) -> Float[Tensor, "b c_out *spatial"]:
        """Apply the block, but for the samples (b) that are ``skipped``."""
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        h = torch.addcmul(shift, h, 1 + scale)
        h = self.conv2(F.silu(h))
        if skipped is not None:
            h = h.masked_fill(expand_like(skipped, h), 0)
        return self.skip(x) + h


class Upsample(nn.Sequential):
    """Makes 2 positions of one along each spatial axis, by a convolution that sees it alone.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        dims: number of spatial axes.
    """

    def __init__(self, channels_in: int, channels_out: int, dims: int = 2) -> None:
        conv = CONVOLUTIONS[dims](channels_in, 2**dims * channels_out, 1)
        super().__init__(conv, nn.PixelShuffle(2) if dims == 2 else Shuffle(dims))


class Shuffle(nn.Module):
    """``PixelShuffle(2)`` along any number of spatial axes.

    Args:
        dims: number of spatial axes.
    """

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Float[Tensor, "b c_in *spatial"]) -> Float[Tensor, "b c_out *_"]:
        """Take 2 neighbours along each axis from as many channels."""
        n, spatial = self.dims, x.shape[2:]
        x = x.reshape(len(x), -1, *[2] * n, *spatial)  # (b, c, 2, ..., *spatial)
        order = [axis for i in range(n) for axis in (2 + n + i, 2 + i)]
        return x.permute(0, 1, *order).reshape(len(x), -1, *(2 * size for size in spatial))


def in_order(x_t: Samples) -> Int[Tensor, "b n"]:
    """The indices 0, 1, ... along the first spatial axis of each sample."""
    return torch.arange(x_t.shape[2], device=x_t.device).expand(len(x_t), -1)


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    """Group normalisation in groups of 32 channels, or in one: smaller ones are slow on CPUs."""
    return nn.GroupNorm(1 if channels % 32 else channels // 32, channels, affine=affine)
