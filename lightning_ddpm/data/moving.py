"""Videos of two digits that move: Moving MNIST, made when it is asked for."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from lightning_ddpm.data.base import ArrayDataset
from lightning_ddpm.data.mnist import MNISTDataModule
from lightning_ddpm.data.video import Task, VideoDataModule
from lightning_ddpm.noise import SampleNoise

DIGITS = 2
STEP = 0.1  # of the room that a digit has along each axis, in a frame
VIDEOS = {"train": 50_000, "val": 128, "test": 1_000}

Size = Literal[32, 64]


class MovingDigits(ArrayDataset):
    """Videos (n, 1, frames, size, size) of two digits, drawn from a seed and their index.

    As the authors of Moving MNIST draw them (Srivastava et al. 2015, arXiv 1502.04681): each digit
    moves at one speed in a direction of its own, and bounces at the walls; where they overlap, the
    brighter one is seen.

    Args:
        digits: the images (m, 1, k, k) and their labels (m).
        count: how many videos.
        frames: of each.
        size: height and width.
        seed: of all videos.
    """

    def __init__(self, digits: ArrayDataset, count: int, frames: int, size: int, seed: int) -> None:
        super().__init__(torch.arange(count))
        self.images, self.labels = digits.pair()
        self.frames = frames
        self.size = size
        self.seed = seed

    def to(self, device: torch.device) -> "MovingDigits":
        """The same: they are made on the CPU, and a batch at a time goes to the device."""
        return self

    def batch(self, index: Int[Tensor, " b"]) -> dict[str, Tensor]:
        """The videos, and of their digits the ``images`` (b, 2, k, k) and labels (b, 2).

        ``corners`` (b, frames, 2, 2) are where in each frame their upper left ones are, y and x;
        in those frames that ``bounced`` (b, frames) one of them meets a wall.
        """
        drawn = SampleNoise(self.seed, index.tolist()).draw((4, DIGITS))
        kind, y, x, direction = torch.special.ndtr(drawn.double()).unbind(1)
        which, room = (kind * len(self.images)).long(), self.size - self.images.shape[-1]
        place = paths(torch.stack([y, x], dim=-1), direction * 2 * math.pi, self.frames)
        images, corners = self.images[which, 0], (place * room).long()
        return {
            "x0": pasted(images, corners, self.size)[:, None],
            "images": images,
            "digits": self.labels[which],
            "corners": corners,
            "bounced": ((place == 0) | (place == 1)).any(-1).any(-1),
        }


def paths(
    start: Float[Tensor, "b d 2"], direction: Float[Tensor, "b d"], frames: int
) -> Float[Tensor, "b frames d 2"]:
    """Where digits are in each frame, from 0 to 1 along each axis, if they bounce at the walls."""
    place, step = start, STEP * torch.stack([direction.sin(), direction.cos()], -1)
    places = []
    for _ in range(frames):
        place = place + step
        step = torch.where((place <= 0) | (place >= 1), -step, step)
        place = place.clamp(0, 1)
        places.append(place)
    return torch.stack(places, 1)


def pasted(
    digits: UInt8[Tensor, "b d k k"], corners: Int[Tensor, "b frames d 2"], size: int
) -> UInt8[Tensor, "b frames size size"]:
    """Frames that show digits at their corners, the brighter one where they overlap."""
    b, frames, d, _ = corners.shape
    video = torch.zeros(b, frames, size, size, dtype=torch.uint8)
    for i in range(d):
        where = square_at(corners[:, :, i], digits.shape[-1])
        video[where] = video[where].maximum(digits[:, None, i])
    return video


def square_at(corner: Int[Tensor, "b frames 2"], k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An index of the squares (b, frames, k, k) of videos (b, frames, h, w) at their corners."""
    b, frames, _ = corner.shape
    y, x = (corner[..., i, None, None] + torch.arange(k) for i in (0, 1))
    first = torch.arange(b)[:, None, None, None], torch.arange(frames)[:, None, None]
    return *first, y.transpose(2, 3), x


class MovingMNISTDataModule(VideoDataModule):
    """Moving MNIST: two digits that move, MNIST's test digits for test.

    They are half as large in videos of 32 by 32 pixels as in those of 64 by 64.

    Args:
        size: height and width, 32 or 64.
        frames: of a video.
        length: frames of a training video; ``frames`` if not given.
        observe: how many frames of a held-out video are known.
        task: ``prediction`` of the frames after those, or ``infilling`` of those in the middle.
        draws: how many samples ``predict`` generates of each video.
        num_videos: of how many videos.
        data_dir: as ``MNISTDataModule`` has it.
        source: as ``MNISTDataModule`` has it.
        batch_size: videos in a batch, of each process.
        num_workers: processes that make batches.
        sample_batch_size: how many samples at once, at most; what suits the device if not given.

    Raises:
        ValueError: if an argument is out of range.
        DataError: while preparing, if the data is damaged or cannot be had.
    """

    def __init__(
        self,
        size: Size = 32,
        frames: int = 16,
        length: int | None = None,
        observe: int = 8,
        task: Task = "prediction",
        draws: int = 8,
        num_videos: int = 64,
        data_dir: str | None = None,
        source: Literal["auto", "mnist", "packaged"] = "auto",
        batch_size: int = 16,
        num_workers: int = 0,
        sample_batch_size: int | None = None,
    ) -> None:
        asked = (frames, length, observe, task, draws, num_videos)
        super().__init__(*asked, batch_size, num_workers, sample_batch_size)
        if size not in get_args(Size):
            raise ValueError(f"size must be 32 or 64, got {size}")
        self.save_hyperparameters()
        self.size = size
        self.digits = MNISTDataModule(data_dir, source=source, downscale=64 // size)

    @property
    def raw_shape(self) -> tuple[int, int, int, int]:
        """Grey, and square."""
        return (1, self.frames, self.size, self.size)

    def prepare_data(self) -> None:
        """Have MNIST."""
        self.digits.prepare_data()

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        """Videos of the digits of each split, which has a seed of its own."""
        splits: dict[str, ArrayDataset] = {}
        for name, digits in self.digits.load_splits(stage).items():
            frames = self.length if name == "train" else self.frames
            seed = list(VIDEOS).index(name)
            splits[name] = MovingDigits(digits, VIDEOS[name], frames, self.size, seed)
        return splits
