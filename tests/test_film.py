"""What predict shows of the way from noise to images, and the captions of grids."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from lightning_ddpm import load_model
from lightning_ddpm.media.images import CAPTION_HEIGHT, image_grid
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM


@pytest.mark.parametrize(("steps", "frames"), [(5, 6), (52, 50)])
def test_the_film_leads_from_noise_to_the_grid(
    call_main, tmp_path: Path, steps: int, frames: int
) -> None:
    call_main("predict", "--trajectory", "--num_samples", 4, "--steps", steps, "--guidance", 1)
    folder = tmp_path / "samples"
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".written", "grid.png", "samples.npz", "trajectory.gif", "trajectory.png")
    ]
    grid = np.asarray(Image.open(folder / "grid.png").convert("L")).astype(int)
    with Image.open(folder / "trajectory.gif") as gif:
        film = [np.asarray(f.convert("L")).astype(int) for f in ImageSequence.Iterator(gif)]
        assert gif.info["loop"] == 0
    assert len(film) == frames
    assert np.abs(film[-1] - grid).max() <= 2
    # Noise at first: its neighbours are not alike, as those of digits are.
    rough = [np.abs(np.diff(f[8:112:4, 8:112:4])).mean() for f in film]
    assert rough[0] > 3 * rough[-1]
    columns = min(11, frames)
    strip = Image.open(folder / "trajectory.png")
    assert strip.size == (columns * 120 + 8, 4 * 120 + 8)
    last = np.asarray(strip.convert("L")).astype(int)[8:120, -120:-8]
    assert np.abs(last - grid[8:120, 8:120]).max() <= 2


def test_a_film_of_other_samples_is_not_left_behind(call_main, tmp_path: Path) -> None:
    call_main("predict", "--trajectory", "--num_samples", 2, "--steps", 2)
    (tmp_path / "samples" / "trajectory.txt").touch()
    call_main("predict", "--num_samples", 2, "--steps", 2)
    left = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert left == [".written", "grid.png", "samples.npz", "trajectory.txt"]


def test_frames_are_spread_over_the_trajectory() -> None:
    model = load_model()
    # Oracle: the trajectory, step by step.
    film = model.sample(2, sampler=DDIM(8), frames=5, progress=False)
    assert film.shape == (2, 5, 1, 28, 28)
    x, seen = film[:, 0], [film[:, 0]]
    seen += list(DDIM(8).trajectory(model.denoiser(), x, SampleNoise(0, [])))
    for frame, step in zip(film.unbind(1), (0, 2, 4, 6, 8), strict=True):
        torch.testing.assert_close(frame, seen[step], atol=1e-5, rtol=0)
    torch.testing.assert_close(film[:, -1], model.sample(2, sampler=DDIM(8), progress=False))
    assert model.sample(2, sampler=DDIM(3), frames=50, progress=False).shape[1] == 4
    with pytest.raises(ValueError, match="frames must be at least 2, got 1"):
        model.sample(2, frames=1)


def test_captions_stand_above_their_images() -> None:
    images = torch.full((3, 1, 28, 28), 100, dtype=torch.uint8)
    plain, told = image_grid(images, columns=3), image_grid(images, columns=3, captions=[1, 8, ""])
    assert told.shape == (3, plain.shape[1] + CAPTION_HEIGHT, plain.shape[2])
    bands = [told[0, 8 : 8 + CAPTION_HEIGHT, x : x + 112] for x in (8, 128, 248)]
    ink = [int((band > 128).sum()) for band in bands]
    assert ink[1] > ink[0] > 0 == ink[2]  # an 8 has more ink than a 1
    assert torch.equal(told[:, 8 + CAPTION_HEIGHT :], plain[:, 8:])
