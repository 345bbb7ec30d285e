"""Digits that are filled in and made larger, on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import call, error_of, last_of

from lightning_ddpm import MNISTDataModule, load_model
from lightning_ddpm.classification import denoising_errors
from lightning_ddpm.judge import restoration_error, table, with_floors

SOURCE = "packaged"  # of which few are judged
NETWORK = ("--model.network.init_args.channels", "[8,16]", "--steps", 3, "--source", SOURCE)
LEARNED = ("--time_sampler", "UniformTimes", "--variance", "learned")
KINDS = ("inpainting", "superresolution")
pytestmark = pytest.mark.usefixtures("features_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short run of each recipe, in folders of their names."""
    folder = tmp_path_factory.mktemp("restoring")
    for kind in KINDS:
        options = ("--max_epochs", 1, "--limit_train_batches", 8, "--limit_val_batches", 1)
        judged = ("--evaluation.every_n_epochs", 1, "--evaluation.num_samples", 8)
        root = ("--trainer.default_root_dir", folder / kind)
        call("--config", kind, *NETWORK, *options, *judged, *root)
    return folder


def predicted(root: Path, out: Path, *options: object) -> dict[str, np.ndarray]:
    """The arrays that predict leaves in ``out``."""
    call("predict", "--ckpt_path", root / last_of(0), "--outdir", out, *options)
    return dict(np.load(out / "samples.npz"))


