"""What data modules of videos share: which frames are known of those that are held out."""

from abc import ABC
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from lightning_ddpm.data.paired import PairedDataModule
from lightning_ddpm.judge import VideoJudge
from lightning_ddpm.observation.video import TASKS, Task, asked_frames


class VideoDataModule(PairedDataModule, ABC):
    """Videos of which frames are asked for.

    Args:
        frames: of a video.
        length: frames of a training video, of which the model sees as many as it can at once; as
            many as ``frames`` if not given.
        observe: how many frames of a held-out video are known: the first, or the first and the
            last.
        task: what is asked of it: ``prediction`` of the frames after those, or ``infilling`` of
            those in the middle.
        draws: how many samples ``predict`` generates of each video.
        num_videos: of how many videos.
        batch_size: videos in a batch, of each process.
        num_workers: processes that make batches.
        sample_batch_size: how many samples at once, at most; what suits the device if not given.

    Raises:
        ValueError: if an argument is out of range.
    """

    drawn_each = 2

    def __init__(
        self,
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
        if min(draws, num_videos) < 1:
            raise ValueError(f"draws and num_videos must be at least 1, got {draws}, {num_videos}")
        if not 0 <= observe < frames:
            raise ValueError(f"observe must be from 0 to below {frames} frames, got {observe}")
        if length is not None and length < frames:
            raise ValueError(f"length must be at least {frames} frames, got {length}")
        if task not in TASKS:
            raise ValueError(f"task must be prediction or infilling, got {task}")
        super().__init__(draws, num_videos, batch_size, num_workers, sample_batch_size)
        self.frames = frames
        self.length = length or frames
        self.observe = observe
        self.task: Task = task

    def known(self, places: Int[Tensor, " b"]) -> Bool[Tensor, "b frames"]:
        """Which frames are known of videos at these places of their split."""
        return asked_frames(self.frames, self.observe, self.task).expand(len(places), -1)

    @property
    def facts(self) -> dict[str, Any]:
        """How many frames the network sees, and how many of them are known."""
        return super().facts | {"frames": self.frames, "observe": self.observe}

    def judge(self) -> VideoJudge:
        """The judge of samples of videos that are held out."""
        return VideoJudge(self.held_out, self.draws, self.num_samples)
