"""Two real processes, talking over gloo."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SOURCE
from lightning import Trainer

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.metrics import Judge


def fit(folder: Path, processes: int) -> Path:
    script = Path(__file__).parent / "ddp_fit.py"
    command = [sys.executable, script, folder, SOURCE, processes]
    subprocess.run(list(map(str, command)), check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("ddp"), 2)


def notes_of(folder: Path, rank: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"rank{rank}.pt", weights_only=True)


def test_processes_share_the_images_and_agree_on_the_weights(folder: Path) -> None:
    a, b = notes_of(folder, 0), notes_of(folder, 1)
    assert a["index"].shape == b["index"].shape == (20, 50)
    assert not set(a["index"].flatten().tolist()) & set(b["index"].flatten().tolist())
    assert torch.equal(a["weights"], b["weights"])
    assert not torch.equal(a["t"], b["t"])
    assert len(list((folder / "grids").iterdir())) == 1


def test_two_processes_train_as_one_with_twice_the_batch(folder: Path, tmp_path: Path) -> None:
    both, alone = [notes_of(folder, rank) for rank in (0, 1)], notes_of(fit(tmp_path, 1), 0)
    for name in ("index", "t", "loss_of_each"):  # process r has every second image, from image r on
        together = torch.stack([note[name] for note in both], -1).flatten(-2)
        torch.testing.assert_close(together, alone[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[0]["weights"], alone["weights"], rtol=1e-4, atol=1e-6)


def test_two_processes_validate_as_one_does(folder: Path) -> None:
    model = DiffusionLightningModule.load_from_checkpoint(folder / "last.ckpt", weights_only=True)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=folder)
    (alone,) = trainer.validate(model, MNISTDataModule(source=SOURCE, batch_size=128))
    for rank in (0, 1):
        assert notes_of(folder, rank)["val_loss"].item() == pytest.approx(
            alone["val/loss"], rel=1e-5
        )


def test_two_processes_predict_as_one_does(folder: Path, train_py, tmp_path: Path) -> None:
    def predict(out: str, *options: object) -> np.ndarray:
        arguments = ("--ckpt_path", folder / "last.ckpt", "--num_samples", 7, "--batch_size", 2)
        train_py("predict", *arguments, "--accelerator", "cpu", "--outdir", out, *options)
        return np.load(tmp_path / out / "samples.npz")["images"].astype(int)

    one, two = predict("one"), predict("two", "--devices", 2)
    assert one.shape == two.shape == (7, 28, 28)
    assert np.abs(one - two).max() <= 1


def test_two_processes_judge_as_one_does(tmp_path: Path) -> None:
    script = Path(__file__).parent / "ddp_judge.py"
    processes = [
        subprocess.Popen([sys.executable, str(script), str(tmp_path), str(rank)]) for rank in (0, 1)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    data = MNISTDataModule(source="packaged")
    test = data.load_splits("test")["test"]
    alone = Judge(data.load_splits("fit")["train"]).score(test.images[:101], test.labels[:101])
    for rank in (0, 1):
        figures = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert figures == pytest.approx(alone, rel=1e-4, abs=1e-6)
