"""The command line as people use it: real digits, and what it leaves."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FULL_MNIST, SOURCE
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY, error_of

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule, load_model
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM, DPMSolver


def test_fit_leaves_what_it_says(run: dict[str, str]) -> None:
    grid = np.asarray(Image.open(run["samples"]))
    assert grid.shape == (4 * 122, 4 * 122, 3)
    assert grid.std() > 10
    assert Path(run["checkpoint"]).is_file()
    assert run["more digits"] == f"python train.py predict --ckpt_path {run['checkpoint']}"
    assert Path(run["curves"].removeprefix("tensorboard --logdir ")).is_dir()
    assert os.listdir(run["folder"]) == ["lightning_logs"]


def test_fit_says_nothing_of_curves_that_are_elsewhere(
    call_main, capfd: pytest.CaptureFixture[str]
) -> None:
    call_main(*TINY, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs")
    assert "curves:" not in capfd.readouterr().out


def test_checkpoint_reloads_without_arguments(run: dict[str, str]) -> None:
    module = DiffusionLightningModule.load_from_checkpoint(run["checkpoint"], weights_only=True)
    assert module.model.network.hidden == 16
    assert (module.model.sampler.steps, module.lr) == (3, 0.005)
    assert module.model.sample(2).shape == (2, 1, 28, 28)


def test_predict_needs_the_checkpoint_only(run: dict[str, str], call_main, tmp_path: Path) -> None:
    call_main("predict", "--ckpt_path", run["checkpoint"])
    images = np.load(tmp_path / "samples" / "samples.npz")["images"]
    assert images.shape == (16, 28, 28)
    assert images.dtype == np.uint8
    expected = ((load_model(run["checkpoint"]).sample(16)[:, 0] + 1) * 127.5).round().numpy()
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
    for name, sampler in (("DDIM", DDIM(20)), ("DPMSolver", DPMSolver(20, eta=1.0))):
        words = ("--num_samples", 4, "--precision", "32-true")
        call_main("predict", "--sampler", name, "--steps", 20, *words)
        images = np.load(tmp_path / "samples" / "samples.npz")["images"].astype(int)
        expected = load_model().sample(4, sampler=sampler, progress=False)
        expected = ((expected[:, 0] + 1) * 127.5).round().numpy()
        assert np.abs(images - expected).max() <= 1


@pytest.mark.usefixtures("features_once")
@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_evaluation(run: dict[str, str], call_main, tmp_path: Path, subcommand: str) -> None:
    options = ("--source", "packaged", "--batch_size", 77)
    options += ("--num_samples", 6) if subcommand == "test" else ()
    call_main(subcommand, "--ckpt_path", run["checkpoint"], *options)
    split = {"validate": "val", "test": "test"}[subcommand]
    events = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0"))
    (logged,) = events.Reload().Scalars(f"{split}/loss")
    # Oracle: all images at once, without Lightning.
    data = MNISTDataModule(source="packaged")
    data.setup(subcommand)
    images = data.splits[split].x0
    with torch.no_grad():
        noise = SampleNoise(0, range(len(images)))
        loss = load_model(run["checkpoint"]).loss({"x0": images}, noise)
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
    model = load_model(checkpoint)
    assert model.guidance is None  # the scale that is usual: 2
    expected = to_uint8(model.sample(6, condition=[7, 0, 1], guidance=1, progress=False))
    assert np.abs(several["images"].astype(int) - expected[:, 0].int().numpy()).max() <= 1
    code, line = error_of(capfd, lambda: predict("--labels", 12))
    assert (code, line) == (2, "error: labels must be from 0 to 9, got [12]")


def test_training_can_be_continued(run: dict[str, str], call_main, capfd) -> None:
    call_main("--ckpt_path", run["checkpoint"], *TINY, "--max_steps", 6)
    lines = capfd.readouterr().out.splitlines()
    samples = next(line for line in lines if line.startswith("samples:"))
    assert samples.endswith("step-000006.png")


@pytest.mark.skipif(FULL_MNIST is None, reason="LIGHTNING_DDPM_DATA does not name full MNIST")
def test_environment_names_the_data(run: dict[str, str]) -> None:
    hparams = (Path(run["checkpoint"]).parent.parent / "hparams.yaml").read_text()
    assert "source_used: mnist" in hparams
