"""What the command line may leave out: short flags, and the recipes of the package by name."""

import inspect
import json
from typing import Any

from lightning import Trainer

from lightning_ddpm.checkpoints import Saved
from lightning_ddpm.cli.errors import refuse
from lightning_ddpm.cli.recipes import groups, recipes_of
from lightning_ddpm.condition import as_labels
from lightning_ddpm.configs import named, recipe_path
from lightning_ddpm.data import MNISTDataModule
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.parts import PARTS, class_at
from lightning_ddpm.training import DiffusionLightningModule, SampleWriter

NO_LIMIT = ["--config", "{trainer: {max_epochs: -1}}"]
ONLY = (  # flags that all commands take and not all use
    (("--samples.",), "predict"),
    (("--evaluation.every_n_epochs", "--best_checkpoint.", "--last_checkpoint.", "--ema."), "fit"),
    (("--evaluation.outdir",), "test"),
    (("--evaluation.",), "fit and test"),
)
LISTS = ("--data.init_args.columns", "--data.init_args.known_ahead")
SWITCHES = ("--samples.png", "--samples.trajectory", "--json")


def short_flags(data_class: Any = MNISTDataModule) -> dict[str, str]:
    """The full name of every flag that may be shortened, from the signatures that take them."""
    owners = {
        "trainer": Trainer,
        "model": Diffusion,
        "training": DiffusionLightningModule,
        "data.init_args": data_class,
        "samples": SampleWriter,
    }
    parameters = [
        (key, name) for key in owners for name in inspect.signature(owners[key]).parameters
    ]
    flags = {f"--{name}": f"--{key}.{name}" for key, name in parameters if name != "model"}
    return flags | {
        "--seed": "--seed_everything",
        "--steps": "--model.sampler.init_args.steps",
        "--factor": "--model.observation.init_args.factor",
        "--levels": "--model.observation.init_args.levels",
    }


def class_named(path: str) -> Any:
    """The data module of this path, or of this name in the package; MNIST's if there is none."""
    try:
        found = class_at(path if "." in path else f"lightning_ddpm.data.{path}")
    except Exception:  # the parser says what is wrong
        found = None
    return found if inspect.isclass(found) else MNISTDataModule


def expand(arguments: list[str], saved: Saved | None = None) -> list[str]:
    """Write out what the command line may leave out; what is written out already stays.

    ``fit`` is the default subcommand, flags have short names, ``--config NAME`` is a recipe of the
    package, switches need no value, ``--labels`` no brackets, and ``--max_steps`` alone sets no
    limit to the epochs. Recipes come first and classes of parts next, so that flags win in any
    order; a part of another class than the recipe's starts from that class's own arguments.
    ``saved`` is the checkpoint that the command goes on with, if any.
    """
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["fit", *arguments]
    subcommand, flags = arguments[0], groups(arguments[1:])
    default, *own = recipes_of(flags)
    recipes = [default, *([saved.recipe] if saved else []), *own]
    asked = {name: values[0] for name, *values in flags if values}
    names = short_flags(class_named(str(asked.get("--data", named(recipes, "data.class_path")))))
    if subcommand == "test":
        names |= {f"--{name}": f"--evaluation.{name}" for name in ("outdir", "num_samples")}
    if subcommand == "predict":
        names["--batch_size"] = "--data.init_args.sample_batch_size"
    configs, classes, rest = [], [], []
    for short, *values in flags:
        name = names.get(short, short)
        for beginnings, users in ONLY:
            if name.startswith(beginnings) and subcommand not in users:
                refuse(f"{short}: only {users} would use it")
        if name in ("--config", "-c"):
            configs += words(name, [recipe_path(value) for value in values])
        elif name in [f"--model.{part}" for part in PARTS] and len(values) == 1:
            other = is_other_class(values[0], named(recipes, f"{name[2:]}.class_path"))
            classes += [name, "null"] if other and classes[-2:] != [name, "null"] else []
            classes += words(name, values)
        elif name == "--data":
            classes += words(name, values)
        elif name in LISTS and values and not values[0].startswith("["):
            rest += words(name, [json.dumps([v.strip() for v in ",".join(values).split(",")])])
        elif name == "--model.labels":
            called = saved.class_names if saved else ()
            rest += words(name, [as_labels(value, called) for value in values])
        else:
            rest += words(name, values or ["true"] * (name in SWITCHES))
    limited = "--trainer.max_steps" in rest or named(own, "trainer.max_steps") is not None
    if limited and "--trainer.max_epochs" not in rest and configs[:2] != NO_LIMIT:
        configs = [*NO_LIMIT, *configs]  # first, so that a recipe can set one
    return [subcommand, *configs, *classes, *rest]


def words(name: str, values: list[str]) -> list[str]:
    """A flag and its values, as one word where a value would be taken for a flag."""
    joined = len(values) == 1 and values[0].startswith("-")
    return [f"{name}={values[0]}"] if joined else [name, *values]


def is_other_class(value: str, before: Any) -> bool:
    """Whether ``value`` names another class than the path ``before`` does."""
    is_name = value != "null" and not value.startswith("{")
    return is_name and str(before).split(".")[-1] != value.split(".")[-1]
