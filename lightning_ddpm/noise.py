"""Gaussian noise that belongs to a sample and not to the batch it happens to be in."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

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
