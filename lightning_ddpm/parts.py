"""What a model asks of its parts: that they fit together, and can be built again."""

import inspect
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from lightning_ddpm.networks import Network
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import Target, UniformTimes, Weighting
from lightning_ddpm.observation import Observation
from lightning_ddpm.schedule import NoiseSchedule

PARTS = (
    "network",
    "schedule",
    "target",
    "sampler",
    "weighting",
    "time_sampler",
    "medium",
    "observation",
)
"""The arguments of a ``Diffusion`` that are objects with arguments of their own."""


def check(model: Any) -> None:
    """Raise ValueError if an argument of a ``Diffusion`` is out of range, or parts do not fit."""
    config_of(model)  # raises TypeError where a part could not be built again
    learned, (low, high) = model.variance == "learned", model.guidance_interval
    if not model.shape or min(model.shape) < 1:
        raise ValueError(f"shape must be that of a sample, channels first, got {model.shape}")
    if not 0 <= model.condition_dropout <= 1:
        raise ValueError(f"condition_dropout must be from 0 to 1, got {model.condition_dropout}")
    if not model.temperature > 0:
        raise ValueError(f"temperature must be above 0, got {model.temperature}")
    if not 0 <= low < high <= 1:
        raise ValueError(f"guidance_interval must rise, from 0 to at most 1, got {low}, {high}")
    model.sampler.timesteps(model.schedule)
    told: Mapping[str, torch.Tensor] = {}
    if model.observation is not None:
        x0 = torch.zeros(1, *model.shape)
        told = model.observation.draw(x0, SampleNoise(0, [0]), {"x0": x0}).told
        if (seen := model.observation.shape(model.shape)) != model.shape:
            name = type(model.observation).__name__
            raise ValueError(f"shape {model.shape} is not that of what {name} shows, {seen}")
    check_target(model.target, model.schedule)
    check_weighting(model.weighting, model.target, model.schedule)
    check_network(model.network, model.shape, learned, model.observation, told)
    if learned and not isinstance(model.time_sampler, UniformTimes):
        raise ValueError("a learned variance is trained at all time steps: take UniformTimes")
    if learned and model.observation is not None:
        raise ValueError("a learned variance has no bound of what is known: take a fixed one")
    if learned and not model.medium.has_decoder:
        name = type(model.medium).__name__
        raise ValueError(f"a learned variance needs a bound, and {name} has no decoder for it")


def check_data(model: Any, raw_shape: Sequence[int], classes: int) -> None:
    """Raise ValueError if a ``Diffusion`` is not for data of this shape and so many classes."""
    shape, n = model.medium.shape(raw_shape), model.network.num_classes
    if shape != model.shape:
        raise ValueError(f"shape {model.shape} of the model is not that of the data, {shape}")
    if 0 < n < classes:
        raise ValueError(f"num_classes {n} is below the {classes} classes of the data")


@torch.no_grad()
def check_network(
    network: Network,
    shape: Sequence[int],
    learned_variance: bool,
    observation: Observation | None = None,
    told: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Raise ValueError if ``network`` cannot predict what is needed for samples of ``shape``.

    Nor if it does not take what it is to be ``told`` by name.
    """
    x_t, (channels, *spatial) = torch.zeros(1, *shape), shape
    expected = (1, 2 * channels if learned_variance else channels, *spatial)
    name, was_training = type(network).__name__, network.training
    network.eval()  # else a BatchNorm would learn from it
    try:
        seen = x_t if observation is None else observation.seen(x_t)
        output = network(seen, torch.zeros(1, dtype=torch.long), None, **told or {}).shape
    except (RuntimeError, TypeError):
        output = None
    network.train(was_training)
    if output is None or output[2:] != expected[2:]:
        more = ""
        if observation is not None:
            seen = observation.in_channels(channels)
            more = f", of which {type(observation).__name__} makes {seen} channels (in_channels)"
        raise ValueError(f"{name} with these arguments does not fit samples of shape {shape}{more}")
    if output[1] != expected[1]:
        variance = "a learned variance" if learned_variance else "a fixed variance"
        raise ValueError(
            f"{name} has {output[1]} output channels; samples of {channels} channels with "
            f"{variance} need {expected[1]} (out_channels)"
        )


def check_target(target: Target, schedule: NoiseSchedule) -> None:
    """Raise ValueError if x0 cannot be read from ``target`` at the schedule's last time step."""
    alpha, sigma = schedule.alpha_sigma(torch.tensor(schedule.T - 1))
    ones = torch.ones(1, 1)
    if not target.x0(ones, ones, alpha, sigma).isfinite().all():
        raise ValueError(
            f"{type(target).__name__} says nothing of the data where the signal-to-noise ratio is "
            f"zero, as at the end of {type(schedule).__name__}: take VelocityTarget or DataTarget"
        )


def check_weighting(weighting: Weighting, target: Target, schedule: NoiseSchedule) -> None:
    """Raise ValueError if errors at a time step cost nothing, so that nothing is learned there."""
    alpha, sigma = schedule.alpha_sigma(torch.arange(schedule.T))
    unlearned = (weighting.weight(target, alpha, sigma) <= 0).nonzero().flatten().tolist()
    if unlearned:
        raise ValueError(
            f"{type(weighting).__name__} gives errors of {type(target).__name__} no weight at the "
            f"time step {unlearned[-1]} of {type(schedule).__name__}: take UniformWeighting"
        )


def config_of(part: Any) -> dict[str, Any]:
    """The class and the arguments that would build ``part`` again, as recipes have them.

    Raises:
        TypeError: if an argument is not an attribute of the same name, or has no name, or is a
            list of parts.
    """
    cls = type(part)
    bare = cls.__init__ is nn.Module.__init__  # which accepts anything, and takes nothing
    try:
        parameters = [] if bare else inspect.signature(cls).parameters.values()
        if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
            raise TypeError("*args and **kwargs have no names")
        values = {p.name: getattr(part, p.name) for p in parameters}
        json.dumps([v for v in values.values() if type(v).__module__ == "builtins"])
    except (AttributeError, TypeError, ValueError) as error:  # of a Tensor, there is no signature
        raise TypeError(
            f"{cls.__name__} must keep each constructor argument as an attribute of the same "
            f"name, so that checkpoints can rebuild it: {error}"
        ) from error
    arguments = {
        name: value if value is None or type(value).__module__ == "builtins" else config_of(value)
        for name, value in values.items()
    }
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": arguments}


def class_at(path: str) -> Any:
    """The class that a ``class_path`` names."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def built(cls: type, arguments: Mapping[str, Any]) -> Any:
    """An instance of ``cls``, whose parts are given as ``config_of`` has them.

    Only classes that stand where the signatures ask for them are built.

    Raises:
        Exception: what jsonargparse or a part refuses.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "part", fail_untyped=False)
    return parser.instantiate_classes(parser.parse_object({"part": dict(arguments)}))["part"]
