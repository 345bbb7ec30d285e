"""Two real processes, talking over gloo."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import changed
import ddp_fit
import numpy as np
import pytest
import torch
from changed import Fit, check
from conftest import SOURCE
from fits import trainer

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule

CUTS = (14, 20)  # batches: in the second epoch, and at its end


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Fit, Path]]:
    """Runs of one process that were stopped."""
    folder = tmp_path_factory.mktemp("cuts")
    return [changed.fit(folder / str(cut), stop=cut) for cut in CUTS]


@pytest.fixture(scope="module")
def folder(cuts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two processes: a run of their own, and runs that go on from what one has saved."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, ddp_fit.__file__, folder, SOURCE, *(path for _, path in cuts)]
    subprocess.run([*map(str, command)], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The notes of a run of one process, this one."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    ddp_fit.fit(folder, SOURCE, processes=1)
    torch.set_num_threads(threads)
    return notes_of(folder, 0) | {"folder": folder, "losses": losses_of(folder, 0)}


def notes_of(folder: Path, rank: int) -> dict[str, Any]:
    return torch.load(folder / f"rank{rank}.pt", weights_only=True)


def losses_of(folder: Path, rank: int) -> dict[str, float]:
    return torch.load(folder / f"losses{rank}.pt", weights_only=True)


def test_processes_share_the_images_and_agree_on_the_weights(folder: Path) -> None:
    a, b = notes_of(folder, 0), notes_of(folder, 1)
    assert a["index"].shape == b["index"].shape == (20, 50)
    assert not set(a["index"].flatten().tolist()) & set(b["index"].flatten().tolist())
    assert torch.equal(a["weights"], b["weights"])
    assert not torch.equal(a["t"], b["t"])
    assert len(list((folder / "grids").iterdir())) == 1


def test_two_processes_train_as_one_with_twice_the_batch(folder: Path, alone) -> None:
    both = [notes_of(folder, rank) for rank in (0, 1)]
    for name in ("index", "t", "loss_of_each"):  # process r has every second image, from image r on
        together = torch.stack([note[name] for note in both], -1).flatten(-2)
        torch.testing.assert_close(together, alone[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[0]["weights"], alone["weights"], rtol=1e-4, atol=1e-6)


def test_two_processes_validate_as_one_does(folder: Path) -> None:
    module = DiffusionLightningModule.load_from_checkpoint(folder / "last.ckpt", weights_only=True)
    data = MNISTDataModule(source=SOURCE, batch_size=128)
    (logged,) = trainer(folder).validate(module, data, verbose=False)
    for rank in (0, 1):
        assert notes_of(folder, rank)["val_loss"].item() == pytest.approx(
            logged["val/loss"], rel=1e-5
        )


def test_each_sample_counts_once_whatever_the_number_of_processes(folder: Path, alone) -> None:
    assert len(alone["losses"]) == 1 + len(ddp_fit.SIZES)
    own = alone["losses"].pop("own")  # a loader of one's own is padded by Lightning
    for rank in (0, 1):
        losses = losses_of(folder, rank)
        assert losses.pop("own") == pytest.approx(own, rel=1e-4)
        assert losses == pytest.approx(alone["losses"], rel=1e-6)


def test_two_processes_judge_as_one_does(folder: Path, alone) -> None:
    assert alone["figures"]["label_accuracy"] > 0.95
    for rank in (0, 1):
        figures = notes_of(folder, rank)["figures"]
        assert figures == pytest.approx(alone["figures"], rel=1e-4, abs=1e-6)


def test_two_processes_predict_as_one_does(folder: Path, alone) -> None:
    # Also where Lightning would give each of them all samples.
    images = [
        np.load(of / f"samples-{sampler}" / "samples.npz")["images"].astype(int)
        for of in (alone["folder"], folder)
        for sampler in (True, False)
    ]
    assert images[0].shape == (7, 28, 28)
    for other in images[1:]:
        assert other.shape == images[0].shape
        assert np.abs(images[0] - other).max() <= 1


def test_two_processes_fill_holes_as_one_does(folder: Path, alone) -> None:
    one, two = (dict(np.load(of / "filled/samples.npz")) for of in (alone["folder"], folder))
    images = [samples.pop("images").astype(int) for samples in (one, two)]
    assert set(one) == {"known", "truth", "labels"}
    assert all((one[name] == two[name]).all() for name in one)
    assert np.abs(images[0] - images[1]).max() <= 1


def fits_of(folder: Path, name: str) -> list[Any]:
    """What both processes have noted of a fit of changed.py."""
    files = [folder / f"{name}-{rank}.pt" for rank in (0, 1)]
    return [SimpleNamespace(**torch.load(file, weights_only=False)) for file in files]


@pytest.mark.parametrize("number", range(len(CUTS)))
def test_two_processes_go_on_where_one_was(number: int, cuts, folder: Path) -> None:
    check([cuts[number][0]], fits_of(folder, f"to{number}"), 3)


def test_two_processes_go_on_within_an_accumulation(folder: Path) -> None:
    both = fits_of(folder, "within")
    whole, resumed = (
        torch.load(path, weights_only=True)["current_model_state"]
        for path in (both[0].whole, both[0].resumed)
    )
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=1e-5, atol=1e-7)
    assert all(note.mean == [0.5, None] for note in both)  # of one of two, and of none


@pytest.mark.parametrize("stop", [7, 10])
def test_one_process_goes_on_where_two_were(stop: int, folder: Path, tmp_path: Path) -> None:
    before = fits_of(folder, f"from{stop}")
    after, _ = changed.fit(tmp_path, Path(before[0].path), batch_size=15)
    check(before, [after], 3)
