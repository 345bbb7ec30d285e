"""What is wrong with a command line, a recipe or a file, in one line."""

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser

from lightning_ddpm.data import DataError
from lightning_ddpm.parts import class_at

REFUSALS = (DataError, MisconfigurationException, OSError, ValueError, ArithmeticError)


@contextmanager
def one_line() -> Iterator[None]:
    """Within, what is refused ends the program with 1 and one line that says why."""
    try:
        yield
    except REFUSALS as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except RuntimeError as error:
        if "by peer" in str(error):  # another process has ended, and has said why
            sys.exit(1)
        raise


def refuse(message: object) -> NoReturn:
    """End the program with 2, and one line that says what is wrong with its command line."""
    print(f"error: {textwrap.shorten(str(message), 400)}", file=sys.stderr)
    sys.exit(2)


class Parser(LightningArgumentParser):
    """Reports what is wrong in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` and exit with 2."""
        if not self.exit_on_error:  # an inner parser of jsonargparse: the outer one reports
            super().error(message, ex)
        keys = ".".join(re.findall(r'Parser key "(.+?)"', message))
        found = re.search(r"(?:Got|Given) value: (?!NestedArg)(.*)", message)
        what = f"--{keys} {found[1] if found else ''}".rstrip()
        if unknown := re.search(r"Option '.*' is not accepted", message):
            message = f"--{keys}: {unknown[0]}"
        elif why := re.search(r"Problem with given class_path .*:\s+(?=\S)(?!Parser)(.+)", message):
            message = f"--{keys}: {why[1]}" if keys else why[1]
        elif base := re.search(r"<class '([\w.]+)'>(?s:.*)Expected a dot import path", message):
            message = f"{what}: expected {names_of_subclasses(base[1])}, or module.Class"
        elif keys and found:
            types = r"Expected an? (?!path but|<class 'NoneType'>)(.*?)(?:\. Got|$)"
            expected = " or ".join(re.findall(types, message, re.M))
            message = f"{what}: expected " + re.sub(r"typing\.|<class '|'>", "", expected)
        refuse(message)


def names_of_subclasses(path: str) -> str:
    """The classes of the package that can stand where the base class ``path`` is asked for."""
    found, rest = set(), class_at(path).__subclasses__()
    while rest:
        rest += (cls := rest.pop()).__subclasses__()
        if cls.__module__.startswith("lightning_ddpm.") and not inspect.isabstract(cls):
            found.add(cls.__name__)
    return ", ".join(sorted(found))