def held_out(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Test images and their labels, in the order in which they are restored."""
    images, labels = MNISTDataModule(source=SOURCE).load_splits("test")["test"].pair()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:n]
    return images[order, 0], labels[order]


def test_what_is_known_comes_back_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    found = predicted(folder / "inpainting", tmp_path, "--num_samples", 12)
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "images": ((12, 28, 28), "uint8"),
        "known": ((12, 28, 28), "bool"),
        "truth": ((12, 28, 28), "uint8"),
        "labels": ((12,), "int64"),
    }
    images, known, truth = (found[name] for name in ("images", "known", "truth"))
    expected, labels = held_out(12)
    assert (truth == expected.numpy()).all()
    assert (found["labels"] == labels.numpy()).all()
    assert (images == truth)[known].all()
    assert 0.05 < (~known).mean() < 0.6
    assert (images != truth)[~known].mean() > 0.5
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    cell = 4 * 28 + 8  # each pixel is four wide, and so is half of the frame
    assert grid.shape == (3 * cell + 8, 8 * cell + 8, 3)
    blue = (grid == (70, 90, 160)).all(2)
    assert blue.sum() == (~known[:8]).sum() * 16
    assert not blue[cell:].any()


def test_small_images_are_those_of_the_truth(folder: Path, tmp_path: Path) -> None:
    found = predicted(folder / "superresolution", tmp_path, "--num_samples", 5)
    assert set(found) == {"images", "given", "truth", "labels"}
    squares = found["truth"].reshape(5, 7, 4, 7, 4).mean((2, 4), dtype=np.float64)
    assert found["given"].dtype == np.uint8
    assert np.abs(found["given"] - squares).max() <= 0.5 + 1e-4
    assert (found["truth"] == held_out(5)[0].numpy()).all()
    assert found["images"].shape == (5, 28, 28)


def test_samples_do_not_depend_on_batches(folder: Path, tmp_path: Path) -> None:
    # Nor on processes: test_ddp.py.
    root, options = folder / "inpainting", ("--num_samples", 7, "--accelerator", "cpu")
    whole = predicted(root, tmp_path / "whole", *options)
    parts = predicted(root, tmp_path / "parts", *options, "--batch_size", 2)
    assert all((whole[name] == parts[name]).all() for name in ("known", "truth", "labels"))
    assert np.abs(whole["images"].astype(int) - parts["images"]).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_test_judges_the_restored_beside_the_truth_and_a_baseline(
    kind: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--limit_test_batches", 1, "--accelerator", "cpu")
    found = predicted(folder / kind, tmp_path, "--num_samples", 40, "--accelerator", "cpu")
    asked = ("--num_samples", 40, "--outdir", tmp_path / "judged", *options)
    call("test", "--ckpt_path", folder / kind / last_of(0), *asked)
    told = capfd.readouterr().out
    figures = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    unknown = ~found.get("known", np.zeros_like(found["truth"], bool))
    error = np.abs(found["images"].astype(float) - found["truth"])[unknown].mean()
    assert figures["restoration_error"] == pytest.approx(error, rel=1e-3)
    assert figures["restoration_error_floor"] == 0
    assert figures["label_accuracy_floor"] > 0.9
    assert figures["frechet_floor"] < figures["frechet_baseline"]
    assert 0 < figures["restoration_error_baseline"] < error
    assert "bits_per_dim" not in figures  # of a part there is no bound
    line = next(line for line in told.splitlines() if line.startswith("restoration_error"))
    assert line.split()[-1] == "it"  # loses to it
    if kind == "superresolution":
        large = [
            np.asarray(Image.fromarray(small).resize((28, 28), Image.Resampling.BICUBIC))
            for small in found["given"]
        ]
        of_pillow = np.abs(np.stack(large).astype(float) - found["truth"]).mean()
        assert figures["restoration_error_baseline"] == pytest.approx(of_pillow, rel=0.05)


def test_training_shows_and_judges_images_of_the_validation_split(folder: Path) -> None:
    run = folder / "inpainting" / last_of(0).parents[1]
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    assert 0 < events.Scalars("eval/restoration_error")[-1].value < 255
    assert events.Scalars("eval/restoration_error_floor")[-1].value == 0
    (grid,) = run.glob("grids/*.png")
    shown = np.asarray(Image.open(grid))[..., 0]
    assert shown.shape == (6 * 120 + 8, 8 * 120 + 8)
    images = MNISTDataModule(source=SOURCE).load_splits("fit")["val"].x0
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    truth = shown[2 * 120 + 8 : 3 * 120 : 4, 8:120:4]  # of the first, in the third row
    assert (truth == images[order[0], 0].numpy()).all()
    assert {"samples"} < set(events.Tags()["images"])


def test_the_same_weights_sample_where_nothing_is_known(folder: Path) -> None:
    model = load_model(folder / "inpainting" / last_of(0))
    assert type(model.observation).__name__ == "Holes"
    assert model.sample(3, progress=False).shape == (3, 1, 28, 28)


def test_labels_that_are_asked_for_win(tmp_path: Path) -> None:
    root, steps = tmp_path / "told", ("--max_steps", 1, "--limit_val_batches", 0)
    told = (*NETWORK, "--model.network.init_args.num_classes", "null", *steps)
    call("--config", "inpainting", *told, "--trainer.default_root_dir", root)
    own = predicted(root, tmp_path / "own", "--num_samples", 4)
    assert (own["labels"] == held_out(4)[1].numpy()).all()
    other = predicted(root, tmp_path / "other", "--num_samples", 4, "--labels", 7)
    assert (other["labels"] == 7).all()
    assert (other["truth"] == own["truth"]).all()


def test_the_way_to_filled_holes_is_filmed(folder: Path, tmp_path: Path) -> None:
    found = predicted(folder / "inpainting", tmp_path, "--num_samples", 2, "--trajectory")
    with Image.open(tmp_path / "trajectory.gif") as film:
        film.seek(film.n_frames - 1)  # pyright: ignore[reportAttributeAccessIssue]
        last = np.asarray(film.convert("L"))[8:120:4, 8:120:4]
    assert np.abs(last.astype(int) - found["images"][0]).max() <= 2


def test_tools_take_a_model_that_observes(folder: Path, tmp_path: Path) -> None:
    checkpoint = ("--ckpt_path", folder / "inpainting" / last_of(0))
    call("export", tmp_path / "holes.safetensors", *checkpoint)
    assert type(load_model(tmp_path / "holes.safetensors").observation).__name__ == "Holes"
    model = load_model(folder / "inpainting" / last_of(0))
    x0, index = torch.rand(2, 1, 28, 28) * 2 - 1, torch.arange(2)
    assert denoising_errors(model, x0, index, [-1], 3).isfinite().all()
    call("export", tmp_path / "holes.onnx", *checkpoint)
    assert (tmp_path / "holes.onnx").is_file()


def test_errors_of_what_was_known_do_not_count() -> None:
    raw, truth = torch.zeros(2, 3), torch.tensor([[0, 4, 8], [2, 100, 100]])
    unknown = torch.tensor([[True, True, False], [True, False, False]])
    assert restoration_error(raw, truth, unknown).item() == (0 + 4 + 2) / 3


def test_a_figure_that_is_worse_than_the_baseline_loses() -> None:
    figures: dict[str, Any] = {"restoration_error": 3, "label_accuracy": 0.9, "share_of_1": 0.3}
    figures["frechet_distance"] = 0.4
    floors = {"restoration_error": 0, "label_accuracy": 0.85, "share_of_1": 0.1}
    baseline = {"restoration_error": 2.0, "label_accuracy": 0.8, "share_of_1": 0.1}
    floors["frechet_distance"], baseline["frechet_distance"] = 0.1, 0.3
    told = table({"samples": 10.0, **with_floors(figures, floors, baseline)}).splitlines()
    losers = [line.split()[0] for line in told if "loses" in line]
    assert losers == ["restoration_error", "frechet_distance"]
    assert not any("loses" in line for line in table({"samples": 1.0, **figures}).splitlines())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--config", "superresolution", "--factor", 3), "do not divide by factor 3"),
        (("--config", "superresolution", "--factor", 1), "at least 2"),
        (("--config", "inpainting", "--network", "MLP"), "does not fit samples|output channels"),
        (("--config", "inpainting", *LEARNED), "take a fixed one"),
        (("--observation", "Peepholes"), "Holes"),
        (("--config", "base", "--downscale", 5), "must divide 28"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_line(
    options: tuple, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, line = error_of(capfd, lambda: call(*options, "--source", SOURCE))
    assert code == 2
    assert any(part in line for part in why.split("|")), line
