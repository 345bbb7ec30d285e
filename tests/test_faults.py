"""What goes wrong ends in one line that names it, and leaves what was there."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SOURCE
from test_score import Payload
from tiny import TINY, call, error_of

from lightning_ddpm import Diffusion
from lightning_ddpm.networks import MLP
from lightning_ddpm.samplers import DDIM
from lightning_ddpm.training import WholeCheckpointIO

FIT = (*TINY, "--accelerator", "cpu", "--enable_progress_bar", "false", "--resume")


def fails(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 1) -> str:
    """The one line of error of a command."""
    found, line = error_of(capfd, lambda: call(*arguments))
    assert found == code, line
    return line


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Within, no file can be written that has more bytes, as on a full disk."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run, in ``lightning_logs/version_0``."""
    folder = tmp_path_factory.mktemp("trained")
    with chdir(folder):
        call(*FIT)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which commands run."""
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    monkeypatch.chdir(copy)
    return copy


def last(folder: Path) -> Path:
    return folder / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.usefixtures("folder")
def test_a_run_that_has_ended_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    call(*FIT)
    assert "ended before; a larger --max_steps" in capfd.readouterr().out


def test_a_full_disk_leaves_the_checkpoint_before(folder: Path, capfd) -> None:
    before, files = last(folder).read_bytes(), os.listdir(last(folder).parent)
    with no_file_above(len(before) // 2):
        line = fails(capfd, *FIT, "--max_steps", 8)
    assert "last.ckpt cannot be written: File too large" in line
    assert last(folder).read_bytes() == before
    assert os.listdir(last(folder).parent) == files


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "last.ckpt", Path("/proc/nowhere/last.ckpt")):
        with pytest.raises(OSError, match=f"the checkpoint {path} cannot be written"):
            WholeCheckpointIO().save_checkpoint({}, path)


def test_training_stops_where_the_loss_is_not_finite(folder: Path, capfd) -> None:
    before = last(folder).read_bytes()
    line = fails(capfd, *FIT, "--max_steps", 8, "--lr", "1e36", "--batch_size", 8)
    assert re.search(
        r"the loss of step \d is not finite at the time steps \[\d.*\]: lower --lr, which is ",
        line,
    )
    assert f"{last(folder)} has the last good state" in line
    assert last(folder).read_bytes() == before


def test_what_is_not_finite_is_not_the_best(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    epochs = ("--limit_train_batches", 5, "--max_epochs", 2, "--max_steps", -1)
    assert "is not finite" in fails(capfd, *FIT, *epochs, "--lr", "1e36")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_resume_takes_the_newest_checkpoint_that_is_whole(folder: Path, capfd) -> None:
    torn = folder / "lightning_logs" / "version_1" / "checkpoints" / "last.ckpt"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(last(folder).read_bytes()[:-100])
    call(*FIT, "--max_steps", 6, "--trainer.default_root_dir", folder)
    output = capfd.readouterr().out
    assert f"resume:      {torn} is damaged" in output
    assert f"resume:      {last(folder)}\n" in output
    assert torch.load(last(folder), weights_only=True)["global_step"] == 6
    last(folder).unlink()
    assert "--resume: no whole last.ckpt under" in fails(capfd, *FIT, code=2)


@pytest.mark.parametrize(
    "command",
    [
        "--resume",
        "fit --ckpt_path {path}",
        "predict --ckpt_path {path}",
        "test --ckpt_path {path}",
        "classify --ckpt_path {path}",
        "export model.safetensors --ckpt_path {path}",
    ],
)
def test_code_in_a_checkpoint_is_not_run(folder: Path, command: str, capfd) -> None:
    trap = folder / "trap"
    checkpoint = torch.load(last(folder), weights_only=True)
    torch.save(checkpoint | {"callbacks": Payload(trap)}, last(folder))
    tool = command.split()[0] in ("classify", "export")
    line = fails(capfd, *command.format(path=last(folder)).split(), code=1 if tool else 2)
    assert "last.ckpt" in line
    assert not trap.exists()
    torch.load(last(folder), weights_only=False)  # the trap does work
    assert trap.exists()


@pytest.mark.usefixtures("folder")
def test_state_of_another_optimizer_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    line = fails(capfd, *FIT, "--optimizer", "adam", code=2)
    assert "--optimizer: the checkpoint holds the state of muon" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--network MLP --val_check_interval 5000", "val_check_interval"),
        ("--network UNet --model.network.init_args.num_classes 5", "num_classes 5 is below the 10"),
    ],
)
def test_what_the_data_do_not_allow_is_one_line(
    options: str, message: str, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(capfd, "--source", SOURCE, "--max_steps", 4, *options.split())


@pytest.mark.long
def test_processes_say_together_that_the_data_are_damaged(tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    options = ("--devices", 2, "--source", "mnist", "--data_dir", tmp_path / "data")
    command = [sys.executable, ROOT / "train.py", *FIT, *options]
    result = subprocess.run(
        [*map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if "error" in line.lower())
    assert line.startswith("error: ")
    assert "train-images-idx3-ubyte" in line


@pytest.mark.long
@pytest.mark.parametrize("victim", ["parent", "child"])
def test_no_process_outlives_another(tmp_path: Path, victim: str) -> None:
    command = [sys.executable, ROOT / "train.py", *FIT, "--devices", 2, "--max_steps", 10**6]
    with (tmp_path / "log.txt").open("w") as log:
        parent = subprocess.Popen(list(map(str, command)), cwd=tmp_path, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("events.out*")):
        assert time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
        time.sleep(0.1)
    tasks = Path(f"/proc/{parent.pid}/task")
    children = [int(pid) for file in tasks.glob("*/children") for pid in file.read_text().split()]
    (child,) = (p for p in children if b"LOCAL_RANK=1" in Path(f"/proc/{p}/environ").read_bytes())
    os.kill(parent.pid if victim == "parent" else child, signal.SIGKILL)
    assert parent.wait(timeout=60) != 0
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Small(DDIM):
    """A sampler on a device with memory for three images."""

    def sample(self, denoise, x, *rest, **options) -> torch.Tensor:
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().sample(denoise, x, *rest, **options)


def test_samples_are_generated_in_smaller_batches_where_memory_is_short() -> None:
    model = Diffusion(MLP(hidden=8))
    with pytest.warns(UserWarning, match="out of memory: sampling 2 at once"):
        images = model.sample(9, sampler=Small(3), progress=False)
    expected = model.sample(9, sampler=DDIM(3), progress=False)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)
