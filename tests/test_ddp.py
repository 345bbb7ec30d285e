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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    script = Path(__file__).parent / "ddp_fit.py"
    subprocess.run([sys.executable, str(script), str(folder), SOURCE], check=True, timeout=300)
    return folder


def test_processes_share_the_images_and_agree_on_the_weights(folder: Path) -> None:
    a, b = (torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert len(a["index"]) == len(b["index"]) == 20 * 50
    assert not set(a["index"].tolist()) & set(b["index"].tolist())
    assert torch.equal(a["weights"], b["weights"])
    assert not torch.equal(a["noise"], b["noise"])
    assert len(list((folder / "grids").iterdir())) == 1


def test_two_processes_validate_as_one_does(folder: Path) -> None:
    notes = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    model = DiffusionLightningModule.load_from_checkpoint(folder / "last.ckpt", weights_only=True)
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=folder)
    (alone,) = trainer.validate(model, MNISTDataModule(source=SOURCE, batch_size=128))
    for note in notes:
        assert note["val_loss"].item() == pytest.approx(alone["val/loss"], rel=1e-5)


def test_two_processes_predict_as_one_does(folder: Path, train_py, tmp_path: Path) -> None:
    def predict(out: str, *options: object) -> np.ndarray:
        arguments = ("--ckpt_path", folder / "last.ckpt", "--num_samples", 7, "--batch_size", 2)
        train_py("predict", *arguments, "--accelerator", "cpu", "--out", out, *options)
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
