"""What a model asks of its parts: that they fit together, and can be built again."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lightning_ddpm.networks import Network
from lightning_ddpm.objective import Target
from lightning_ddpm.schedule import NoiseSchedule


@torch.no_grad()
def check_network(network: Network, image_shape: Sequence[int], learned_variance: bool) -> None:
    """Raise ValueError if ``network`` cannot predict what is needed for ``image_shape``."""
    channels, *size = image_shape
    expected = (1, 2 * channels if learned_variance else channels, *size)
    name, was_training = type(network).__name__, network.training
    network.eval()  # else a BatchNorm would learn from it
    try:
        output = network(torch.zeros(1, *image_shape), torch.zeros(1, dtype=torch.long)).shape
    except RuntimeError:
        output = None
    network.train(was_training)
    if output is None or output[2:] != expected[2:]:
        raise ValueError(f"{name} with these arguments does not fit image_shape {image_shape}")
    if output[1] != expected[1]:
        variance = "a learned variance" if learned_variance else "a fixed variance"
        raise ValueError(
            f"{name} has {output[1]} output channels; images of {channels} channels with {variance}"
            f" need {expected[1]} (out_channels)"
        )


def check_target(target: Target, schedule: NoiseSchedule) -> None:
    """Raise ValueError if x0 cannot be read from ``target`` at the schedule's last time step."""
    alpha, sigma = (factor.reshape(1, 1) for factor in (schedule.alpha[-1], schedule.sigma[-1]))
    ones = torch.ones_like(alpha)
    if not target.x0(ones, ones, alpha, sigma).isfinite().all():
        raise ValueError(
            f"{type(target).__name__} says nothing of the image where the signal-to-noise ratio is "
            f"zero, as at the end of {type(schedule).__name__}: take VelocityTarget or DataTarget"
        )


def own_hparams(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters without those that Lightning adds, which begin with an underscore."""
    return {name: value for name, value in hparams.items() if not name.startswith("_")}


def recipe(part: Any) -> dict[str, Any]:
    """The class and the arguments that would build ``part`` again, as LightningCLI writes them.

    Raises:
        TypeError: if an argument is not an attribute of the same name, or has no name.
    """
    cls = type(part)
    bare = cls.__init__ is nn.Module.__init__  # which accepts anything, and takes nothing
    try:
        parameters = [] if bare else inspect.signature(cls).parameters.values()
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            raise TypeError("*args and **kwargs have no names")
        values = {p.name: getattr(part, p.name) for p in parameters}
    except (AttributeError, TypeError, ValueError) as error:  # of a Tensor, there is no signature
        raise TypeError(
            f"{cls.__name__} must keep each constructor argument as an attribute of the same "
            f"name, so that checkpoints can rebuild it: {error}"
        ) from error
    arguments = {
        name: value if value is None or type(value).__module__ == "builtins" else recipe(value)
        for name, value in values.items()
    }
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}
