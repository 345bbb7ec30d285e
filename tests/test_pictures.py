"""Files of pictures, as they are met: their pixels are those of the file, upright and of a size."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from own_images import contents, splits, write_images
from PIL import Image, ImageOps

from lightning_ddpm.data import DataError, ImageFolderDataModule


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


def test_of_several_pages_the_first_is_taken_with_a_warning(tmp_path: Path) -> None:
    write_images(tmp_path, (8, 8))
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    pages[0].save(tmp_path / "cats" / "many.tiff", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match=r"many.tiff: of several pages, the first is taken"):
        images = torch.cat([*splits(tmp_path).values()])
    assert (images == torch.tensor([255, 0, 0])[:, None, None]).all((1, 2, 3)).sum() == 1


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


def test_heads_of_pngs_are_read_without_their_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, (8, 8))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decodes"))
    assert ImageFolderDataModule(str(tmp_path)).raw_shape == (3, 8, 8)
