"""Every command of the README is run, in order, with a few steps instead of all."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SOURCE

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
TRAIN = [c.split("&&")[-1].strip() for c in COMMANDS if "python " in c]
FAST = {
    "fit": ("--max_steps", 2, "--limit_val_batches", 1, "--steps", 2, "--source", SOURCE),
    "validate": ("--limit_val_batches", 1, "--source", SOURCE),
    "test": ("--limit_test_batches", 1, "--source", "packaged", "--num_samples", 10),
    "predict": ("--steps", 2),
}


def test_two_commands_do_the_set_up() -> None:
    assert "pip install -e . && python train.py" in COMMANDS
    assert 'pip install -e ".[dev]" && pytest' in COMMANDS


def test_commands_run(call_main, tmp_path: Path) -> None:
    assert len(TRAIN) > 3
    for command in TRAIN:
        words: list = shlex.split(command, comments=True)[1:]
        if words[0] == "-m":
            run_module(words, tmp_path)
            continue
        words = words[1:]
        if "gpu" in words and not torch.cuda.is_available():
            words[words.index("gpu")] = "cpu"
            words.remove("--compile")  # test_hardware.py compiles a smaller network
        subcommand = words[0] if words and words[0] in FAST else "fit"
        if "--help" in words:
            with pytest.raises(SystemExit):
                call_main(*words)
            continue
        words += FAST[subcommand]
        if subcommand == "fit" and "--ckpt_path" in words:
            words += ["--max_steps", 4]  # the run to be continued has 2
        call_main(*words)


def run_module(words: list, folder: Path) -> None:
    """Run ``python -m`` on the packaged digits: there is no MNIST in ``folder``."""
    environment = {k: v for k, v in os.environ.items() if k != "LIGHTNING_DDPM_DATA"}
    if "lightning_ddpm.classify" in words:
        words += ["--help"]  # it needs Fashion-MNIST; test_classify.py runs it
    subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, check=True, capture_output=True
    )


def test_python_runs(train_py, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_py(*FAST["fit"])
    (tmp_path / "last.ckpt").symlink_to(next(tmp_path.rglob("last.ckpt")))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["images"].shape == (16, 1, 28, 28)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)|src=\"([^\"]+)\"", README))
def test_links_lead_somewhere(path: tuple[str, str]) -> None:
    assert (ROOT / (path[0] or path[1])).exists()
