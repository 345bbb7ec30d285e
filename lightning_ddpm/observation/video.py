"""What may be known of videos: some of their frames."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from lightning_ddpm.batch import Batch
from lightning_ddpm.noise import Noise
from lightning_ddpm.observation.base import Given, Observation, Training, uniforms
from lightning_ddpm.shapes import Known, Samples, expand_like

Task = Literal["prediction", "infilling"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass
class Frames(Observation):
    """Videos of which some frames are known (FDM, Harvey et al. 2022, arXiv 2205.11495).

    Of 75 training videos in a hundred, frames that follow one another are shown, of which the first
    are known; of ten more, the first and the last. For the others, groups of evenly spaced frames
    are drawn until there are enough, as in FDM, but that a group that is too large is cut and not
    left out: their size is uniform, their spacing log-uniform, and each but the first is observed
    or latent, at even odds. The network is told the index of each frame, so that frames of a longer
    video can be far apart. Where a batch says which frames are ``known`` (b, frames), that is
    taken, and all are shown.

    Args:
        frames: how many of a training video the network sees; in a recipe as many as held-out
            videos have, else all if not given.
        observe: how many of frames that follow one another are known; in a recipe as many as of
            held-out videos, else half of them if not given.

    Raises:
        ValueError: if ``frames`` is below 2, or ``observe`` not below it; when it is used, if the
            samples are no videos.
    """

    frames: int | None = None
    observe: int | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 2:
            raise ValueError(f"frames must be at least 2, got {self.frames}")
        if self.observe is not None and not 0 <= self.observe < (self.frames or math.inf):
            raise ValueError(f"observe must be from 0 to below frames, got {self.observe}")

    def shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """That of as many frames."""
        return (shape[0], min(shape[1], self.frames or shape[1]), *shape[2:])

    def draw(self, x0: Samples, noise: Noise, batch: Batch = None) -> Given:
        """Choose the frames, and which of them are known."""
        if x0.ndim != 5:
            shape = tuple(x0.shape[1:])
            raise ValueError(
                f"Frames is for videos (c, frames, h, w), got samples of shape {shape}"
            )
        if isinstance(batch, Mapping) and "known" in batch:
            return self.of(x0, batch["known"])
        frames, total = self.shape(x0.shape[1:])[1], x0.shape[2]
        positions, known = drawn_frames(uniforms(noise, (frames, 4), x0), total)
        u, place = uniforms(noise, (2,), x0)[..., None], torch.arange(frames, device=x0.device)
        kind, start = u[:, 0], (u[:, 1] * (total - frames + 1)).long()
        observe = frames // 2 if self.observe is None else self.observe
        first, both = (asked_frames(frames, observe, task).to(x0.device) for task in TASKS)
        positions = torch.where(kind < 0.85, start + place, positions)
        known = torch.where(kind < 0.75, first, torch.where(kind < 0.85, both, known))
        return self.of(taken(x0, positions), known, positions)

    def of(
        self,
        x0: Samples,
        known: Bool[Tensor, "b frames"],
        positions: Int[Tensor, "b frames"] | None = None,
    ) -> Given:
        """That these frames are known, and their indices in their video."""
        return Given(x0, frames_known(known, x0), positions=positions)

    def naive(self, given: Given, train: Training) -> Samples:
        """A copy of the nearest known frame."""
        return nearest_frames(given.values, given.known[:, 0, :, 0, 0])

    def shown(self, given: Given) -> dict[str, Tensor]:
        """Which frames are known."""
        return {"known": given.known[:, 0, :, 0, 0]}


def asked_frames(frames: int, observe: int, task: Task) -> Bool[Tensor, " frames"]:
    """Which frames are known, if ``observe`` are: the first, or the first and the last."""
    first = observe if task == "prediction" else observe // 2
    place = torch.arange(frames)
    return (place < first) | (place >= first + frames - observe)


def frames_known(known: Bool[Tensor, "b frames"], x0: Samples) -> Known:
    """The mask of values for that of frames."""
    return known[:, None, :, None, None].expand(-1, -1, -1, *x0.shape[3:])


def nearest_frames(
    videos: Shaped[Tensor, "b c frames h w"], known: Bool[Tensor, "b frames"]
) -> Shaped[Tensor, "b c frames h w"]:
    """Each frame as the nearest one that is known; zeros, where none is."""
    index = torch.arange(known.shape[1], device=known.device)
    apart = (index - index[:, None]).abs() + len(index) * ~known[:, None]
    return taken(videos, apart.argmin(2)) * expand_like(known.any(1), videos)


def taken(
    videos: Shaped[Tensor, "b c total h w"], index: Int[Tensor, "b frames"]
) -> Shaped[Tensor, "b c frames h w"]:
    """The frames of each video with these indices."""
    rows = torch.arange(len(videos), device=videos.device)[:, None]
    return videos.transpose(1, 2)[rows, index].transpose(1, 2)


def drawn_frames(
    u: Float[Tensor, "b frames 4"], total: int
) -> tuple[Int[Tensor, "b frames"], Bool[Tensor, "b frames"]]:
    """The indices of frames of a video of ``total``, rising, and which of them are known.

    ``u`` are uniform numbers, for as many groups as there are frames; if these do not suffice, the
    first frames that are left are taken as well, unknown.
    """
    frames, index = u.shape[1], torch.arange(total, device=u.device)
    chosen = known = torch.zeros(len(u), total, dtype=torch.bool, device=u.device)
    for group, part in enumerate(u.unbind(1)):
        size, spacing, start, odds = part[..., None].unbind(1)
        size = 1 + (size * frames).floor().clamp(max=frames - 1)
        spacing = ((total - 1) / (size - 1).clamp(min=1)) ** spacing
        start = start * (total - spacing * (size - 1)).clamp(min=1)
        # A frame is in the group if one of its times, rounded down, is the frame's index.
        nearest = ((index + 1 - start) / spacing).ceil() - 1
        inside = (nearest >= 0) & (nearest < size) & ((start + spacing * nearest).floor() == index)
        new = first_of(inside & ~chosen, frames - chosen.sum(1, keepdim=True))
        chosen, known = chosen | new, known | new & (odds < 0.5) & (group > 0)
    chosen = chosen | first_of(~chosen, frames - chosen.sum(1, keepdim=True))
    index = (~chosen).int().argsort(dim=1, stable=True)[:, :frames]
    return index, known.gather(1, index)


def first_of(there: Bool[Tensor, "b total"], count: Int[Tensor, "b 1"]) -> Bool[Tensor, "b total"]:
    """The first ``count`` of those that are there."""
    return there & (there.cumsum(1) <= count)
