"""What the command line may leave out: short flags, and the recipes of the package by name."""

import inspect
from importlib.resources import files
from pathlib import Path

from lightning import Trainer

from lightning_ddpm.callbacks import SampleWriter
from lightning_ddpm.data import ImageFolderDataModule, MNISTDataModule
from lightning_ddpm.module import DiffusionLightningModule

CONFIGS = Path(str(files("lightning_ddpm") / "configs"))


def short_flags() -> dict[str, str]:
    """The full name of every flag that may be shortened, from the signatures that take them."""
    owners = (
        ("trainer", Trainer),
        ("model", DiffusionLightningModule),
        ("data.init_args", MNISTDataModule),
        ("data.init_args", ImageFolderDataModule),
        ("samples", SampleWriter),
    )
    flags = {
        f"--{name}": f"--{key}.{name}"
        for key, owner in owners
        for name in inspect.signature(owner).parameters
    }
    return flags | {"--seed": "--seed_everything", "--steps": "--model.sampler.init_args.steps"}


def expand(arguments: list[str]) -> list[str]:
    """Write out what the command line may leave out; what is written out already stays.

    ``fit`` is the default subcommand, flags have short names, ``--config NAME`` is a recipe of the
    package, ``--png`` and ``--trajectory`` need no value, ``--labels`` no brackets, and
    ``--max_steps`` alone sets no limit to the epochs.
    """
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["fit", *arguments]
    flags = short_flags()
    if arguments[0] == "test":
        flags |= {f"--{name}": f"--evaluation.{name}" for name in ("outdir", "num_samples")}
    if arguments[0] == "predict":
        flags["--batch_size"] = "--data.init_args.sample_batch_size"
    expanded = []
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        alone = [*arguments, "-"][i + 1].startswith("-")
        if name in ("--png", "--trajectory") and not equals and alone:
            equals, value = "=", "true"
        if i > 0 and arguments[i - 1] in ("--config", "-c"):
            name = recipe_path(name)
        elif name == "--config":
            value = recipe_path(value)
        elif i > 0 and arguments[i - 1] in ("--labels", "--model.labels"):
            name = bracketed(name)
        elif name in ("--labels", "--model.labels") and equals:
            value = bracketed(value)
        expanded.append(flags.get(name, name) + equals + value)
    names = [argument.partition("=")[0] for argument in expanded]
    if "--trainer.max_steps" in names and "--trainer.max_epochs" not in names:
        expanded.insert(1, "--trainer.max_epochs=-1")  # first, so that a --config can set them
    return expanded


def bracketed(labels: str) -> str:
    """Write ``7`` or ``0,1,2`` as the list that YAML understands."""
    return f"[{labels}]" if labels[:1].isdigit() else labels


def recipe_path(name: str) -> str:
    """The file of a recipe in the package, if ``name`` is one, else ``name``."""
    path = CONFIGS / f"{name}.yaml"
    return str(path) if path.is_file() else name
