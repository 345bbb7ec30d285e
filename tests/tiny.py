"""A tiny model on the command line: flags, a run that tests share, and what would be run."""

import re
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from conftest import SOURCE

from lightning_ddpm.cli.main import CLI, main

TINY = (
    *("--network", "MLP", "--model.network.init_args.hidden", 16, "--steps", 3),
    *("--source", SOURCE, "--max_steps", 4, "--limit_val_batches", 2),
)


def call(*arguments: object) -> None:
    """Run the command line in this process and in this folder."""
    with patch.object(sys, "argv", ["train.py", *map(str, arguments)]):
        main()


def built_by(*arguments: object) -> Any:
    """The command line's model, data and Trainer, of which nothing is run."""
    seen: list[Any] = []
    with patch.object(CLI, "_run_subcommand", lambda cli, _: seen.append(cli)):
        call(*arguments)
    return seen[0]


def tiny_run(base: Path) -> dict[str, str]:
    """A short run of ``fit`` under ``base``: the lines it prints at its end, and its ``folder``."""
    folder, output = base / "tiny_run", StringIO()
    folder.mkdir()
    with chdir(folder), redirect_stdout(output):
        call(*TINY, "--lr", "0.005", "--seed=3")
    lines = [line.split(":", 1) for line in output.getvalue().splitlines() if ":" in line]
    return {"folder": str(folder)} | {name: value.strip() for name, value in lines}


def last_of(version: int) -> Path:
    """Where a run in this folder saves."""
    return Path("lightning_logs", f"version_{version}", "checkpoints", "last.ckpt")


def error_of(capfd: pytest.CaptureFixture[str], command: Callable[[], object]) -> tuple[int, str]:
    """The exit code and the one line that a command ends with."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_:
        command()
    code, told = exit_.value.code, re.sub(r"\x1b\[A", "", capfd.readouterr().err)
    if isinstance(code, str):  # which Python would print, and exit with 1
        code, told = 1, f"{told}\n{code}"
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert code in (1, 2)
    assert "Traceback" not in told
    assert len(line) < 500
    return code, line
