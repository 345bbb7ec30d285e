"""What a command line names, before it is parsed: recipes, a checkpoint, and classes of parts."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from lightning_ddpm.checkpoints import PRETRAINED, Saved, read_saved
from lightning_ddpm.cli.errors import refuse
from lightning_ddpm.configs import named, read_recipe
from lightning_ddpm.files import path_of
from lightning_ddpm.training.runs import RUNS, newest_run, to_go_on_with


def groups(arguments: Iterable[str]) -> list[list[str]]:
    """The flags of a command line, each with its values; ``--flag=value`` is two words."""
    found: list[list[str]] = [[]]
    for argument in arguments:
        if argument.startswith("--") or (argument[:1] == "-" and argument[1:2].isalpha()):
            name, equals, value = argument.partition("=")
            found.append([name, value] if equals else [name])
        else:
            found[-1].append(argument)
    return [group for group in found if group]


def recipes_of(flags: Iterable[list[str]]) -> list[Any]:
    """The default recipe and those that ``--config`` names."""
    names = [value for name, *values in flags if name in ("--config", "-c") for value in values]
    return [read_recipe(name) for name in ("default", *names)]


def find_saved(subcommand: str, flags: list[list[str]]) -> Saved | None:
    """The checkpoint or the weights to go on with: the named, the newest, the package's."""
    given, recipes = {name: values for name, *values in flags}, recipes_of(flags)

    def asked(name: str) -> Any:
        values = given.get(f"--{name}") or given.get(f"--{name.replace('.init_args', '')}")
        return (values or [named(recipes, name)])[0]

    path, resume = asked("ckpt_path"), "--resume" in given or named(recipes, "resume") is True
    if resume and (subcommand != "fit" or path):
        refuse("--resume: only fit goes on with a run, and without --ckpt_path")
    try:
        if resume:
            root = path_of(str(asked("trainer.default_root_dir") or "."))
            place, name = (
                asked(f"trainer.logger.init_args.{part}") for part in ("save_dir", "name")
            )
            return newest_run(root, path_of(str(place or root)) / str(name or RUNS))
        if subcommand == "fit":
            return to_go_on_with(path_of(str(path))) if path else None
        if not path and "--print_config" not in given:
            rank_zero_only(print)("model:       the package's; --ckpt_path takes one of yours")
        return read_saved(str(path or PRETRAINED))
    except ValueError as error:
        refuse(f"--{'resume' if resume else 'ckpt_path'}: {error}")
