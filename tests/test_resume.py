"""A run that is killed and resumed ends as one that was left alone, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, SOURCE
from runs import differences, outcome

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


def kill(root: Path, number: signal.Signals, delay: float, *options: object) -> bool:
    """Start, or go on with, the run, and kill it after ``delay`` s; False if it ended before."""
    process = start(root, "--resume", *options)
    time.sleep(delay)
    process.send_signal(number)
    code, log = process.wait(timeout=60), (root / "log.txt").read_text()
    if log.splitlines()[-1].startswith("more digits:"):  # it ended before, or Python is just ending
        return False
    assert code == CODES[number], log
    return True


def check(folder: Path, kills: list[signal.Signals], *options: object, within: float = 2) -> int:
    """Compare a run that is killed as told, at random moments, with one that is not."""
    chance, done = random.Random(str((kills, options))), 0
    for name in ("whole", "cut"):
        (folder / name).mkdir()
    for number in kills:
        done += kill(folder / "cut", number, chance.uniform(0, within), *options)
    compare(folder, *options)
    return done


def compare(folder: Path, *options: object, but: str | None = None) -> None:
    """End the run in ``cut``; it comes to the same as the one in ``whole``, but for some names."""
    for name in ("whole", "cut"):
        process = start(folder / name, "--resume", *options)
        assert process.wait(timeout=300) == 0, (folder / name / "log.txt").read_text()
    whole, cut = outcome(folder / "whole"), outcome(folder / "cut")
    assert whole["step"] == (36 if "--accumulate_grad_batches" in options else 240)
    assert len([name for name in whole if "grid" in name]) >= 4
    assert [name for name in differences(whole, cut) if not (but and but in name)] == []
    assert "resume:      /" in (folder / "cut" / "log.txt").read_text()


@pytest.mark.parametrize("options", [(), ("--devices", 2)], ids=str)
def test_killed_runs_go_on_exactly(tmp_path: Path, options: tuple) -> None:
    assert check(tmp_path, [signal.SIGTERM, signal.SIGKILL, signal.SIGINT], *options) > 0


STEPS = ("--max_epochs", -1, "--max_steps", 240)


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        ("StopInValidation", ("--num_workers", 2)),
        ("StopInValidation", STEPS),
        ("StopInValidation", ("--val_check_interval", 25)),
        ("StopInValidation", ("--accumulate_grad_batches", 7)),
        ("StopEarly", ()),
        ("StopEarly", (*STEPS, "--num_workers", 2)),
    ],
    ids=str,
)
def test_stopped_runs_go_on_exactly(tmp_path: Path, stop: str, options: tuple) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    process = start(tmp_path / "cut", *options, "--trainer.callbacks", f"toys.{stop}")
    assert process.wait(timeout=60) == {"StopInValidation": 143, "StopEarly": 0}[stop]
    for grid in (tmp_path / "cut").rglob("grids/step-000090.png"):
        grid.unlink()  # drawn at the end of a run, which is also validated
    compare(tmp_path, *options, but="val" if stop == "StopEarly" else None)


def test_a_run_goes_on_from_its_best_checkpoint_to_the_same_end(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    options = ("--val_check_interval", 20)
    process = start(tmp_path / "cut", *options, "--trainer.callbacks", "toys.StopInValidation")
    assert process.wait(timeout=60) == 143
    (best,) = tmp_path.rglob("best.ckpt")
    (last,) = tmp_path.rglob("last.ckpt")
    best.replace(last)  # of the end of the first epoch
    compare(tmp_path, *options)


@pytest.mark.parametrize("options", [("--max_epochs", 0), ("--trainer.logger", "false")], ids=str)
def test_runs_without_steps_or_curves_can_be_resumed(tmp_path: Path, options: tuple) -> None:
    for _ in range(2):
        process = start(tmp_path, "--resume", "--limit_train_batches", 2, *options)
        assert process.wait(timeout=60) == 0, (tmp_path / "log.txt").read_text()


@pytest.mark.thorough
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_ten_kills_of_ten_go_on_exactly(tmp_path: Path, number: signal.Signals) -> None:
    done = 0
    for i in range(20):
        folder = tmp_path / str(i)
        folder.mkdir()
        done += check(folder, [number], *[(), ("--num_workers", 2), ("--devices", 2)][i % 3])
        if done == 10:
            break
    print(f"{done} kills by {number.name}, all resumed to the same state")
    assert done == 10
