"""Random numbers that belong to a sample and not to the batch it happens to be in."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from lightning_ddpm.shapes import PerSample


class Noise(ABC):
    """Where all random numbers of a batch come from: for each sample, in the order of the batch."""

    @abstractmethod
    def draw(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """New Gaussian noise of ``shape`` for each sample, in float32."""

    @abstractmethod
    def uniform(self) -> PerSample:
        """A number in [0, 1) for each sample."""

    def normal(self) -> PerSample:
        """A new Gaussian number for each sample."""
        return self.draw(())

    def like(self, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """New Gaussian noise of the shape, type and device of ``x`` (b, ...)."""
        return self.draw(x.shape[1:]).to(x)


class BatchNoise(Noise):
    """Noise for training: drawn for the batches of all processes, of which this one has its share.

    N processes thus train as one process would that had all samples: process r has every Nth of
    them, from sample r on.

    Args:
        generator: what draws, on the device of the samples.
        size: how many samples this process has.
        rank: the number of this process.
        processes: how many there are.
    """

    def __init__(
        self, generator: torch.Generator, size: int, rank: int = 0, processes: int = 1
    ) -> None:
        self.options = {"generator": generator, "device": generator.device}
        self.total = size * processes
        self.mine = slice(rank, None, processes)

    def draw(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """New Gaussian noise of ``shape`` for each sample, on the generator's device."""
        return torch.randn((self.total, *shape), **self.options)[self.mine]

    def uniform(self) -> PerSample:
        """A new number in [0, 1) for each sample."""
        return torch.rand(self.total, **self.options)[self.mine]


class SampleNoise(Noise):
    """A stream of noise for each sample, keyed by (seed, index).

    Sample ``index`` gets the same noise, bit for bit, on every device, in any batch and on any
    number of processes. The keys are those of numpy's counter-based generator Philox, so no two
    samples share a stream; a CPU ``torch.Generator`` keeps only 32 bits of its seed.

    Args:
        seed: the seed of all samples, not negative.
        indices: the index of each sample in the batch, not negative.
        stage: of the samples' making: each has streams of its own.
    """

    def __init__(self, seed: int, indices: Sequence[int], stage: int = 0) -> None:
        self.indices = indices
        keys = [np.array([seed, index], dtype=np.uint64) for index in indices]
        streams = [np.random.Philox(key=key, counter=[0, 0, 0, stage]) for key in keys]
        self.streams = [np.random.Generator(stream) for stream in streams]

    def draw(self, shape: Sequence[int]) -> Float[Tensor, "b ..."]:
        """The next noise of each sample, of ``shape`` (c, *spatial), in float32 on the CPU."""
        rows = [stream.standard_normal(shape, dtype=np.float32) for stream in self.streams]
        return torch.from_numpy(np.stack(rows))

    def uniform(self) -> PerSample:
        """The ``low_discrepancy`` number of each sample's index: always the same."""
        return low_discrepancy(torch.tensor(list(self.indices)))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, torch's own generators start from ``seed``, as those of dropout do.

    After it they are as they were.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def low_discrepancy(index: Int[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """A number in [0, 1) for each index, such that any run of indices is spread evenly.

    A Kronecker sequence with the golden ratio.
    """
    golden = (math.sqrt(5) - 1) / 2
    return index.double() * golden % 1
