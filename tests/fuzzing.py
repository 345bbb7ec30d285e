"""Random words, trees, damage and changes, and a command that must end as commands should."""

import copy
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

FEW = 12  # cases of a long run
JUNK = st.one_of(
    st.sampled_from(
        ["", "null", "true", "[]", "{}", "[1,", "{a: 1}", '"', "@", "- x", "=", "ü", ","]
    ),
    st.sampled_from(
        ["1e400", "-1e400", ".nan", "nan", "inf", "0x10", "1_0", "!!python/name:os.system"]
    ),
    st.sampled_from([-7, -1, 0, 1, 2, 3, 10, 100, 1000]).map(str),
    st.floats().map(str),
    st.text("abcXYZ019 .,:;-_+%$#&*?!'\"[]{}()\n\t\0é", max_size=12),
    st.lists(st.integers(-2, 30), max_size=4).map(str),
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 1000) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


def cases(thorough: int) -> Callable:
    """Run a test with ``FEW`` cases, always the same, and with ``thorough`` new ones."""

    def decorate(test: Callable) -> Callable:
        few = pytest.param(FEW, marks=pytest.mark.long)
        many = pytest.param(thorough, marks=pytest.mark.thorough)
        return pytest.mark.parametrize("number", [few, many])(test)

    return decorate


def run(number: int, test: Callable, **strategies: st.SearchStrategy) -> None:
    """Run ``test`` with ``number`` cases that are drawn from ``strategies``."""
    new = number > FEW
    options = {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}
    options |= {"max_examples": number, "deadline": None, "database": None, "derandomize": not new}
    settings(**options)(given(**strategies)(test))()
    print(f"{number} cases: no traceback, nothing half-written")


def call(arguments: list[str], folder: Path) -> bool:
    """Run the command in ``folder``; whether it succeeded. It must end as a command should."""
    error = StringIO()
    with chdir(folder), redirect_stdout(StringIO()), redirect_stderr(error):
        try:
            tiny.call(*arguments)
            code = 0
        except SystemExit as exit_:
            code = exit_.code
    lines = [line for line in error.getvalue().splitlines() if line.startswith("error: ")]
    if isinstance(code, str):  # which Python would print, and exit with 1
        lines.append(code)
    if code not in (None, 0):
        assert len(lines) == 1, (code, lines, error.getvalue()[-1000:])
        assert lines[0].startswith("error: ")
        assert "\n" not in lines[0]
    assert not [path for path in folder.rglob("*") if path.suffix == ".tmp"]
    for path in folder.rglob("samples.npz"):
        np.load(path)["images"]
    return code in (None, 0)


def paths_in(tree: Any) -> list[tuple]:
    """The keys that lead to each part of nested dictionaries."""
    if not isinstance(tree, dict):
        return []
    return [path for k, v in tree.items() for path in [(k,), *((k, *rest) for rest in paths_in(v))]]


def changed(tree: dict, path: tuple, how: str, junk: Any) -> dict:
    """A copy of nested dictionaries, in which one part is deleted, replaced or added to."""
    tree = copy.deepcopy(tree)
    *parents, last = path
    inner = tree
    for key in parents:
        inner = inner[key]
    if how == "delete":
        del inner[last]
    else:
        inner[last if how == "replace" else str(junk)[:8]] = junk
    return tree


HOW = st.sampled_from(["delete", "replace", "add"])


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Cut off, overwritten at some place, or something else."""
    place = st.integers(0, len(content) - 1)
    cut = place.map(lambda n: content[:n])
    overwritten = st.builds(
        lambda n, piece: content[:n] + piece + content[n + len(piece) :],
        place,
        st.binary(min_size=1, max_size=9),
    )
    return cut | overwritten | overwritten | st.binary(max_size=99)
