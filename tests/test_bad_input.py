"""A command that cannot be meant so ends in one line that names what is wrong."""

import os
import sys
from pathlib import Path

import pytest
from test_flags import OWN
from tiny import call, error_of

from lightning_ddpm.cli import main

LINES = [
    ("--batch_size 0", "batch_size"),
    ("--trainer.max_epoch 3", "max_epoch"),
    ("--bogus 3", "bogus"),
    ("bogus", "bogus"),
    ("predict --ckpt_path {run} bogus", "bogus"),
    ("score x.npz --bogus", "bogus"),
    ("export x.onnx bogus", "bogus"),
    ("score", "file"),
    ("classify --ckpt_path x --draws 0", "--draws must be at least 1"),
    ("classify --ckpt_path x --draws many", "--draws many: expected int"),
    (f"--devices {(os.cpu_count() or 1) + 1}", "devices"),
    ("--precision 16-true", "16-true"),
    ("--accelerator tpu", "torch_xla"),
    ("--precision 3", "precision"),
    ("--accelerator warp", "warp"),
    ("--lr -1", "lr"),
    ("--lr fast", "lr"),
    ("--steps 1001", "steps"),
    ("--ema.decay 2", "decay"),
    ("--source moon", "source"),
    ("--config moon", "moon"),
    ("--network Moon", "expected MLP, StackedUNet, Transformer, UNet, VideoUNet, or module.Class"),
    ("--sampler ddim", "expected Ancestral, DDIM, DPMSolver, Heun, or module.Class"),
    ("--network moon.Missing", "No module named 'moon'"),
    ("--sampler toys.Missing", "module 'toys' has no attribute 'Missing'"),
    ("--data moon.Missing", "No module named 'moon'"),
    ("--ckpt_path moon.ckpt", "moon.ckpt"),
    ("--ckpt_path {text}", "text.ckpt"),
    ("--config {text}", "config"),
    ("--trainer.logger WandbLogger", "error: Requirement 'wandb"),
    ("--network MLP --model.network.init_args.time_dim 3", "even width, got 3"),
    ("--model.network.init_args.channels [0,24]", "channels"),
    ("--model.network.init_args.channels []", "channels"),
    ("--model.network.init_args.dims 4", "dims must be from 1 to 3, got 4"),
    ("--model.network.init_args.dims 1", "needs 1 spatial axes (dims)"),
    ("--shape [1,30,30]", "divisible by 4, got (1, 30, 30)"),
    ("--shape [3,28,28]", "UNet with these arguments does not fit samples of shape (3, 28, 28)"),
    ("--shape []", "shape"),
    ("--trainer.default_root_dir {text}", "text.ckpt"),
    ("--trainer.default_root_dir /proc/nowhere", "/proc/nowhere"),
    ("predict --ckpt_path moon.safetensors", "moon.safetensors: no such file"),
    ("predict --network MLP", "MLP"),
    ("predict --config paper", "the weights were trained with"),
    ("test --ckpt_path {run} --model.schedule.init_args.offset 0.1", "--schedule"),
    ("--network null --shape [3,28,28]", "UNet"),
    ("--data Moon", "Moon"),
    ("--data MNISTDataModule --image_size 8", "image_size"),
    ("predict --ckpt_path {run} --num_samples -1", "num_samples"),
    ("predict --ckpt_path {run} --seed -1", "seed"),
    ("predict --ckpt_path {run} --labels seven", "labels seven: expected"),
    ("predict --ckpt_path {run} --labels 7", "of a model that was trained without them"),
    ("--config conditional --labels 10", "labels must be from 0 to 9, got [10]"),
    ("predict --ckpt_path {run} --guidance 2", "guidance"),
    ("--model.sampler.init_args.eta -1", "eta must be from 0 to 1, got -1.0"),
    ("--variance learned --model.network.init_args.out_channels 3", "out_channels"),
    ("--variance huge", "variance"),
    ("--config paper --schedule RectifiedFlow", "VelocityTarget"),
    ("--schedule RectifiedFlow --model.schedule.init_args.T 1", "T >= 2 time steps, got 1"),
    ("--weighting MinSNRWeighting --model.weighting.init_args.gamma 0", "gamma"),
    ("predict --ckpt_path {run} --network UNet", "UNet"),
    ("--ckpt_path {run} --network MLP --model.network.init_args.hidden 17", "MLP"),
    ("--ckpt_path {run} --resume", "--resume: only fit goes on with a run, and without"),
    ("--model.network.init_args.bla 3", "bla"),
    ("--network MLP --model.network.init_args.hidden x", "hidden x: expected int"),
    ("--steps x", "steps x: expected int"),
    ("predict --ckpt_path {run} --num_samples 1 --devices 2", "num_samples"),
    ("predict --ckpt_path {run} --steps 0", "steps"),
    ("--accumulate_grad_batches 0", "accumulate_grad_batches must be above 0"),
    ("--check_val_every_n_epoch 0", "check_val_every_n_epoch must be above 0"),
    ("--val_check_interval 0", "val_check_interval must be above 0"),
    ("--val_check_interval 0.0", "val_check_interval must be above 0"),
]


