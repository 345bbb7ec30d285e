"""Many samples, generated as many at once as suit the device."""

import warnings
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

CPU_VALUES, GPU_VALUES = 100_000, 2_000_000  # at once: what a CPU's caches hold, and far more


def batch_size(device_type: str, shape: Sequence[int]) -> int:
    """How many samples of ``shape`` to generate at once, by the number of values in them."""
    return max(1, (CPU_VALUES if device_type == "cpu" else GPU_VALUES) // prod(shape))


def in_parts(generate: Callable[[slice], Tensor], total: int, size: int) -> Tensor:
    """What ``generate`` gives for the parts of ``total``, ``size`` at once, or fewer if it must.

    Where the memory of a device is too small, a part is halved.
    """
    done, size = [], min(total, size)
    while (start := sum(map(len, done))) < total:
        try:
            done.append(generate(slice(start, start + size)))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            warnings.warn(f"out of memory: sampling {size} at once", stacklevel=2)
    return torch.cat(done)
