"""Any folder of videos."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from lightning.pytorch.utilities import rank_zero_warn
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from lightning_ddpm.data.base import ArrayDataset
from lightning_ddpm.data.folder import FEWEST, files_under, natural, shared_out, tell_left_out
from lightning_ddpm.data.video import Task, VideoDataModule
from lightning_ddpm.files import DataError, path_of
from lightning_ddpm.pictures import pixels, read_picture

SUFFIXES = (".gif", ".mp4", ".avi", ".mkv", ".mov", ".webm")
GREY_WITHIN = 8  # of 255, which compression makes of grey


class Clips(ArrayDataset):
    """Parts of videos, cut when they are asked for.

    Args:
        starts: the frame that each begins with (n).
        frames: of all videos, one after the other.
        length: frames of a part.
    """

    def __init__(
        self, starts: Int[Tensor, " n"], frames: UInt8[Tensor, "total c h w"], length: int
    ) -> None:
        super().__init__(starts)
        self.frames = frames
        self.length = length

    def to(self, device: torch.device) -> "Clips":
        """The same on a device."""
        return Clips(self.x0.to(device), self.frames.to(device), self.length)

    def batch(self, index: Int[Tensor, " b"]) -> dict[str, Tensor]:
        """The parts at ``index``, (b, c, length, h, w)."""
        place = self.x0[index][:, None] + torch.arange(self.length, device=self.x0.device)
        return {"x0": self.frames[place].transpose(1, 2)}


class VideoFolderDataModule(VideoDataModule):
    """The videos of a folder, held in memory: .gif, .mp4 and so on, and subfolders of images.

    A subfolder whose files are images is one video, in the order of their names and numbers. If all
    frames are grey, they stay so, otherwise all are RGB. About one video in twenty, and at least
    two, are for validation, and as many for test: the content of each decides.

    Args:
        data_dir: the folder.
        image_size: height and width of a frame, to which the shorter side of each is scaled before
            its centre is cropped.
        frames: of a part of a video.
        length: frames of a training part; ``frames`` if not given.
        observe: how many frames of a held-out part are known.
        task: ``prediction`` of the frames after those, or ``infilling`` of those in the middle.
        draws: how many samples ``predict`` generates of each part.
        num_videos: of how many parts.
        batch_size: parts in a batch, of each process.
        num_workers: processes that cut them.
        sample_batch_size: how many samples at once, at most; what suits the device if not given.

    Raises:
        ValueError: if an argument is out of range.
        DataError: when the videos are read, if there are fewer than six of so many frames, or one
            cannot be read; it names the file.
    """

    def __init__(
        self,
        data_dir: str,
        image_size: int = 32,
        frames: int = 16,
        length: int | None = None,
        observe: int = 8,
        task: Task = "prediction",
        draws: int = 8,
        num_videos: int = 64,
        batch_size: int = 16,
        num_workers: int = 0,
        sample_batch_size: int | None = None,
    ) -> None:
        asked = (frames, length, observe, task, draws, num_videos)
        super().__init__(*asked, batch_size, num_workers, sample_batch_size)
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.save_hyperparameters()
        self.data_dir = path_of(data_dir)
        self.image_size = image_size

    @cached_property
    def paths(self) -> list[Path]:
        """The video files, and the folders of images."""
        if not self.data_dir.is_dir():
            raise DataError(f"{self.data_dir}: no such folder")
        found = files_under(self.data_dir)
        videos = {path for path in found if path.suffix.lower() in SUFFIXES}
        images = {path for path in found if path.suffix.lower() in IMG_EXTENSIONS}
        inside = {path for path in images if path.parent != self.data_dir}
        if left := set(found) - videos - inside:
            tell_left_out(self.data_dir, left)
        return sorted(videos | {path.parent for path in inside})

    @cached_property
    def videos(self) -> list[UInt8[Tensor, "frames c h w"]]:
        """All of them that have frames enough."""
        paths = self.paths
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(self.read, paths))
        videos = [video for video in found if len(video) >= self.length]
        if len(videos) < len(found):
            short = len(found) - len(videos)
            rank_zero_warn(f"{self.data_dir}: {short} videos have fewer than {self.length} frames")
        if len(videos) < FEWEST:
            asked = f"at least {FEWEST} of {self.length} frames or more are needed"
            raise DataError(f"{self.data_dir} has {len(videos)} such videos; {asked}")
        spread = max(int((video.amax(1).int() - video.amin(1)).max()) for video in videos)
        return videos if spread > GREY_WITHIN else [video[:, :1] for video in videos]

    def read(self, path: Path) -> UInt8[Tensor, "frames 3 h w"]:
        """A video, in colour."""
        size = (self.image_size, self.image_size)
        fitted = [ImageOps.fit(i, size, Image.Resampling.LANCZOS) for i in frames_of(path)]
        if not fitted:
            raise DataError(f"{path} has no frames")
        return torch.stack([pixels(image, 3) for image in fitted])

    @property
    def raw_shape(self) -> tuple[int, int, int, int]:
        """Channels, frames, height and width."""
        side = self.image_size
        return (self.videos[0].shape[1], self.frames, side, side)

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        """Share the videos out, and find all parts of them."""
        content = [sha256(video[:, 0].numpy().tobytes()).digest() for video in self.videos]
        numbers = [int.from_bytes(digest[:6]) / 2**48 for digest in content]
        if len(set(numbers)) < FEWEST:  # copies of a few, which cannot stay together
            raise DataError(f"{self.data_dir} has copies of fewer than {FEWEST} videos")
        places, splits = shared_out(numbers), {}
        for name in ["test"] if stage == "test" else ["train", "val"]:
            length = self.length if name == "train" else self.frames
            mine = [self.videos[i] for i in places[name].tolist()]
            ends = torch.tensor([len(video) for video in mine]).cumsum(0).tolist()
            spans = zip([0, *ends], ends, strict=False)
            starts = [torch.arange(start, end - length + 1) for start, end in spans]
            splits[name] = Clips(torch.cat(starts), torch.cat(mine), length)
        return splits


def frames_of(path: Path) -> Iterator[Image.Image]:
    """The frames of a video file, or of a folder of images.

    Raises:
        DataError: if it cannot be read; it names the file.
    """
    if path.is_dir():
        names = sorted(path.iterdir(), key=lambda image: natural(image.name))
        yield from (read_picture(name) for name in names if name.suffix.lower() in IMG_EXTENSIONS)
        return
    try:
        import av
        from av.error import FFmpegError
    except ImportError as error:
        raise DataError('videos are read with av: pip install "lightning-ddpm[video]"') from error
    try:
        with av.open(path) as container:
            yield from (frame.to_image() for frame in container.decode(video=0))
    except (FFmpegError, IndexError) as error:  # the latter of a file without pictures
        raise DataError(f"{path} cannot be read as a video: {error}") from error
