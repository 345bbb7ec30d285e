"""Whether generated images are copies of training images."""

import math

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from lightning_ddpm.judge.base import in_float32

Pictures = UInt8[Tensor, "_ c h w"]
ROWS = 500  # compared at a time, so that memory stays small
NEAR = 1 / 3  # of the distance to the second nearest training image


def memorisation(distances: Float[Tensor, "n 2"]) -> dict[str, Tensor]:
    """What the distances to the two ``nearest`` training images say; unseen real images as well.

    ``near_copies`` is the part of the images that are less than a third as far from the nearest
    training image as from the second nearest (Yoon et al. 2023, "Diffusion Probabilistic Models
    Generalize when They Fail to Memorize"). ``nearest_distance`` is the median distance.
    """
    first, second = distances.unbind(1)
    return {
        "near_copies": (first < NEAR * second).float().mean(),
        "nearest_distance": first.median(),
    }


@in_float32()
def nearest(images: Pictures, train: Pictures) -> tuple[Float[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """Distances to the two nearest training images that differ, and where those are.

    A distance is the root of the sum of squared differences of pixels in [0, 1].
    """
    train_pixels = train.flatten(1).float() / 255
    squares = train_pixels.square().sum(1)
    distances, places = [], []
    for rows in (images.flatten(1).float() / 255).split(ROWS):
        # Expanded squares are quick, and find the neighbours; differences are exact.
        rank = torch.addmm(squares, rows, train_pixels.T, alpha=-2)
        first = rank.argmin(1, keepdim=True)  # much quicker than topk, which sorts
        second = rank.scatter_(1, first, math.inf).argmin(1, keepdim=True)
        while (again := repeated(train, first, second) & rank.gather(1, second).isfinite()).any():
            rank[again[:, 0], second[again]] = math.inf
            second = rank.argmin(1, keepdim=True)
        place = torch.cat([first, second], dim=1)
        distance = (rows[:, None] - train_pixels[place]).norm(dim=2)  # (rows, 2)
        order = distance.argsort(dim=1)
        distances.append(distance.gather(1, order))
        places.append(place.gather(1, order))
    return torch.cat(distances), torch.cat(places)


def repeated(
    train: Pictures, first: Int[Tensor, "n 1"], second: Int[Tensor, "n 1"]
) -> Bool[Tensor, "n 1"]:
    """Whether two training images are the same, pixel by pixel."""
    return (train[first] == train[second]).flatten(2).all(2)
