"""Media: between raw data and x0, and what is left of samples on disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian import each_shape
from PIL import Image
from torchvision.transforms.functional import to_tensor
from toys import Waves

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.media import Images, Medium
from lightning_ddpm.media.images import from_uint8, to_uint8
from lightning_ddpm.networks import UNet

LEVELS = torch.arange(256, dtype=torch.uint8)


class Plain(Medium):
    """Data that are x0 themselves."""

    name = "values"

    def encode(self, raw) -> torch.Tensor:
        return raw

    def decode(self, x0) -> torch.Tensor:
        return x0


def test_every_grey_level_survives_the_way_there_and_back() -> None:
    raw = LEVELS.reshape(4, 1, 8, 8)
    x0 = Images().encode(raw)
    assert x0.dtype == torch.float32
    assert (x0.min(), x0.max()) == Images.value_range == (-1, 1)
    # Oracle: 255 even steps from black to white, in float64.
    expected = torch.linspace(-1, 1, 256, dtype=torch.float64).reshape(raw.shape)
    torch.testing.assert_close(x0.double(), expected, atol=1e-7, rtol=0)
    assert Images().decode(x0).equal(raw)
    assert Images().decode(x0 + 0.9 / 255).equal(raw)  # less than half a level
    assert from_uint8(raw).equal(x0)
    assert to_uint8(x0).equal(raw)


def test_floats_from_0_to_1_are_the_same_images() -> None:
    # Oracle: torchvision's conversion of the picture.
    raw = torch.randint(256, (3, 3, 5, 7), dtype=torch.uint8)
    floats = torch.stack([to_tensor(image.permute(1, 2, 0).numpy()) for image in raw])
    torch.testing.assert_close(Images().encode(floats), Images().encode(raw))
    for dtype in (torch.float16, torch.float64):
        x0 = Images().encode(floats.to(dtype))
        assert x0.dtype == torch.float32
        torch.testing.assert_close(x0, Images().encode(raw), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (torch.full((2, 1, 4, 4), torch.nan), "torch.float32 from nan to nan"),
        (torch.tensor([0, torch.nan]).expand(2, 1, 4, 2), "torch.float32 from nan to nan"),
        (torch.tensor([-1.0, 1.0]).expand(2, 1, 4, 2), "torch.float32 from -1 to 1"),
        (torch.tensor([0.0, 255.0]).expand(2, 1, 4, 2), "torch.float32 from 0 to 255"),
        (torch.tensor([0.0, torch.inf]).expand(2, 1, 4, 2), "torch.float32 from 0 to inf"),
        (torch.tensor([0, 255]).expand(2, 1, 4, 2), "torch.int64 from 0 to 255"),
        (torch.tensor([0, 1]).expand(2, 1, 4, 2), "torch.int64 from 0 to 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_of_another_kind_are_refused(raw: torch.Tensor, found: str) -> None:
    message = f"^images must be bytes from 0 to 255 or floats from 0 to 1, got {found}$"
    with pytest.raises(ValueError, match=message):
        Images().encode(raw)


@pytest.mark.parametrize("shape", [(2, 16), (2, 4, 4), (2, 1, 3, 4, 4)], ids=str)
def test_images_have_four_axes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must be \(b, c, h, w\), got \(2, "):
        Images().encode(torch.zeros(shape, dtype=torch.uint8))


def test_labels_stand_above_the_images_in_the_picture() -> None:
    raw = torch.full((2, 1, 28, 28), 100, dtype=torch.uint8)
    plain, told = (
        Images().picture({"images": raw} | labels)
        for labels in ({}, {"labels": torch.tensor([3, 5])})
    )
    assert plain.shape[1] < told.shape[1]
    assert Images().picture({"images": raw.expand(2, 3, 28, 28)}).shape == plain.shape


@each_shape
def test_a_dict_of_arrays_is_written_as_it_is(tmp_path: Path, shape: tuple[int, ...]) -> None:
    # Oracle: another reader, numpy's.
    asked = torch.arange(3)
    samples = {"values": torch.randn(3, *shape), "labels": asked, "known": torch.rand(3, 2) > 0.5}
    assert Plain().write(samples, tmp_path) == [tmp_path / "samples.npz"]
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as file:
        assert set(file) == set(samples)
        for name, array in samples.items():
            assert file[name].dtype == array.numpy().dtype
            np.testing.assert_array_equal(file[name], array.numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_written_as_arrays_and_as_pictures(tmp_path: Path, channels: int) -> None:
    # Oracle: other readers, numpy's and Pillow's.
    images = torch.randint(256, (3, channels, 5, 7), dtype=torch.uint8)
    samples = {"images": images, "labels": torch.tensor([4, 0, 4])}
    written = Images().write(samples, tmp_path, png=True)
    singles = [f"{i:05d}.png" for i in range(3)]
    assert [path.name for path in written] == ["samples.npz", "grid.png", *singles]
    with np.load(tmp_path / "samples.npz") as file:
        expected = images[:, 0] if channels == 1 else images
        np.testing.assert_array_equal(file["images"], expected.numpy())
        np.testing.assert_array_equal(file["labels"], [4, 0, 4])
    for index, image in enumerate(images):
        picture = np.asarray(Image.open(tmp_path / "png" / f"{index:05d}.png"))
        seen = picture[None] if channels == 1 else picture.transpose(2, 0, 1)
        np.testing.assert_array_equal(seen, image.numpy())


def test_a_medium_without_a_decoder_has_no_bound_and_no_learned_variance() -> None:
    assert Images().has_decoder
    assert not Waves().has_decoder
    network = UNet(channels=(8,), out_channels=2, dims=1)
    with pytest.raises(ValueError, match="needs a bound, and Waves has no decoder for it"):
        Diffusion(network, medium=Waves(), shape=(1, 16), variance="learned")
    with pytest.raises(NotImplementedError, match="Waves has no decoder"):
        Waves().log_likelihood(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), torch.ones(()))
    fixed = UNet(channels=(8,), dims=1)
    assert Diffusion(fixed, medium=Waves(), shape=(1, 16)).medium.picture({}) is None


def test_what_is_clipped_is_said_by_the_medium() -> None:
    # A network that says nothing: at pure noise, x0 is all that it predicts, far out of range.
    network, x_T = UNet(channels=(8,), dims=1), 100 * torch.randn(2, 1, 16)
    free, bounded = (
        Diffusion(network, medium=medium, shape=(1, 16)).denoiser()(x_T, torch.tensor(999)).x0
        for medium in (Waves(), Images())
    )
    assert free.abs().max() > 100
    assert bounded.abs().max() == 1


@pytest.mark.parametrize("shape", [(1, 4, 512), (1, 512, 4), (1, 4, 4), (3, 2, 300)])
def test_grids_of_images_of_any_proportions_are_no_ribbons(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    images = torch.zeros(400, *shape, dtype=torch.uint8)
    _, height, width = Images().picture({"images": images}).shape
    assert height < 65_536 / 4
    assert 1 / 2 < height / width < 2
    film = images[:4, None].expand(4, 3, *shape)
    gif, strip = Images().write_film(film, tmp_path)
    assert Image.open(gif).n_frames >= 1
    assert max(Image.open(strip).size) < 65_536


def test_images_that_cannot_be_shown_are_written_as_arrays(tmp_path: Path) -> None:
    images = torch.zeros(3, 5, 4, 4, dtype=torch.uint8)
    assert Images().picture({"images": images}) is None
    (path,) = Images().write({"images": images}, tmp_path, png=True)
    assert np.load(path)["images"].shape == (3, 5, 4, 4)
    assert Images().write_film(images[:, None], tmp_path) == []
