"""A Transformer whose tokens are the positions of a sample."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.layers import TimeEmbedding
from lightning_ddpm.shapes import Condition, Output, Samples, TimeSteps


class Transformer(Network):
    """Attention between all positions (Vaswani et al. 2017), told t as in DiT (arXiv 2212.09748).

    A position along the spatial axes is a token, and its channels are what it holds: of a series,
    all that there is at one time. Sinusoids say where it is, so that samples may be of any length.

    Args:
        in_channels: channels of what it sees; if not given, the data's in a recipe, else 1.
        out_channels: channels of the output; ``in_channels`` if not given.
        width: channels of each token, a multiple of ``heads`` and of 4.
        layers: how many blocks of attention and perceptron.
        heads: of the attention.
        dropout: the part of each block's output that is left out in training.

    Raises:
        ValueError: if ``width`` does not divide by ``heads`` and by 4, or something is below 1.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        width: int = 64,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if min(width, layers, heads) < 1 or width % heads or width % 4:
            raise ValueError(
                f"width must divide by heads and by 4, got {width} and {heads}, {layers} layers"
            )
        self.in_channels = in_channels = in_channels or 1
        self.out_channels = out_channels
        self.width = width
        self.layers = layers
        self.heads = heads
        self.dropout = dropout
        self.embedding = TimeEmbedding(width)
        self.stem = nn.Linear(in_channels, width)
        self.place = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, out_channels or in_channels)
        nn.init.zeros_(self.head.weight)

    def forward(self, x_t: Samples, t: TimeSteps, condition: Condition | None = None) -> Output:
        """Predict from noisy samples ``x_t`` (b, c, *spatial) at time steps ``t`` (b)."""
        tokens = self.stem(x_t.flatten(2).transpose(1, 2))  # (b, positions, width)
        tokens = tokens + self.place(places(x_t.shape[2:], self.width, x_t.device))
        embedding = F.silu(self.embedding(t))
        for block in self.blocks:
            tokens = block(tokens, embedding)
        output = self.head(self.norm(tokens)).transpose(1, 2)
        return output.unflatten(2, x_t.shape[2:])


class Block(nn.Module):
    """Attention and a perceptron, each of an input that t scales and shifts, and added by its gate.

    Args:
        width: channels of a token.
        heads: of the attention.
        dropout: the part of the outputs that is left out in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.attend, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, tokens: Float[Tensor, "b n width"], embedding: Float[Tensor, "b width"]
    ) -> Float[Tensor, "b n width"]:
        """Apply the block."""
        told = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = told
        x = torch.addcmul(shift, self.norm(tokens), 1 + scale)
        heads = self.attend(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        tokens = tokens + (1 + gate) * self.dropout(self.mix(x))
        x = torch.addcmul(shift_mlp, self.norm(tokens), 1 + scale_mlp)
        return tokens + (1 + gate_mlp) * self.dropout(self.mlp(x))


def places(spatial: torch.Size, width: int, device: torch.device) -> Float[Tensor, "n width"]:
    """Sinusoids of each position, of wavelengths up to some 6,000, of all axes together."""
    frequencies = torch.logspace(0, -3, width // 2, device=device)
    found = torch.zeros(*spatial, width, device=device)
    for axis, size in enumerate(spatial):
        angles = torch.arange(size, device=device)[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        waves = waves.roll(axis * width // 4, dims=1)  # the axes differ
        found = found + waves.reshape(*[size if i == axis else 1 for i in range(len(spatial))], -1)
    return found.flatten(0, -2)
