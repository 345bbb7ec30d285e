"""What was saved, taken over by a run: it must mean the same."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only

from lightning_ddpm.checkpoints import Saved, check_trained, load_weights
from lightning_ddpm.files import DataError
from lightning_ddpm.parts import config_of
from lightning_ddpm.training.module import DiffusionLightningModule


def take_over(
    saved: Saved,
    subcommand: str,
    module: DiffusionLightningModule,
    data: LightningDataModule,
    recipe: Mapping[str, Any],
) -> None:
    """Take the weights that were saved; say what has changed since, and what classes there are.

    Args:
        saved: what was saved.
        subcommand: of Lightning.
        module: what takes the weights.
        data: what it is for.
        recipe: the class and the arguments of the data.

    Raises:
        ValueError: if the weights would mean something else, or the optimizer's state would.
    """
    model, known = module.model, saved.class_names
    load_weights(model, saved)
    check_trained(model, saved)
    told = model.network.num_classes > 0 and subcommand != "predict"
    check_data(recipe, names_of(data) if told else (), saved)
    if subcommand == "fit":
        check_training(module, saved)
    if subcommand == "predict" and model.network.num_classes > 0 and known:
        names = ", ".join(f"{i} {name}" for i, name in enumerate(known))
        rank_zero_only(print)(f"classes:     {names}")


def names_of(data: LightningDataModule) -> Sequence[str]:
    """What the data call their classes, if that is known as yet."""
    try:
        return getattr(data, "class_names", ())
    except DataError:  # said where they are read
        return ()


def check_training(module: DiffusionLightningModule, saved: Saved) -> None:
    """See that training can go on with the optimizer; say what else has changed."""
    now, before = (
        {**part["model"], **part["training"]} for part in (recipe_of(module), saved.recipe)
    )
    if now["optimizer"] != before["optimizer"]:
        raise ValueError(f"--optimizer: the checkpoint holds the state of {before['optimizer']}")
    for name in now:
        if short(now[name]) != short(before.get(name)):
            said = f"{name} {short(now[name])} in place of {short(before.get(name))}"
            rank_zero_only(print)(f"changed:     {said}")


def recipe_of(module: DiffusionLightningModule) -> dict[str, Any]:
    """The arguments of a module and its model, as checkpoints have them."""
    training = config_of(module)["init_args"]
    return {"model": training.pop("model")["init_args"], "training": training}


def short(value: Any) -> str:
    """A value of a recipe in few words: of a part, its class and its arguments."""
    if isinstance(value, dict):
        arguments = ", ".join(f"{name}={v}" for name, v in value["init_args"].items())
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    return json.dumps(value)


def check_data(now: Mapping[str, Any], names: Sequence[str], saved: Saved) -> None:
    """Raise ValueError if the data are not those that the weights were trained on.

    Args:
        now: class and arguments of the data, as a recipe has them.
        names: what they call their classes; empty if it does not matter.
        saved: has the same of the data of then, if they are known.
    """
    before = saved.recipe.get("data", {})
    was, is_ = ({**data, **(data.get("init_args") or {})} for data in (before, now))
    for name in ("class_path", "dataset"):
        if name in was and was[name] != is_.get(name):
            raise ValueError(f"--data {is_.get(name)}: the weights were trained on {was[name]}")
    if names and saved.class_names and list(names) != list(saved.class_names):
        known = ", ".join(saved.class_names)
        raise ValueError(f"--data has the classes {', '.join(names)}, the weights know {known}")
