"""Names for the arrays that pass between the parts, and what broadcasts and thins them out.

Axes: ``b`` samples in the batch, ``c`` channels, ``*spatial`` whatever axes the medium has: none
for a table, one for a series, two for an image, three for a video. Time steps are one for each
sample, or one (0-d, on the CPU) for all of them; what a schedule says of them has their shape.
``Factors`` broadcast over the samples they belong to. A network's ``Output`` has the samples'
channels, or twice as many with a learned variance; what it has ``Seen`` may have more channels, of
what is known. What is ``Known`` is said of each channel
(k = c), or of all of them alike (k = 1). A ``Condition`` is whatever the network is told of each
sample: labels (b), a prompt (b, n), an embedding (b, d).
"""

import torch
from jaxtyping import Bool, Float, Int, Num, Shaped
from torch import Tensor

MNIST_SHAPE = (1, 28, 28)
"""What a sample is like where nothing says otherwise: channels, height and width."""

Samples = Float[Tensor, "b c *spatial"]
Seen = Float[Tensor, "b c_in *spatial"]
Output = Float[Tensor, "b c_out *spatial"]
Scalar = Float[Tensor, ""]
PerSample = Float[Tensor, " b"]
PerTime = Scalar | PerSample
Factors = Scalar | Float[Tensor, "b 1 *_"]
TimeSteps = Num[Tensor, ""] | Num[Tensor, " b"]
Condition = Shaped[Tensor, "b ..."]
Mask = Bool[Tensor, " b"]
Known = Bool[Tensor, "b k *spatial"]


def expand_like(
    values: Shaped[Tensor, ""] | Shaped[Tensor, " b"], x: Shaped[Tensor, "..."]
) -> Shaped[Tensor, "..."]:
    """Append unit axes to ``values`` (b), so that it broadcasts over ``x`` (b, c, *spatial).

    What is one for all samples broadcasts as it is.
    """
    return values if values.ndim == 0 else values.reshape(-1, *[1] * (x.ndim - 1))


def shuffled(total: int) -> Int[Tensor, " total"]:
    """The indices of ``total`` things in random order, always the same."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))


def spaced(total: int, count: int) -> list[int]:
    """Indices of ``count`` of ``total`` things, or of all, from the first to the last."""
    return torch.linspace(0, total - 1, min(count, total)).round().int().tolist()
