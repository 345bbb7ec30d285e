"""Every command of the README is run, in order, with a few steps instead of all."""

import re
import shlex
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, SOURCE
from own_images import write_images
from own_videos import write_videos
from tiny import call

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
TRAIN = [c.split("&&")[-1].strip() for c in COMMANDS if "python " in c]
PYTHON = {
    block.split("\n", 1)[0].removeprefix("# "): block
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
}
FAST = {
    "fit": ("--limit_val_batches", 1, "--steps", 2),
    "validate": ("--limit_val_batches", 1, "--source", SOURCE),
    "test": ("--limit_test_batches", 1, "--source", "packaged", "--num_samples", 10),
    "predict": ("--steps", 2),
}


def test_two_commands_do_the_set_up() -> None:
    assert COMMANDS[:2] == [
        "pip install -e . && python train.py",
        'pip install -e ".[dev]" && pytest',
    ]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package's model was exported."""
    with chdir(folder := tmp_path_factory.mktemp("exported")):
        call("export", "digits.onnx")
    return folder


@pytest.mark.long
def test_commands_run(call_main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.py").write_text(PYTHON["my.py"])
    write_images(tmp_path / "my_images", (16, 16))
    (tmp_path / "my_videos").mkdir()
    write_videos(tmp_path / "my_videos", grey=False)
    days = [f"{day},{day.dayofyear},{day.dayofweek}" for day in pd.date_range("2020", periods=999)]
    (tmp_path / "sales.csv").write_text("\n".join(["day,price,sales", *days]))
    assert len(TRAIN) > 30
    for command in TRAIN:
        words: list = shlex.split(command, comments=True)[2:]
        if "gpu" in words and not torch.cuda.is_available():
            words = ["cpu" if word == "gpu" else word for word in words]
            words = [word for word in words if word != "--compile"]  # test_hardware.py compiles
        if "--devices" in words:
            words[words.index("8")] = "1"  # test_ddp.py and test_nodes.py have more
        if words == ["export", "digits.onnx"]:
            continue  # as of ``exported``
        if words[:1] == ["classify"]:
            words += ["--help"]  # it needs Fashion-MNIST; test_classify.py runs it
        if "--help" in words:
            with pytest.raises(SystemExit) as exit_:
                call_main(*words)
            assert exit_.value.code in (None, 0)
            continue
        subcommand = words[0] if words and not words[0].startswith("-") else "fit"
        series = any(part in command for part in ("series", "sales/", "weather/"))
        # A model of other images knows its data, which have no ``source``.
        video = "video" in command or "moving/" in command
        words += () if series or video or "own/" in command else FAST.get(subcommand, ())
        if video:
            words += ("--steps", 2, "--num_videos", 2, "--draws", 2)
            words += ("--limit_test_batches", 1) if subcommand == "test" else ()
            small = ("--model.network.init_args.channels", "[8,8]", "--batch_size", 4)
            words += small if subcommand == "fit" else ()
        if series:
            short = (
                ("--context", 12, "--horizon", 6) if subcommand == "fit" else ("--num_windows", 2)
            )
            words += ("--steps", 2, *short)
        if subcommand == "fit":
            words += () if series or "--data" in words else ("--source", SOURCE)
            words += ("--max_steps", 4 if "--ckpt_path" in words else 2)  # the one goes on
        with monkeypatch.context() as context:
            if subcommand == "score":
                context.delenv("LIGHTNING_DDPM_DATA", raising=False)  # the packaged digits
            call_main(*words)
    assert {path.name for path in tmp_path.iterdir()} > {"samples", "weights.safetensors"}
    names: dict = {}
    exec(PYTHON["a cascade"], names)
    assert names["digits"].shape == (16, 1, 28, 28)
    exec(PYTHON["a longer video"], names)
    assert names["video"].shape == (1, 1, 300, 32, 32)


@pytest.mark.long
def test_python_runs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    names: dict = {}
    exec(PYTHON["from lightning_ddpm import load_model"], names)
    assert names["images"].shape == (16, 1, 28, 28)
    assert names["film"].shape == (4, 13, 1, 28, 28)
    assert [path.name for path in exported.iterdir()] == ["digits.onnx"]
    exec(PYTHON["onnx"], names)
    # Oracle: the same steps in PyTorch. Ink on black, as digits are.
    assert names["x"].shape == (16, 1, 28, 28)
    ink = (names["x"] > 0).mean()
    assert ink == pytest.approx((names["others"] > 0).float().mean().item(), rel=0.3)


def test_python_without_lightning_runs() -> None:
    heavy = "('lightning', 'torchmetrics', 'torchvision', 'jsonargparse', 'PIL', 'tensorboard')"
    last = f"import sys; print(not sys.modules.keys() & {heavy}, loss.item(), *samples.shape)"
    code = PYTHON["without Lightning"] + last
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    light, loss, *shape = result.stdout.split()
    assert light == "True"
    assert shape == ["4", "64"]
    # Oracle: an output of zero, as at the start, misses the velocity of a sine by 3/4 on average.
    assert float(loss) < 0.9 * 0.75
    assert not result.stderr


def test_pairs_of_torchvision_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(PYTHON["pairs"], names)
    assert names["images"].shape == (8, 3, 16, 16)
    assert names["images"].abs().max() <= 1


def test_anchors_are_headings() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-") for name in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http)([^)#]+)\)|src=\"([^\"]+)\"", README))
def test_links_lead_somewhere(path: tuple[str, str]) -> None:
    assert (ROOT / (path[0] or path[1])).exists()
