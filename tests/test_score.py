"""Any file of digits is judged, and nothing but digits."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SOURCE
from PIL import Image
from tiny import error_of

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.judge.files import read_samples


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return MNISTDataModule(source=SOURCE).load_splits("test")["test"].x0[:60]


def written(folder: Path, kind: str, images: torch.Tensor) -> Path:
    """The images in one of the ways in which projects leave their samples."""
    unit, array = images.float() / 255, images.numpy()
    path = folder / f"samples.{kind.split()[0]}"
    if kind == "npz uint8":
        np.savez(path, images=array[:, 0], labels=np.arange(60) % 10)
    elif kind == "npz channels last":
        np.savez(path, array.transpose(0, 2, 3, 1))
    elif kind == "npz [-1, 1]":
        np.savez(path, samples=array / 127.5 - 1)
    elif kind == "npy [0, 1]":
        np.save(path, unit.numpy())
    elif kind == "pt [-1, 1]":
        torch.save(unit * 2 - 1, path)
    elif kind == "pt colours":
        torch.save({"images": images.expand(-1, 3, -1, -1), "step": 3}, path)
    elif kind == "pt 32x32":
        torch.save(torch.nn.functional.pad(unit, (2, 2, 2, 2)), path)
    else:
        path.mkdir()
        for i, image in enumerate(array[:, 0]):
            Image.fromarray(image).save(path / f"{i:03d}.png")
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *("npz uint8", "npz channels last", "npz [-1, 1]", "npy [0, 1]", "pt [-1, 1]"),
        *("pt colours", "pt 32x32", "folder"),
    ],
)
def test_samples_are_read_as_they_were_written(
    tmp_path: Path, kind: str, images: torch.Tensor
) -> None:
    read, labels = read_samples(written(tmp_path, kind, images))
    assert torch.equal(read, images)
    assert (labels is not None) == (kind == "npz uint8")


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pt", "npz", "npy"])
def test_code_in_a_file_is_not_run(tmp_path: Path, kind: str) -> None:
    path, trap = tmp_path / f"samples.{kind}", tmp_path / "trap"
    if kind == "pt":
        torch.save({"images": Payload(trap)}, path)
    elif kind == "npz":
        np.savez(path, images=np.array([Payload(trap)], dtype=object))
    else:
        path.write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(ValueError, match=f"samples.{kind}"):
        read_samples(path)
    assert not trap.exists()
    if kind == "pt":  # the trap does work
        torch.load(path, weights_only=False)
        assert trap.exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 28, 28), np.int64), "uint8, or floats"),
        (np.full((4, 28, 28), 2.0), "from 2 to 2"),
        (np.full((4, 28, 28), np.nan), "from nan to nan"),
        (np.zeros((4, 27, 28), np.uint8), "28x28 pixels, got \\(4, 1, 27, 28\\)"),
        (np.zeros(784, np.uint8), "28x28 pixels"),
        (np.zeros((0, 28, 28), np.uint8), "no images"),
        (np.eye(28, dtype=np.uint8)[None], "bytes of 0 and 1, not of 0 to 255"),
    ],
)
def test_what_is_no_digits_is_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "a.npz", images=array)
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path / "a.npz")


def test_labels_must_belong_to_the_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 28, 28), np.uint8), labels=np.zeros(3))
    with pytest.raises(ValueError, match="4 images, but labels of shape \\(3,\\)"):
        read_samples(tmp_path / "a.npz")


def test_what_stands_beside_the_images_is_left_out(tmp_path: Path, images: torch.Tensor) -> None:
    text, numbers = np.array(["seven"] * 60), np.arange(60) % 10
    np.savez(tmp_path / "a.npz", images=images[:, 0].numpy(), text=text, labels=numbers)
    np.savez(tmp_path / "b.npz", images[:, 0].numpy(), numbers)  # as arr_0 and arr_1
    torch.save({"images": images, "config": {"lr": 1}, "labels": None}, tmp_path / "c.pt")
    for name, labelled in (("a.npz", True), ("b.npz", True), ("c.pt", False)):
        read, labels = read_samples(tmp_path / name)
        assert torch.equal(read, images)
        assert (labels.tolist() == numbers.tolist()) if labelled else labels is None


@pytest.mark.parametrize("labels", [[0, 1, 2, 10], [0, 1, 2, -1], [0, 0.5, 1, 2]])
def test_labels_must_be_digits(tmp_path: Path, labels: list[float]) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 28, 28), np.uint8), labels=labels)
    with pytest.raises(ValueError, match=r"a\.npz: labels must be digits from 0 to 9"):
        read_samples(tmp_path / "a.npz")


def test_a_folder_s_pictures_are_read_as_own_images_are(
    tmp_path: Path, images: torch.Tensor
) -> None:
    for i, image in enumerate(images[:4, 0].numpy()):
        picture = Image.fromarray(image)
        clear = Image.new("L", picture.size, 255)
        clear.putpixel((3, 4), 0)
        rgba = Image.merge("RGBA", [picture, picture, picture, clear])
        rgba.save(tmp_path / f"{i}.png")
        (tmp_path / f"._{i}.png").write_text("of macOS")
    read, _ = read_samples(tmp_path)
    assert read[:, 0, 4, 3].tolist() == [255] * 4  # what is transparent becomes white
    read[:, 0, 4, 3] = images[:4, 0, 4, 3]
    assert torch.equal(read, images[:4])


def test_a_little_below_zero_is_still_zero_to_one(tmp_path: Path, images: torch.Tensor) -> None:
    np.savez(tmp_path / "a.npz", images=images.numpy() / 255 - 1e-6)
    assert torch.equal(read_samples(tmp_path / "a.npz")[0], images)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "cut.pt").write_bytes(b"PK\3\4 cut")
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_text("text")
    (tmp_path / "deep").mkdir()
    Image.new("I;16", (28, 28)).save(tmp_path / "deep" / "1.png")
    for name in ("deep/1.png is of mode I;16", "bad/1.png cannot be read"):
        with pytest.raises(ValueError, match=name):
            read_samples(tmp_path / name.split("/")[0])
    for name in ("empty", "text.npz", "cut.pt", "two.npz", "bad", "none.npz", "none.pt"):
        with pytest.raises(ValueError, match=name):
            read_samples(tmp_path / name)


@pytest.mark.usefixtures("features_once")
def test_command_line(
    call_main, tmp_path: Path, images: torch.Tensor, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a folder without MNIST and without a network, the packaged digits are the reference.
    monkeypatch.setattr("lightning_ddpm.data.mnist.download", lambda *_: "there is no network")
    path = written(tmp_path, "npz uint8", images)
    options = ("--data_dir", tmp_path)
    call_main("score", path, "--json", *options)
    figures = json.loads(capfd.readouterr().out)
    keys = {"frechet_distance", "frechet_floor", "kernel_distance", "precision", "recall"}
    assert keys | {"density", "coverage", "near_copies", "label_accuracy"} <= set(figures)
    assert figures["samples"] == 60
    assert figures["frechet_floor"] > 0
    call_main("score", *options, path)
    assert f"frechet_distance{figures['frechet_distance']:20.4f}" in capfd.readouterr().out
    code, line = error_of(capfd, lambda: call_main("score", tmp_path / "none.npz", *options))
    assert (code, line) == (1, f"error: {tmp_path / 'none.npz'}: no such file")
