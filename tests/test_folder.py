"""Own images: a folder of them is trained on with the same command as MNIST."""

import os
import shutil
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
import torch
from own_images import contents, splits, write_images
from PIL import Image

from lightning_ddpm import load_model
from lightning_ddpm.data import DataError, ImageFolderDataModule
from lightning_ddpm.media.images import to_uint8

BRIEF = ("--max_steps", 2, "--limit_val_batches", 1, "--steps", 2, "--accelerator", "cpu")
OWN = ("--data", "ImageFolderDataModule", "--data_dir")


def test_splits_share_the_images_out_and_stay_the_same(tmp_path: Path) -> None:
    write_images(tmp_path, (8, 8), n=60)
    first, again = splits(tmp_path), splits(tmp_path)
    sizes = {name: len(images) for name, images in first.items()}
    assert sum(sizes.values()) == 60
    assert min(sizes["val"], sizes["test"]) >= 2
    assert sizes["train"] > 45
    assert all(torch.equal(first[name], again[name]) for name in first)
    everything = torch.cat([*first.values()]).flatten(1)
    assert len(everything.unique(dim=0)) == 60


@pytest.mark.parametrize("n", [8, 400])
def test_an_image_stays_where_it_is_if_others_are_added(tmp_path: Path, n: int) -> None:
    write_images(tmp_path, (4, 4), n=n)
    trained = contents(splits(tmp_path)["train"])
    for i in range(3):
        color = (i, 7, 9)
        Image.new("RGB", (4, 4), color).save(tmp_path / "cats" / f"0-new{i}.png")
        now = splits(tmp_path)
        assert not contents(now["test"]) & trained
        assert len(now["test"]) >= 2


def test_about_one_in_twenty_are_for_test(tmp_path: Path) -> None:
    write_images(tmp_path, (2, 2), n=2000)
    sizes = {name: len(images) for name, images in splits(tmp_path).items()}
    # Oracle: the binomial distribution, at four standard deviations.
    assert sizes["test"] == pytest.approx(100, abs=4 * (2000 * 0.05 * 0.95) ** 0.5)
    assert sizes["val"] == pytest.approx(100, abs=4 * (2000 * 0.05 * 0.95) ** 0.5)


def test_copies_stay_together(tmp_path: Path) -> None:
    write_images(tmp_path, (4, 4), n=60)
    for path in sorted(tmp_path.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))  # the same pixels
    found = {name: contents(images) for name, images in splits(tmp_path).items()}
    assert sum(map(len, found.values())) == 60
    assert all(not found[a] & found[b] for a, b in (("train", "val"), ("train", "test")))


def test_copies_of_a_few_images_are_shared_out_as_files(tmp_path: Path) -> None:
    for i in range(12):
        Image.new("RGB", (4, 4), ("red", "blue")[i % 2]).save(tmp_path / f"{i}.png")
    assert min(map(len, splits(tmp_path).values())) >= 2


def test_trains_and_samples_with_the_same_command(call_main, tmp_path: Path, capfd) -> None:
    write_images(tmp_path / "own", (16, 12))
    call_main(*OWN, "own", "--batch_size", 4, *BRIEF)
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    model = load_model(checkpoint)
    assert model.shape == (3, 12, 16)
    assert next(tmp_path.rglob("step-000002.png")).is_file()
    call_main("predict", "--ckpt_path", checkpoint, "--num_samples", 5)
    images = np.load(tmp_path / "samples" / "samples.npz")["images"]
    assert images.shape == (5, 3, 12, 16)
    expected = to_uint8(model.sample(5, progress=False)).int().numpy()
    assert np.abs(images.astype(int) - expected).max() <= 1
    call_main("validate", "--ckpt_path", checkpoint, "--limit_val_batches", 1)  # it knows the data
    capfd.readouterr()
    call_main("test", "--ckpt_path", checkpoint, "--limit_test_batches", 1)
    output = capfd.readouterr().out
    assert "bits per dimension: " in output
    assert "floor" not in output  # there is no judge of such images
    assert ImageFolderDataModule("own").judge() is None


def test_every_network_and_the_labels_take_own_images(call_main, tmp_path: Path, capfd) -> None:
    write_images(tmp_path / "own", (8, 8), "L")
    call_main("--network", "MLP", *OWN, "own", "--batch_size", 4, *BRIEF)
    call_main("--config", "conditional", *OWN, "own", "--batch_size", 4, *BRIEF)
    assert "classes:     0 cats, 1 dogs\n" in capfd.readouterr().out
    checkpoint = tmp_path / "lightning_logs" / "version_1" / "checkpoints" / "last.ckpt"
    call_main("predict", "--ckpt_path", checkpoint)
    assert np.load(tmp_path / "samples" / "samples.npz")["labels"].tolist() == [0, 1] * 8


def test_an_image_size_makes_all_images_alike(call_main, tmp_path: Path) -> None:
    write_images(tmp_path / "own" / "a", (30, 20), n=3, suffix="jpg")
    write_images(tmp_path / "own" / "b", (9, 40), n=3)
    call_main(*OWN, "own", "--image_size", 8, "--batch_size", 4, *BRIEF)
    assert load_model(next(tmp_path.rglob("last.ckpt"))).shape == (3, 8, 8)


def test_recipes_take_own_images_in_any_order(call_main, tmp_path: Path) -> None:
    write_images(tmp_path / "own", (8, 8))
    call_main(*OWN, "own", "--config", "learned_variance", "--batch_size", 4, *BRIEF)
    assert load_model(next(tmp_path.rglob("last.ckpt"))).shape == (3, 8, 8)


