"""Weights go on only as what they were trained as, on the same data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_mnist_files import write_idx_files
from tiny import TINY, built_by, call, error_of, last_of

from lightning_ddpm.checkpoints import read_saved

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_weights_do_not_go_on_as_something_else(run: dict[str, str], capfd) -> None:
    before = Path(run["checkpoint"]).read_bytes()
    words = (*TINY, "--trainer.default_root_dir", run["folder"], "--resume", "--max_steps", 9)
    code, line = error_of(capfd, lambda: call(*words, "--target", "DataTarget"))
    assert code == 2
    assert line.startswith("error: --target: the weights were trained with ")
    code, line = error_of(capfd, lambda: call(*words, "--config", "paper", "--network", "MLP"))
    assert code == 2
    assert Path(run["checkpoint"]).read_bytes() == before


def test_what_else_has_changed_is_said(run: dict[str, str], capfd) -> None:
    words = (*TINY, "--ckpt_path", run["checkpoint"], "--max_steps", 5, "--lr", "1e-4")
    call(*words, "--weighting", "MinSNRWeighting")
    changed = [line for line in capfd.readouterr().out.splitlines() if line.startswith("changed:")]
    assert changed == [
        "changed:     weighting MinSNRWeighting(gamma=5.0) in place of UniformWeighting()",
        "changed:     lr 0.0001 in place of 0.005",
    ]


def test_the_checkpoint_s_data_are_taken_and_others_refused(capfd) -> None:
    brief = ("--network", "MLP", "--steps", 2, "--max_steps", 1, "--limit_val_batches", 1)
    for name in ("FashionMNIST", "MNIST"):
        write_idx_files(Path("data", name, "raw"))
    call(*brief, "--data_dir", "data", "--dataset", "FashionMNIST")
    for words in (("--resume", *brief), ("test", "--ckpt_path", last_of(0))):
        assert built_by(*words).datamodule.dataset == "FashionMNIST"
        code, line = error_of(capfd, lambda words=words: call(*words, "--dataset", "MNIST"))
        assert code == 2
        assert line == "error: --data MNIST: the weights were trained on FashionMNIST"


def test_classes_of_other_names_are_refused(capfd) -> None:
    for name in ("cats", "dogs"):
        Path("own", name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(Path("own", name, f"{i}.png"))
    words = ("--config", "conditional", "--data", "ImageFolderDataModule", "--data_dir", "own")
    words += ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--batch_size", 4)
    call(*words, "--max_steps", 1, "--limit_val_batches", 1)
    assert list(read_saved(last_of(0)).class_names) == ["cats", "dogs"]
    call("predict", "--ckpt_path", last_of(0), "--labels", "dogs", "--num_samples", 2)
    assert np.load("samples/samples.npz")["labels"].tolist() == [1, 1]
    assert "classes:     0 cats, 1 dogs" in capfd.readouterr().out
    Path("own/cats").rename("own/eels")
    for command in (("test",), ("fit", "--max_steps", 2)):
        code, line = error_of(
            capfd, lambda command=command: call(*command, "--ckpt_path", last_of(0))
        )
        assert code == 2
        assert line == "error: --data has the classes dogs, eels, the weights know cats, dogs"
