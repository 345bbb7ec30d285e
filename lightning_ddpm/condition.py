"""What a network is told of each sample."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ddpm.networks import Network
from lightning_ddpm.shapes import Condition


def condition_of(
    network: Network,
    indices: Sequence[int],
    asked: int | Sequence[int] | Condition | None,
    device: torch.device,
) -> Condition | None:
    """The condition (b, ...) of each sample; None if there is none.

    Args:
        network: what is told it.
        indices: the samples.
        asked: a class for all of them, or classes that sample 0, 1, 2... get in turn; or a tensor,
            led by the samples. If not given, all classes in turn, if the network has any.
        device: where it is needed.

    Raises:
        ValueError: if it is none that the network can be told, or of the wrong shape.
    """
    classes = network.num_classes
    if asked is not None and not network.conditional:
        raise ValueError("labels cannot be asked of a model that was trained without them")
    if isinstance(asked, Tensor):
        if asked.ndim == 0 or len(asked) != len(indices):
            shape = tuple(asked.shape)
            raise ValueError(f"a condition of {len(indices)} samples cannot be of shape {shape}")
        return asked.to(device)
    if asked is None and classes == 0:
        return None
    labels = range(classes) if asked is None else asked
    labels = [labels] if isinstance(labels, int) else list(labels)
    if not labels or not all(0 <= label < classes for label in labels):
        raise ValueError(f"labels must be from 0 to {classes - 1}, got {labels}")
    return torch.tensor([labels[index % len(labels)] for index in indices], device=device)


def condition_in_batch(
    network: Network, condition: Condition | None, size: int
) -> Condition | None:
    """What a network is told of a batch of so many samples: nothing, or the condition it has.

    Raises:
        ValueError: if it has none, or one of other samples.
    """
    if not network.conditional:
        return None
    if condition is None or condition.ndim == 0 or len(condition) != size:
        found = "none" if condition is None else f"one of shape {tuple(condition.shape)}"
        name = type(network).__name__
        raise ValueError(f"{name} is told a condition of each of {size} samples, got {found}")
    if condition.device.type == "cpu" and not condition.is_floating_point() and network.num_classes:
        low, high = (
            condition.min().item(),
            condition.max().item(),
        )  # a GPU would have to be waited for
        if low < 0 or high >= network.num_classes:
            found = f"{low} to {high}"
            raise ValueError(f"labels must be from 0 to {network.num_classes - 1}, got {found}")
    return condition


def as_labels(text: str, class_names: Sequence[str]) -> str:
    """A list of labels, of which some may be given by the names of their classes, as numbers."""
    labels = [label.strip() for label in text.strip("[]").split(",")]
    numbers = [str(class_names.index(n)) if n in class_names else n for n in labels]
    return text if text == "null" else f"[{','.join(numbers)}]"
