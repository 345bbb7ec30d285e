"""What a batch is."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_ddpm.condition import condition_in_batch
from lightning_ddpm.shapes import Condition, Samples

Batch = Any  # what a loader of one's own gives is looked at, not believed
"""A dict of ``x0`` (b, ...), raw as the medium has it, and the ``condition`` (b, ...), if any; or a
pair of both, as torchvision's data sets give images and labels. ``index`` (b), each sample's place
in its split, lets its noise in validation be its own."""


def size_of(batch: Any) -> int:
    """How many samples a batch has."""
    return len(raw_and_condition(batch)[0])


def places_of(batch: Any, counted: int, rank: int = 0, processes: int = 1) -> Sequence[int]:
    """The place of each sample in its split: its ``index``, or where it comes in the order.

    Args:
        batch: the samples.
        counted: how many this process has had before them.
        rank: the number of this process, which has every ``processes``-th sample from it on.
        processes: how many there are.
    """
    if isinstance(batch, Mapping) and "index" in batch:
        return batch["index"].tolist()
    return range(counted * processes + rank, (counted + size_of(batch)) * processes, processes)


def raw_and_condition(batch: Any) -> tuple[Tensor, Tensor | None]:
    """The raw data and the condition of a batch.

    Raises:
        ValueError: if it has neither of the two forms.
    """
    if isinstance(batch, Mapping):
        raw, condition = batch.get("x0"), batch.get("condition")
    elif isinstance(batch, Sequence) and len(batch) == 2:
        raw, condition = batch
    else:
        raw, condition = None, None
    if isinstance(raw, Tensor) and (condition is None or isinstance(condition, Tensor)):
        return raw, condition
    found = f"with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
    raise ValueError(
        "a batch must be a dict of tensors x0 and, if any, condition and index, or a pair of x0 "
        f"and condition, as of images and labels; got a {type(batch).__name__} {found}".rstrip()
    )


def clean(model: Any, batch: Any) -> tuple[Samples, Condition | None]:
    """The clean samples (b, c, *spatial) of a batch, and what a ``Diffusion`` is told of each.

    Raises:
        ValueError: if the batch has another form, or its data are not the model's.
    """
    raw, condition = raw_and_condition(batch)
    x0 = model.medium.encode(raw)
    found = tuple(x0.shape[1:])
    if model.observation is not None:
        found = model.observation.shape(found)
    if found != model.shape:
        raise ValueError(f"shape {model.shape} of the model is not that of the data, {found}")
    return x0, condition_in_batch(model.network, condition, len(x0))
