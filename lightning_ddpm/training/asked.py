"""What samples are asked for: with which condition, and given what is known of held-out samples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from torch import Tensor

from lightning_ddpm.batch import clean
from lightning_ddpm.data import ArrayDataModule
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.observation import Given
from lightning_ddpm.shapes import Condition, Samples


class Asked(NamedTuple):
    """What is asked of samples.

    ``condition`` and ``given`` are for ``Diffusion.sample``; ``labels`` (b) are what they are to
    show, and ``truth`` (b, c, *spatial) the samples of which something is known, if there are any;
    ``batch`` is what the data say of these.
    """

    condition: Condition | None
    given: Given | None = None
    labels: Tensor | None = None
    truth: Samples | None = None
    batch: Mapping[str, Tensor] = {}

    @property
    def options(self) -> dict[str, Any]:
        """For ``Diffusion.sample``."""
        return {"condition": self.condition, "given": self.given}


def asked_of(trainer: Trainer, model: Diffusion, indices: Sequence[int], seed: int) -> Asked:
    """What is asked of the samples with these indices, of this seed.

    A model that observes is given what it may know of as many held-out samples, and shall show what
    they do, unless it is asked for other ``labels``.
    """
    data = getattr(trainer, "datamodule", None)
    if model.observation is None or not isinstance(data, ArrayDataModule):
        condition = model.condition_of(indices)
        return Asked(condition, labels=condition)
    batch = {name: value.to(model.device) for name, value in data.held_out(indices).items()}
    truth, condition = clean(model, batch)
    labels = batch.get("condition")
    if model.labels is not None:
        labels = condition = model.condition_of(indices)
    given = model.observation.draw(truth, SampleNoise(seed, indices), batch)
    return Asked(condition, given, labels, truth, batch)


def arrays_of(model: Diffusion, x0: Samples, asked: Asked) -> dict[str, Tensor]:
    """Raw samples under their medium's name, with their ``labels``, if they have any.

    If something was known of them, that and the ``truth`` stand beside them.
    """
    medium, arrays = model.medium, {model.medium.name: model.medium.decode(x0)}
    given, truth = asked.given, asked.truth
    if given is not None and truth is not None and model.observation is not None:
        raw = asked.batch["x0"]
        arrays = {medium.name: medium.decode_known(x0, given.known, raw)}
        for name, value in model.observation.shown(given).items():
            arrays[name] = medium.decode(value) if value.is_floating_point() else value
        arrays["truth"] = medium.decode_known(truth, torch.ones_like(given.known), raw)
        beside = ("window", "row", "time")
        arrays |= {name: asked.batch[name] for name in beside if name in asked.batch}
    if asked.labels is not None:
        arrays["labels"] = asked.labels
    return {name: value.cpu() for name, value in arrays.items()}
