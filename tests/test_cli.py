"""The command line as people use it: real processes, real digits."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import FULL_MNIST, ROOT, SOURCE
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule, load_model
from lightning_ddpm.cli import main
from lightning_ddpm.flags import CONFIGS, expand
from lightning_ddpm.samplers import DDIM, DPMSolver

TINY = (
    *("--network", "MLP", "--model.network.init_args.hidden", 16, "--steps", 3),
    *("--source", SOURCE, "--max_steps", 4, "--limit_val_batches", 2),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A short ``python train.py``: the lines it prints at its end, and ``folder``."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, ROOT / "train.py", *TINY, "--lr", "0.005", "--seed=3"]
    output = subprocess.check_output(list(map(str, command)), cwd=folder, text=True)
    lines = [line.split(":", 1) for line in output.splitlines() if ":" in line]
    return {"folder": str(folder)} | {name: value.strip() for name, value in lines}


def test_fit_leaves_what_it_says(run: dict[str, str]) -> None:
    grid = np.asarray(Image.open(run["samples"]))
    assert grid.shape == (4 * 122, 4 * 122, 3)
    assert grid.std() > 10
    assert Path(run["checkpoint"]).is_file()
    assert run["more digits"].endswith(f"predict --ckpt_path {run['checkpoint']}")
    assert Path(run["curves"].removeprefix("tensorboard --logdir ")).is_dir()
    assert os.listdir(run["folder"]) == ["lightning_logs"]


def test_fit_says_nothing_of_curves_that_are_elsewhere(
    call_main, capfd: pytest.CaptureFixture[str]
) -> None:
    call_main(*TINY, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs")
    assert "curves:" not in capfd.readouterr().out


def test_checkpoint_reloads_without_arguments(run: dict[str, str]) -> None:
    model = DiffusionLightningModule.load_from_checkpoint(run["checkpoint"], weights_only=True)
    assert model.network.hidden == 16
    assert (model.sampler.steps, model.lr) == (3, 0.005)
    assert model.sample(2).shape == (2, 1, 28, 28)


def test_predict_needs_the_checkpoint_only(run: dict[str, str], train_py, tmp_path: Path) -> None:
    train_py("predict", "--ckpt_path", run["checkpoint"])
    images = np.load(tmp_path / "samples" / "samples.npz")["images"]
    assert images.shape == (16, 28, 28)
    assert images.dtype == np.uint8
    model = DiffusionLightningModule.load_from_checkpoint(run["checkpoint"])
    expected = ((model.sample(16, seed=0)[:, 0] + 1) * 127.5).round().numpy()
    assert np.abs(images - expected).max() <= 1
    assert os.listdir(tmp_path) == ["samples"]


def test_predict_options(run: dict[str, str], call_main, tmp_path: Path) -> None:
    def predict(out: str, *options: object) -> np.ndarray:
        call_main("predict", "--ckpt_path", run["checkpoint"], "--outdir", out, *options)
        return np.load(tmp_path / out / "samples.npz")["images"].astype(int)

    many = predict("many", "--num_samples", 10, "--batch_size", 4, "--seed", 5, "--png")
    assert len(many) == 10
    files = sorted((tmp_path / "many" / "png").iterdir())
    assert [file.name for file in files] == [f"{i:05d}.png" for i in range(10)]
    assert np.array_equal(np.asarray(Image.open(files[7])), many[7])
    few = predict("few", "--num_samples", 3, "--seed", 5)
    assert np.abs(many[:3] - few).max() <= 1  # whatever the number and the batch
    other = predict("other", "--num_samples", 3, "--seed", 6)
    more_steps = predict("more", "--num_samples", 3, "--seed", 5, "--steps", 7)
    assert np.abs(other - few).max() > 50
    assert np.abs(more_steps - few).max() > 50


def test_another_sampler_is_as_in_python(call_main, tmp_path: Path) -> None:
    for name, sampler in (("DDIM", DDIM(20)), ("DPMSolver", DPMSolver(20, sde=1.0))):
        call_main("predict", "--sampler", name, "--steps", 20, "--precision", "32-true")
        images = np.load(tmp_path / "samples" / "samples.npz")["images"].astype(int)
        expected = load_model().sample(16, sampler=sampler, progress=False)
        expected = ((expected[:, 0] + 1) * 127.5).round().numpy()
        assert np.abs(images - expected).max() <= 1


@pytest.mark.parametrize(("written", "batches"), [("1", 1), ("1.0", 8), ("0.5", 4), ("3", 3)])
def test_a_limit_of_one_is_one_batch(
    written: str, batches: int, run: dict[str, str], call_main, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Lightning alone makes 1.0 of 1, which is all of the 500 images.
    seen = []
    step = DiffusionLightningModule.validation_step
    monkeypatch.setattr(
        DiffusionLightningModule,
        "validation_step",
        lambda self, batch, i: (seen.append(i), step(self, batch, i))[1],
    )
    options = ("--source", "packaged", "--batch_size", 64, "--limit_val_batches", written)
    call_main("validate", "--ckpt_path", run["checkpoint"], *options)
    assert seen == [*range(batches)]


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_evaluation(run: dict[str, str], train_py, tmp_path: Path, subcommand: str) -> None:
    options = ("--source", "packaged", "--batch_size", 77)
    options += ("--num_samples", 6) if subcommand == "test" else ()
    train_py(subcommand, "--ckpt_path", run["checkpoint"], *options)
    name = {"validate": "val/loss", "test": "test/loss"}[subcommand]
    events = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0"))
    (logged,) = events.Reload().Scalars(name)
    # Oracle: all images at once, without Lightning.
    data = MNISTDataModule(source="packaged")
    data.setup(subcommand)
    images = data.splits[name.split("/")[0]].images.float() / 127.5 - 1
    model = DiffusionLightningModule.load_from_checkpoint(run["checkpoint"])
    with torch.no_grad():
        loss = model.evaluation_loss({"image": images, "index": torch.arange(len(images))})
    assert logged.value == pytest.approx(loss.mean().item(), rel=1e-5)
    if subcommand == "test":
        figures = {tag: events.Scalars(f"test/{tag}")[0].value for tag in ("L_T", "L_t", "L_0")}
        total = events.Scalars("test/bits_per_dim")[0].value
        assert total == pytest.approx(sum(figures.values()), rel=1e-5)
        terms = events.Scalars("test/L_t over t")
        assert [term.step for term in terms][:3] == [0, 1, 2]
        assert terms[0].value == pytest.approx(figures["L_0"], rel=1e-4)
        assert sum(t.value for t in terms[1:]) == pytest.approx(figures["L_t"], rel=0.05)
        assert 0 < events.Scalars("test/bits_per_dim_ci95")[0].value < 0.1 * total


def test_predict_shows_the_labels_that_are_asked_for(call_main, tmp_path: Path, capfd) -> None:
    options = ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--source", SOURCE)
    call_main("--config", "conditional", *options, "--max_steps", 2, "--limit_val_batches", 1)
    checkpoint = next(tmp_path.rglob("last.ckpt"))

    def predict(*options: object) -> dict[str, np.ndarray]:
        options = ("--ckpt_path", checkpoint, "--num_samples", 6, "--batch_size", 4, *options)
        call_main("predict", *options)
        return dict(np.load(tmp_path / "samples" / "samples.npz"))

    assert predict()["labels"].tolist() == [0, 1, 2, 3, 4, 5]
    seven = predict("--labels", 7)
    assert seven["labels"].tolist() == [7] * 6
    several = predict("--labels", "7,0,1", "--guidance", 1)
    assert several["labels"].tolist() == [7, 0, 1, 7, 0, 1]
    model = DiffusionLightningModule.load_from_checkpoint(checkpoint, weights_only=True)
    assert model.guidance is None  # the scale that is usual: 2
    expected = model.sample(6, labels=[7, 0, 1], guidance=1, progress=False)
    expected = ((expected[:, 0] + 1) * 127.5).round().numpy()
    assert np.abs(several["images"] - expected).max() <= 1
    with pytest.raises(SystemExit):
        predict("--labels", 12)
    assert "error: labels must be from 0 to 9, got [12]" in capfd.readouterr().err


def test_flags_win_over_checkpoint_and_checkpoint_over_defaults(
    run: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    monkeypatch.setattr(
        "lightning_ddpm.cli.CLI._run_subcommand", lambda cli, _: seen.update(vars(cli))
    )
    monkeypatch.setattr(sys, "argv", ["train.py", "predict", "--ckpt_path", run["checkpoint"]])
    main()
    assert (seen["model"].sampler.steps, seen["model"].lr) == (3, 0.005)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--steps", "9"])
    main()
    assert (seen["model"].sampler.steps, seen["model"].lr) == (9, 0.005)
    assert seen["model"].network.hidden == 16


def test_training_can_be_continued(run: dict[str, str], train_py) -> None:
    lines = train_py("--ckpt_path", run["checkpoint"], *TINY, "--max_steps", 6).stdout.splitlines()
    samples = next(line for line in lines if line.startswith("samples:"))
    assert samples.endswith("step-000006.png")


@pytest.mark.parametrize("recipe", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_runs(recipe: Path, call_main) -> None:
    call_main("--config", recipe.stem, "--source", SOURCE, "--fast_dev_run", "true", "--steps", 2)


def test_paper_recipe_is_the_python_default() -> None:
    recipes = [yaml.safe_load((CONFIGS / f"{n}.yaml").read_text()) for n in ("default", "paper")]
    recipe = recipes[0]["model"] | recipes[1]["model"]
    model = DiffusionLightningModule()
    for name in ("network", "schedule", "target", "weighting", "time_sampler", "sampler"):
        assert recipe[name]["class_path"].split(".")[-1] == type(getattr(model, name)).__name__


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("", "fit"),
        ("--accelerator gpu", "fit --trainer.accelerator gpu"),
        ("fit --lr 1e-3 --batch_size=256", "fit --model.lr 1e-3 --data.init_args.batch_size=256"),
        ("--max_epochs 5", "fit --trainer.max_epochs 5"),
        ("--max_steps 5", "fit --trainer.max_epochs=-1 --trainer.max_steps 5"),
        ("--max_steps=5 --max_epochs 2", "fit --trainer.max_steps=5 --trainer.max_epochs 2"),
        ("--config mlp", f"fit --config {CONFIGS / 'mlp.yaml'}"),
        ("--config=mlp", f"fit --config={CONFIGS / 'mlp.yaml'}"),
        ("-c my/mlp.yaml", "fit -c my/mlp.yaml"),
        ("predict --seed 3 --png", "predict --seed_everything 3 --samples.png=true"),
        ("predict --png false", "predict --samples.png false"),
        ("predict --png --outdir x", "predict --samples.png=true --samples.outdir x"),
        ("--steps 20", "fit --model.sampler.init_args.steps 20"),
        ("fit --trainer.max_epochs 5", "fit --trainer.max_epochs 5"),
        ("--help", "--help"),
        ("predict --labels 7", "predict --model.labels [7]"),
        ("predict --labels=0,1,2", "predict --model.labels=[0,1,2]"),
        ("predict --labels [0,1] --guidance 2", "predict --model.labels [0,1] --model.guidance 2"),
        ("bogus --lr 1", "bogus --model.lr 1"),
    ],
)
def test_short_command_lines(short: str, full: str) -> None:
    assert expand(short.split()) == full.split()
    assert expand(full.split()) == full.split()  # DDP's processes expand once more


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("--batch_size 0", "batch_size"),
        ("--batch_size many", "batch_size"),
        ("--max_epoch 3", "max_epoch"),
        ("--trainer.max_epoch 3", "max_epoch"),
        ("--bogus 3", "bogus"),
        ("bogus", "bogus"),
        (f"--devices {(os.cpu_count() or 1) + 1}", "devices"),
        ("--precision 16-true", "16-true"),
        ("--precision bf16-true", "16-true"),
        ("--precision 64-true", "64-true"),
        ("--accelerator tpu", "torch_xla"),
        ("--precision 3", "precision"),
        ("--accelerator warp", "warp"),
        ("--lr -1", "lr"),
        ("--lr fast", "lr"),
        ("--steps 1001", "steps"),
        ("--ema.decay 2", "decay"),
        ("--source moon", "source"),
        ("--config moon", "moon"),
        ("--network Moon", "--model.network Moon: expected MLP, UNet, or module.Class"),
        ("--sampler ddim", "expected Ancestral, DDIM, DPMSolver, Heun, or module.Class"),
        ("--network moon.Missing", "No module named 'moon'"),
        ("--sampler toys.Missing", "toys.Missing"),
        ("--ckpt_path moon.ckpt", "moon.ckpt"),
        ("--ckpt_path {text}", "text.ckpt"),
        ("--config {text}", "config"),
        ("--network MLP --model.network.init_args.time_dim 3", "even width, got 3"),
        ("--model.network.init_args.channels [0,24]", "channels"),
        ("--model.network.init_args.channels []", "channels"),
        ("--image_shape [1,30,30]", "image_shape"),
        ("--image_shape [3,28,28]", "image_shape"),
        ("--trainer.default_root_dir {text}", "text.ckpt"),
        ("--trainer.default_root_dir /proc/nowhere", "/proc/nowhere"),
        ("predict --ckpt_path moon.safetensors", "moon.safetensors: no such file"),
        ("predict --network MLP", "MLP"),
        ("predict --config paper", "the weights were trained with"),
        ("validate --ckpt_path {run} --target DataTarget", "--target: the weights were trained"),
        ("test --ckpt_path {run} --model.schedule.init_args.offset 0.1", "--schedule"),
        ("--network null --image_shape [3,28,28]", "UNet"),
        ("--data Moon", "Moon"),
        ("--data MNISTDataModule --image_size 8", "image_size"),
        ("predict --ckpt_path {run} --num_samples -1", "num_samples"),
        ("predict --ckpt_path {run} --seed -1", "seed"),
        ("predict --ckpt_path {run} --labels 12", "labels"),
        ("predict --ckpt_path {run} --labels seven", "labels seven: expected"),
        ("predict --ckpt_path {run} --guidance 2", "guidance"),
        ("predict --ckpt_path {run} --sampler DDIM --model.sampler.init_args.eta 2", "eta"),
        ("--variance learned --model.network.init_args.out_channels 3", "out_channels"),
        ("--variance huge", "variance"),
        ("--config paper --schedule ZeroTerminalSNR", "VelocityTarget"),
        ("--weighting MinSNRWeighting --model.weighting.init_args.gamma 0", "gamma"),
        ("predict --ckpt_path {text}", "text.ckpt"),
        ("predict --ckpt_path {run} --network UNet", "UNet"),
        ("--ckpt_path {run} --network MLP --model.network.init_args.hidden 17", "MLP"),
        ("--model.network.init_args.bla 3", "bla"),
        ("--network MLP --model.network.init_args.hidden x", "hidden x: expected int"),
        ("--steps x", "steps x: expected int"),
        ("predict --ckpt_path {run} --num_samples 1 --devices 2", "num_samples"),
        ("predict --ckpt_path {run} --steps 0", "steps"),
    ],
)
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


def test_damaged_data_is_one_line_and_leaves_nothing(train_py, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    result = train_py("--data_dir", tmp_path / "data", "--source", "mnist", code=1)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert str(raw / "train-images-idx3-ubyte") in errors[0]
    assert "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == ["data"]


def test_unwritable_out_is_refused_before_sampling(run: dict[str, str], train_py) -> None:
    result = train_py("predict", "--ckpt_path", run["checkpoint"], "--outdir", "/proc/x", code=1)
    assert "error: " in result.stderr
    assert "/proc/x" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(FULL_MNIST is None, reason="LIGHTNING_DDPM_DATA does not name full MNIST")
def test_environment_names_the_data(run: dict[str, str]) -> None:
    hparams = (Path(run["checkpoint"]).parent.parent / "hparams.yaml").read_text()
    assert "source_used: mnist" in hparams
