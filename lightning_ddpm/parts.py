"""What a model asks of its parts: that they fit together, and can be built again."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from lightning_ddpm.networks import Network


@torch.no_grad()
def check_image_shape(network: Network, image_shape: Sequence[int]) -> None:
    """Raise ValueError if ``network`` cannot predict for images of ``image_shape``."""
    try:
        x = torch.zeros(1, *image_shape)
        fits = network(x, torch.zeros(1, dtype=torch.long)).shape == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        name = type(network).__name__
        raise ValueError(f"{name} with these arguments does not fit image_shape {image_shape}")


def recipe(part: Any) -> dict[str, Any]:
    """The class and the arguments that would build ``part`` again, as LightningCLI writes them.

    Raises:
        TypeError: if an argument is not an attribute of the same name.
    """
    cls = type(part)
    parameters = inspect.signature(cls).parameters.values()
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    try:
        arguments = {name: getattr(part, name) for name in names}
    except AttributeError as error:
        raise TypeError(
            f"{cls.__name__} must keep each constructor argument as an attribute of the same "
            f"name, so that checkpoints can rebuild it: {error}"
        ) from error
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}
