"""A run that is killed and resumed ends as one that was left alone, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from conftest import ROOT, SOURCE
from runs import differences, outcome
from tiny import call

RUN = (
    *("--network", "MLP", "--model.network.init_args.hidden", 16, "--steps", 3),
    *("--source", SOURCE, "--max_epochs", 4, "--limit_train_batches", 60, "--batch_size", 32),
    *("--limit_val_batches", 2, "--last_checkpoint.every_n_seconds", 0, "--accelerator", "cpu"),
    *("--evaluation.every_n_epochs", 0, "--enable_progress_bar", "false"),
)
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


def start(root: Path, *options: object) -> subprocess.Popen:
    """Start the real command on its way, and see it begin."""
    before = len(list(root.rglob("events.out*")))
    command = [sys.executable, ROOT / "train.py", *RUN, "--trainer.default_root_dir", root]
    with (root / "log.txt").open("a") as log:
        process = subprocess.Popen(
            list(map(str, [*command, *options])),
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")},
        )
    while process.poll() is None and len(list(root.rglob("events.out*"))) == before:
        time.sleep(0.01)
    return process


def finish(root: Path, *options: object) -> dict[str, Any]:
    """Go on with the run to its end; what it has come to."""
    process = start(root, "--resume", *options)
    assert process.wait(timeout=300) == 0, (root / "log.txt").read_text()
    return outcome(root)


@cache
def uncut(*options: object) -> dict[str, Any]:
    """What a run comes to that is left alone."""
    with TemporaryDirectory() as root:
        return finish(Path(root), *options)


def here(root: Path, *options: object) -> int:
    """The exit code of three epochs in this process, with one thread as those of ``start``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seldom = ("--last_checkpoint.every_n_seconds", 30)  # a stop saves at once
        call(*RUN, "--max_epochs", 3, *seldom, "--trainer.default_root_dir", root, *options)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    finally:
        torch.set_num_threads(threads)
    return 0


@cache
def uncut_here(*options: object) -> dict[str, Any]:
    """What a run in this process comes to that is left alone."""
    with TemporaryDirectory() as root:
        assert here(Path(root), *options) == 0
        return outcome(Path(root))


def kill(root: Path, number: signal.Signals, delay: float, *options: object) -> bool:
    """Go on with the run, and kill it ``delay`` s after it has saved; False if it ended before."""

    def saved() -> list[int]:
        return [path.stat().st_mtime_ns for path in root.rglob("last.ckpt")]

    before = saved()
    process = start(root, "--resume", *options)
    while process.poll() is None and saved() == before:
        time.sleep(0.001)
    time.sleep(delay)
    process.send_signal(number)
    code, log = process.wait(timeout=60), (root / "log.txt").read_text()
    if log.splitlines()[-1].startswith("more digits:"):  # it ended before, or Python is just ending
        return False
    assert code == CODES[number], log
    return True


@pytest.mark.long
def test_killed_runs_go_on_exactly(tmp_path: Path) -> None:
    chance, done, network = random.Random(0), 0, ("--network", "toys.Dropping")
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        done += kill(tmp_path, number, chance.uniform(0, 0.5), *network)
    assert done > 0
    expected = uncut_here("--max_epochs", 4, *network)
    assert differences(finish(tmp_path, *network), expected) == []


WORKERS, STEPS = ("--num_workers", 2), ("--max_epochs", -1, "--max_steps", 180)
SEVEN = ("--accumulate_grad_batches", 7)
WITHIN = (
    *("--network", "toys.Dropping", "--observation", "Holes"),
    *("--model.network.init_args.in_channels", 2),
    *("--val_check_interval", 25, *SEVEN),  # batch 25 is in the middle of a step of 7
)


@pytest.mark.parametrize(
    ("stop", "same", "options"),  # the same as a run without, and what changes it
    [
        ("StopInValidation", WORKERS, SEVEN),
        ("StopInValidation", (), WITHIN),
        ("StopEarly", (*STEPS, *WORKERS), ()),
    ],
    ids=str,
)
def test_stopped_runs_go_on_exactly(
    tmp_path: Path, stop: str, same: tuple, options: tuple, capfd: pytest.CaptureFixture[str]
) -> None:
    code = here(tmp_path, *same, *options, "--trainer.callbacks", f"toys.{stop}")
    assert code == {"StopInValidation": 143, "StopEarly": 0}[stop]
    for grid in tmp_path.rglob("grids/step-000090.png"):
        grid.unlink()  # drawn at the end of a run
    assert here(tmp_path, "--resume", *same, *options) == 0
    found = differences(outcome(tmp_path), uncut_here(*options))
    if stop == "StopEarly":
        found = [name for name in found if "val" not in name]  # it is validated at its end
    assert found == []
    told = capfd.readouterr().out
    assert "resume:      /" in told
    assert ("; go on with --resume" in told) == (stop != "StopEarly")
    assert len(uncut_here()) > 80
    assert uncut_here()["step"] == 180


def test_a_run_goes_on_from_its_best_checkpoint_to_the_same_end(tmp_path: Path) -> None:
    assert here(tmp_path, *WITHIN, "--trainer.callbacks", "toys.StopInValidation") == 143
    (best,) = tmp_path.rglob("best.ckpt")
    (last,) = tmp_path.rglob("last.ckpt")
    best.replace(last)  # of a validation in the first epoch
    assert here(tmp_path, "--resume", *WITHIN) == 0
    assert differences(outcome(tmp_path), uncut_here(*WITHIN)) == []


@pytest.mark.parametrize("options", [("--max_epochs", 0), ("--trainer.logger", "false")], ids=str)
def test_runs_without_steps_or_curves_can_be_resumed(
    tmp_path: Path, options: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert here(tmp_path, "--resume", "--limit_train_batches", 2, *options) == 0


@pytest.mark.thorough
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_ten_kills_of_ten_go_on_exactly(tmp_path: Path, number: signal.Signals) -> None:
    chance, done = random.Random(number), 0
    for i in range(20):
        root = tmp_path / str(i)
        root.mkdir()
        same, options = [((), ()), (WORKERS, ()), ((), ("--devices", 2))][i % 3]
        done += kill(root, number, chance.uniform(0, 1), *same, *options)
        assert differences(finish(root, *same, *options), uncut(*options)) == []
        if done == 10:
            break
    print(f"{done} kills by {number.name}, all resumed to the same state")
    assert done == 10
