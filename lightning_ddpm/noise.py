"""Random numbers that belong to a sample and not to the batch it happens to be in."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from lightning_ddpm.shapes import Images


class SampleNoise:
    """A stream of Gaussian noise for each sample, keyed by (seed, index).

    Sample ``index`` gets the same noise, bit for bit, on every device, in any batch and on any
    number of processes. The keys are those of numpy's counter-based generator Philox, so no two
    samples share a stream; a CPU ``torch.Generator`` keeps only 32 bits of its seed.

    Args:
        seed: the seed of all samples, not negative.
        indices: the index of each sample in the batch, not negative.
    """

    def __init__(self, seed: int, indices: Iterable[int]) -> None:
        self.streams = [
            np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))
            for index in indices
        ]

    def draw(self, shape: Sequence[int]) -> Images:
        """The next noise of each sample, of ``shape`` (c, *spatial), in float32 on the CPU."""
        rows = [stream.standard_normal(shape, dtype=np.float32) for stream in self.streams]
        return torch.from_numpy(np.stack(rows))


def evenly(index: Int[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """A number in [0, 1) for each index; any run of indices is spread evenly.

    A Kronecker sequence with the golden ratio.
    """
    golden = (math.sqrt(5) - 1) / 2
    return index.double() * golden % 1