def test_links_are_followed_and_hidden_files_left_out(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", (8, 8), n=6)
    (tmp_path / "own" / ".hidden").mkdir(parents=True)
    (tmp_path / "own" / "zebras.png").mkdir()
    for name in ("cats", "dogs"):
        (tmp_path / "own" / name).symlink_to(tmp_path / "elsewhere" / name)
    for name in (".hidden/x.png", ".x.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / "own" / name)
    data = ImageFolderDataModule(str(tmp_path / "own"))
    assert [path.name for path in data.paths] == [f"{i:02d}.png" for i in (0, 2, 4, 1, 3, 5)]
    assert data.class_names == ["cats", "dogs"]
    Image.new("RGB", (8, 8)).save(tmp_path / "own" / "alone.png")
    assert ImageFolderDataModule(str(tmp_path / "own")).class_names == [".", "cats", "dogs"]


@pytest.mark.parametrize("links", [1, 2])
def test_a_folder_that_links_lead_to_again_is_taken_once(tmp_path: Path, links: int) -> None:
    write_images(tmp_path / "own", (8, 8))
    (tmp_path / "own" / "latest").symlink_to(".")
    if links == 2:
        (tmp_path / "own" / "a").symlink_to(tmp_path / "own" / "dogs")
    data = ImageFolderDataModule(str(tmp_path / "own"))
    assert len(data.paths) == 12
    assert data.class_names == ["cats", "dogs"]


def test_files_of_other_kinds_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write_images(tmp_path, (8, 8))
    for name in ("notes.txt", "cats/a.heic", "cats/b.heic"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"3 files are left out, of \.heic, \.txt"):
        assert len(ImageFolderDataModule(str(tmp_path)).paths) == 12


def test_numbers_in_names_of_classes_count_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "1", "x9", "x10"):
        write_images(tmp_path / name, (4, 4), n=2)
    assert ImageFolderDataModule(str(tmp_path)).class_names == ["1", "2", "10", "x9", "x10"]


def broken(folder: Path, how: str) -> None:
    """A folder of images with something wrong."""
    write_images(folder, (10, 10) if how == "ten" else (8, 8))
    first = sorted(folder.rglob("*.png"))[0]
    if how == "few":
        for path in sorted(folder.rglob("*.png"))[2:]:
            path.unlink()
    elif how == "cut":
        first.write_bytes(first.read_bytes()[:100])
    elif how == "text":
        first.write_text("not an image")
    elif how == "size":
        Image.new("RGB", (8, 12)).save(folder / "dogs" / "odd.png")
    elif how == "deep":
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "dogs" / "deep.png")


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ("few", "2 images; at least 6"),
        ("cut", "cats/00.png cannot be read"),
        ("text", "cats/00.png cannot be read"),
        ("bomb", "00.png is too large: --image_size scales it"),
        ("size", "odd.png has 8x12 pixels"),
        ("deep", "deep.png is of mode I;16, not of 8 bits"),
        ("ten", "each divisible by 4, got (3, 10, 10)"),
    ],
)
def test_bad_folders_are_one_line(
    how: str, names: str, call_main, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(tmp_path / "own", how)
    if how == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # twice as many are refused by Pillow
    with pytest.raises(SystemExit) as exit_:
        call_main(*OWN, "own", *BRIEF)
    message = capfd.readouterr().err + str(exit_.value.code)
    (line,) = [line for line in message.splitlines() if line.startswith("error: ")]
    assert names in line
    assert not [*tmp_path.rglob("*.ckpt")]


def test_other_bad_input_is_named(call_main, tmp_path: Path, capfd) -> None:
    for words, names in (
        ((*OWN, "nowhere"), "nowhere: no such folder"),
        (OWN[:2], "data_dir"),
        ((*OWN, "x", "--image_size", 0), "image_size must be at least 1"),
    ):
        with pytest.raises(SystemExit) as exit_:
            call_main(*words, *BRIEF)
        assert names in capfd.readouterr().err + str(exit_.value.code)


def test_a_model_of_other_images_is_refused(call_main, tmp_path: Path, capfd) -> None:
    write_images(tmp_path / "own", (16, 16))
    with pytest.raises(SystemExit) as exit_:
        call_main("validate", *OWN, "own")
    message = capfd.readouterr().err + str(exit_.value.code)
    assert "--data lightning_ddpm.ImageFolderDataModule: the weights were trained on" in message


def test_data_error_comes_when_images_are_read(tmp_path: Path) -> None:
    data = ImageFolderDataModule(str(tmp_path))
    with pytest.raises(DataError, match="0 images"):
        data.setup("fit")


def test_what_may_have_been_meant_otherwise_is_said(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_images(tmp_path / part, (8, 8), n=6)
    with pytest.warns(UserWarning, match="test, train are taken for classes"):
        assert ImageFolderDataModule(str(tmp_path)).class_names == ["test", "train"]
    for path in tmp_path.rglob("*.png"):
        Image.open(path).convert("L").convert("RGB").save(path)
    with pytest.warns(UserWarning, match="all images are grey, in files of colour"):
        assert splits(tmp_path)["train"].shape[1] == 3


def test_names_of_folders_that_a_console_lacks(
    call_main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "own", (8, 8), n=8)
    own = os.fsencode(tmp_path / "own")
    os.rename(own + b"/cats", own + "/кошки".encode())
    os.rename(own + b"/dogs", own + b"/d\xf6gs")  # is not UTF-8
    with TextIOWrapper(BytesIO(), encoding="cp1252", write_through=True) as console:
        monkeypatch.setattr("sys.stdout", console)
        call_main("--config", "conditional", *OWN, "own", "--batch_size", 4, *BRIEF)
        monkeypatch.undo()
        told = console.buffer.getvalue()
    assert rb"classes:     0 d\udcf6gs, 1 \u043a\u043e" in told
    shutil.rmtree(own)  # pytest cannot
