from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_ddpm.files import replacing, require_writable
from lightning_ddpm.media.images import image_grid, to_uint8, write_png


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError("disk")
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_who_write_the_same_file_leave_one_of_theirs(tmp_path: Path) -> None:
    # As runs that are started together, on a machine where MNIST is still packed.
    path = tmp_path / "train-images"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/c cannot be written: Not a directory"):
        require_writable(tmp_path / "file" / "c")


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_pixels(tmp_path: Path, channels: int) -> None:
    # Oracle: another reader, Pillow's by way of numpy.
    picture = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    write_png(picture, tmp_path / "new" / "a.png")
    pixels = np.asarray(Image.open(tmp_path / "new" / "a.png")).reshape(5, 7, channels)
    np.testing.assert_array_equal(pixels.transpose(2, 0, 1), picture.numpy())


def test_grey_levels_are_rounded_and_clamped() -> None:
    values = torch.tensor([-2, -1, -0.999, 0, 0.999, 1, 3]).reshape(7, 1, 1, 1)
    assert to_uint8(values).flatten().tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_grid_is_in_rows() -> None:
    images = torch.randint(0, 256, (5, 1, 6, 6), dtype=torch.uint8)
    picture = image_grid(images, scale=2)
    assert picture.shape == (3, 2 * (2 * 8 + 2), 2 * (3 * 8 + 2))
    assert torch.equal(picture[0, 2 * 10 : 2 * 16 : 2, 2 * 2 : 2 * 8 : 2], images[3, 0])
