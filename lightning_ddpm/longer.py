"""Videos longer than a model sees at once, made a few frames at a time."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.observation import Frames

SPACING = 4  # of the frames of a hierarchy's first level

Scheme = Literal["autoregressive", "hierarchical"]


class Stage(NamedTuple):
    """Numbers of the frames that are made together, and of those that they are made given."""

    latent: list[int]
    observed: list[int]


def stages(scheme: Scheme, length: int, known: int, frames: int) -> Iterator[Stage]:
    """The stages in which a video is made, as in FDM (Harvey et al. 2022, arXiv 2205.11495).

    Half of the frames that the model sees at once are new, and the others are the nearest observed
    or generated ones; where these are too few, more frames are new.
    ``autoregressive`` goes from front to back; ``hierarchical`` does so twice, first with every
    fourth frame, then with those in between (their Hierarchy-2 spreads the first level over the
    whole video, which asks for a model that was trained on videos as long).

    Args:
        scheme: the order of the frames.
        length: of the video.
        known: how many of its first frames there are.
        frames: how many the model sees at once.
    """
    rest = range(known, length)
    coarse = range(known + SPACING - 1, length, SPACING) if scheme == "hierarchical" else range(0)
    made = [*range(known)]
    for level in (coarse, rest):
        while left := [i for i in level if i not in made]:
            latent = left[: frames // 2]
            short = max(frames - len(made) - len(latent), 0)
            latent += [i for i in rest if i not in made + latent][:short]
            nearest = sorted(made, key=lambda i, new=latent: min(abs(i - j) for j in new))
            yield Stage(sorted(latent), sorted(nearest[: frames - len(latent)]))
            made += latent


def longer(
    model: Diffusion,
    length: int,
    known: Float[Tensor, "b c known h w"] | None = None,
    n: int = 1,
    scheme: Scheme = "autoregressive",
    seed: int = 0,
) -> Float[Tensor, "b c frames h w"]:
    """Videos of ``length`` frames, x0 (n, c, length, h, w) in [-1, 1], by a model that sees fewer.

    Args:
        model: one whose observation is ``Frames``; for ``hierarchical``, trained on videos longer
            than it sees (``--length``), so that it has seen frames that are as far apart.
        length: frames of the videos, at least as many as the model sees at once.
        known: their first frames, one video for each that is made; none if not given.
        n: how many videos, where nothing is known.
        scheme: as ``stages`` has it.
        seed: the seed of all noise.

    Raises:
        ValueError: if the model does not observe frames, or ``length`` is too short.
    """
    if not isinstance(model.observation, Frames):
        raise ValueError("longer videos need a model whose observation is Frames")
    c, frames, h, w = model.shape
    n, start = (n, 0) if known is None else (len(known), known.shape[2])
    if length < max(frames, start):
        raise ValueError(f"length must be at least {max(frames, start)}, got {length}")
    video = torch.zeros(n, c, length, h, w, device=model.device)
    if known is not None:
        video[:, :, :start] = known
    for stage, (latent, observed) in enumerate(stages(scheme, length, start, frames)):
        positions = torch.tensor(sorted(latent + observed))
        seen = torch.isin(positions, torch.tensor(observed))
        told = (seen.expand(n, -1), positions.expand(n, -1))
        given = model.observation.of(video[:, :, positions], *told)
        made = model.sample(given=given, seed=seed, stage=1 + stage, progress=False)
        video[:, :, positions[~seen]] = made[:, :, ~seen]
    return video