@pytest.mark.parametrize(("arguments", "names"), LINES)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: str,
    names: str,
    run: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "text.ckpt"
    text.write_text("not a checkpoint")
    monkeypatch.chdir(tmp_path)
    words = arguments.format(text=text, run=run["checkpoint"]).split()
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as exit_:
        main()
    lines = [line for line in capfd.readouterr().err.splitlines() if "Seed set to" not in line]
    assert exit_.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert names in lines[0]
    assert len(lines[0]) < 500
    assert os.listdir(tmp_path) == ["text.ckpt"]


@pytest.mark.parametrize(
    ("said", "options", "names"),
    [
        ("class_names = ['a', 'b']", "--config conditional", "a condition of each of 4 samples"),
        (
            "class_names = ['a', 'b']",
            "--config conditional --model.network.init_args.num_classes 1",
            "num_classes 1 is below the 2 classes of the data",
        ),
        ("pass", "--shape [1,4,4]", "shape (1, 4, 4) of the model is not that of the data, (1, 8"),
        (
            "class_names, condition = ['a', 'b'], torch.rand(8)",
            "--config conditional",
            "the condition must be labels, integers of shape (b), got torch.float32 of shape (4,)",
        ),
        (
            "class_names, condition = ['a', 'b'], torch.zeros(8, 3).long()",
            "--config conditional",
            "the condition must be labels, integers of shape (b), got torch.int64 of shape (4, 3)",
        ),
        (
            "raw_shape = (1, 64)",
            "--model.network.init_args.dims 1",
            "images must be (b, c, h, w), got (4, 1, 64)",
        ),
        (
            "dtype = torch.int16",
            "",
            "images must be bytes from 0 to 255 or floats from 0 to 1, got torch.int16 from 0 to 0",
        ),
        (
            "val_dataloader = lambda self: Batches([{'image': torch.ones(4, 1, 8, 8)}])",
            "",
            "a batch must be a dict of tensors x0 and, if any, condition and index, or a pair of "
            "x0 and condition, as of images and labels; got a dict with image",
        ),
        (
            "val_dataloader = lambda self: Batches([[torch.ones(4, 1, 8, 8)] * 3])",
            "",
            "as of images and labels; got a list",
        ),
    ],
)
def test_data_that_are_not_the_model_s_are_named(
    said: str, options: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    own = f"{OWN}\nBatches = partial(DataLoader, batch_size=None)\nclass Bad(MyData):\n    {said}\n"
    (tmp_path / f"{tmp_path.name}.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    words = ("--data", f"{tmp_path.name}.Bad", *options.split(), "--accelerator", "cpu")
    words += ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--max_steps", 2)
    _, line = error_of(capfd, lambda: call(*words))
    assert names in line
    assert not [*tmp_path.rglob("*.ckpt")]


def test_damaged_data_leave_nothing(call_main, tmp_path: Path, capfd) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    words = ("--data_dir", tmp_path / "data", "--source", "mnist")
    code, line = error_of(capfd, lambda: call_main(*words))
    assert code == 1
    assert str(raw / "train-images-idx3-ubyte") in line
    assert os.listdir(tmp_path) == ["data"]


def test_an_error_is_all_that_a_process_says(run: dict[str, str], train_py) -> None:
    # Refused before sampling.
    result = train_py("predict", "--ckpt_path", run["checkpoint"], "--outdir", "/proc/x", code=1)
    (line,) = [line for line in result.stderr.splitlines() if "error" in line.lower()]
    assert line.startswith("error: ")
    assert "/proc/x" in line
    assert "Traceback" not in result.stderr
    assert "sampling" not in result.stderr
