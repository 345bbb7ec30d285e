"""What is wrong with a command line or a recipe, in one line."""

import inspect
import re
import textwrap
from importlib import import_module
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser


class Parser(LightningArgumentParser):
    """Reports what is wrong in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` and exit with 2."""
        if not self.exit_on_error:  # an inner parser of jsonargparse: the outer one reports
            super().error(message, ex)
        keys = ".".join(re.findall(r'Parser key "(.+?)"', message))
        value = re.search(r"(?:Got|Given) value: (?!NestedArg)(.*)", message)
        if unknown := re.search(r"Option '.*' is not accepted", message):
            message = f"--{keys}: {unknown[0]}"
        elif problem := re.search(
            r"Problem with given class_path .*:\s+(?=\S)(?!Parser)(.+)", message
        ):
            message = f"--{keys} {value[1] if value else ''}: {problem[1]}"
        elif base := re.search(r"<class '([\w.]+)'>(?s:.*)Expected a dot import path", message):
            names = ", ".join(names_of_subclasses(base[1]))
            message = f"--{keys} {value[1] if value else ''}: expected {names}, or module.Class"
        elif keys and value:
            types = re.findall(
                r"Expected an? (?!path but|<class 'NoneType'>)(.*?)(?:\. Got|$)", message, re.M
            )
            expected = re.sub(r"typing\.|<class '|'>", "", " or ".join(types))
            message = f"--{keys} {value[1]}: expected {expected}"
        self.exit(2, f"error: {textwrap.shorten(message, 400)}\n")


def names_of_subclasses(path: str) -> list[str]:
    """The classes of the package that can stand where the base class ``path`` is asked for."""
    module, _, name = path.rpartition(".")
    found, rest = set(), getattr(import_module(module), name).__subclasses__()
    while rest:
        rest += (cls := rest.pop()).__subclasses__()
        if cls.__module__.startswith("lightning_ddpm.") and not inspect.isabstract(cls):
            found.add(cls.__name__)
    return sorted(found)
