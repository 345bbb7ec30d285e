"""Own images: a folder of them is trained on with the same command as MNIST."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lightning_ddpm import load_model
from lightning_ddpm.data import DataError, ImageFolderDataModule
from lightning_ddpm.media.images import to_uint8

BRIEF = ("--max_steps", 2, "--limit_val_batches", 1, "--steps", 2, "--accelerator", "cpu")
OWN = ("--data", "ImageFolderDataModule", "--data_dir")


def write_images(
    folder: Path, size: tuple[int, int], mode: str = "RGB", n: int = 12, suffix: str = "png"
) -> None:
    """Random images of (width, height), in two classes."""
    draw = np.random.default_rng(0)
    for i in range(n):
        path = folder / ("cats", "dogs")[i % 2] / f"{i:02d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)


def splits(folder: Path, **options: object) -> dict[str, torch.Tensor]:
    data = ImageFolderDataModule(str(folder), **options)
    found = data.load_splits("fit") | data.load_splits("test")
    return {name: split.x0 for name, split in found.items()}


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("P", 3), ("RGBA", 3)])
def test_pixels_and_classes_are_those_of_the_files(
    tmp_path: Path, mode: str, channels: int
) -> None:
    write_images(tmp_path, (16, 12), mode)
    data = ImageFolderDataModule(str(tmp_path))
    assert data.raw_shape == (channels, 12, 16)
    found = {}
    for split in (data.load_splits("fit") | data.load_splits("test")).values():
        for image, label in zip(split.x0, split.condition, strict=True):
            found[image.numpy().tobytes()] = int(label)
    # Oracle: another reader, numpy by way of PIL's own conversion.
    expected = {}
    for path in tmp_path.rglob("*.png"):
        pixels = np.asarray(Image.open(path).convert("L" if channels == 1 else "RGB"))
        pixels = pixels.reshape(12, 16, channels).transpose(2, 0, 1)
        expected[pixels.tobytes()] = ["cats", "dogs"].index(path.parent.name)
    assert len(expected) == 12
    assert found == expected


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


def contents(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


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


def test_grey_and_colour_together_are_colour(tmp_path: Path) -> None:
    write_images(tmp_path / "a", (8, 8), "L", n=3)
    write_images(tmp_path / "b", (8, 8), "RGB", n=3)
    assert ImageFolderDataModule(str(tmp_path)).raw_shape == (3, 8, 8)


def test_images_are_scaled_and_cut_to_a_size(tmp_path: Path) -> None:
    write_images(tmp_path, (40, 20), n=6)
    (path, *_) = sorted(tmp_path.rglob("*.png"))
    images = torch.cat([*splits(tmp_path, image_size=8).values()])
    assert images.shape == (6, 3, 8, 8)
    # Oracle: the middle square, scaled by numpy's mean of blocks, up to the filter.
    middle = np.asarray(Image.open(path))[:, 10:30].astype(float)
    small = np.asarray(
        Image.fromarray(middle.astype(np.uint8)).resize((8, 8), Image.Resampling.BOX)
    )
    distances = (images.float() - torch.tensor(small).permute(2, 0, 1)).square().mean((1, 2, 3))
    assert distances.min().sqrt() < 0.5 * distances.sort().values[1].sqrt()


def test_photographs_are_upright(tmp_path: Path) -> None:
    write_images(tmp_path, (8, 12), n=6)
    for path in tmp_path.rglob("*.png"):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        Image.open(path).save(path, exif=exif)
    assert ImageFolderDataModule(str(tmp_path)).raw_shape == (3, 8, 12)
    turned = [np.asarray(ImageOps.exif_transpose(Image.open(p))) for p in tmp_path.rglob("*.png")]
    images = torch.cat([*splits(tmp_path).values()]).permute(0, 2, 3, 1).numpy()
    assert {i.tobytes() for i in images} == {t.tobytes() for t in turned}


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


@pytest.mark.parametrize("recipe", ["mlp", "learned_variance"])
def test_recipes_take_own_images_in_any_order(recipe: str, call_main, tmp_path: Path) -> None:
    write_images(tmp_path / "own", (8, 8))
    call_main(*OWN, "own", "--config", recipe, "--batch_size", 4, *BRIEF)
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


def test_of_several_pages_the_first_is_taken_with_a_warning(tmp_path: Path) -> None:
    write_images(tmp_path, (8, 8))
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    pages[0].save(tmp_path / "cats" / "many.tiff", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match=r"many.tiff: of several pages, the first is taken"):
        images = torch.cat([*splits(tmp_path).values()])
    assert (images == torch.tensor([255, 0, 0])[:, None, None]).all((1, 2, 3)).sum() == 1


def test_numbers_in_names_of_classes_count_as_numbers(tmp_path: Path) -> None:
    for name in ("10", "2", "1", "x9", "x10"):
        write_images(tmp_path / name, (4, 4), n=2)
    assert ImageFolderDataModule(str(tmp_path)).class_names == ["1", "2", "10", "x9", "x10"]


def exif(orientation: int | bytes) -> bytes:
    """An EXIF header by hand: one entry, the orientation, as a number or as text."""
    kind, value = (
        (3, struct.pack("<HH", orientation, 0))
        if isinstance(orientation, int)
        else (2, orientation)
    )
    entry = struct.pack("<HHI", 0x0112, kind, 1 if kind == 3 else len(value)) + value
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("header", "upright"),
    [(exif(6), False), (exif(6)[:-9], True), (exif(b"top\0"), True), (exif(99), True)],
    ids=["sideways", "cut", "of the wrong type", "unknown"],
)
def test_a_damaged_exif_header_leaves_the_picture_as_it_is(
    tmp_path: Path, header: bytes, upright: bool
) -> None:
    write_images(tmp_path, (12, 8) if upright else (8, 12), n=8)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cats" / "x.webp", lossless=True, exif=header)
    found = contents(torch.cat([*splits(tmp_path).values()]))
    seen = pixels if upright else np.rot90(pixels, -1)  # 6: turned to the right to be upright
    assert seen.transpose(2, 0, 1).tobytes() in found


def test_a_large_picture_is_scaled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, (30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert len(torch.cat([*splits(tmp_path, image_size=8).values()])) == 12
    assert Image.MAX_IMAGE_PIXELS == 20
    with pytest.raises(DataError, match=r"00.png is too large: --image_size scales it"):
        splits(tmp_path)


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    for i in range(6):
        image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
        image.putpixel((1, 2), (0, 0, 255, 255))
        image.save(tmp_path / f"{i}.png")
    images = torch.cat([*splits(tmp_path).values()])
    assert images[:, :, 2, 1].unique(dim=0).tolist() == [[0, 0, 255]]
    images[:, :, 2, 1] = 255
    assert (images == 255).all()


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


def test_heads_of_pngs_are_read_without_their_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, (8, 8))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decodes"))
    assert ImageFolderDataModule(str(tmp_path)).raw_shape == (3, 8, 8)


def test_names_of_folders_that_a_console_lacks(tmp_path: Path, train_py_in) -> None:
    write_images(tmp_path / "own", (8, 8), n=8)
    own = os.fsencode(tmp_path / "own")
    os.rename(own + b"/cats", own + "/кошки".encode())
    os.rename(own + b"/dogs", own + b"/d\xf6gs")  # is not UTF-8
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONIOENCODING", "cp1252")
        patch.setenv("PYTHONUTF8", "0")
        words = ("--config", "conditional", *OWN, "own", "--batch_size", 4, *BRIEF)
        result = train_py_in(tmp_path, *words)
    assert "classes:     0 d\\udcf6gs, 1 \\u043a\\u043e" in result.stdout
    shutil.rmtree(own)  # pytest cannot
