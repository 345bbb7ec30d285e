"""How well generated images cover real ones, and stay among them."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

Features = Float[Tensor, "n d"]
ROWS = 1000  # compared at a time, so that memory stays small


class Manifold(Metric):
    """Precision, recall, density and coverage of generated among real features.

    The manifold of a set is the union of balls around its points, each reaching to the point's
    k-th nearest neighbour. Precision is the part of the generated points on the real manifold,
    recall the part of the real points on the generated one (Kynkäänniemi et al. 2019, arXiv
    1904.06991, k = 3). Density counts in how many real balls a generated point lies, in units of
    k, and coverage is the part of the real balls with a generated point (Naeem et al. 2020, arXiv
    2002.09797, k = 5). All need the same of unseen real images beside them.

    Args:
        options: of ``torchmetrics.Metric``.
    """

    real: list[Tensor]
    generated: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("generated", [], dist_reduce_fx="cat")

    def update(self, features: Features, real: bool) -> None:
        """Add the features of real or generated images."""
        (self.real if real else self.generated).append(features)

    def compute(self) -> dict[str, Tensor]:
        """The four figures, of sets of more than five images each."""
        real, generated = dim_zero_cat(self.real), dim_zero_cat(self.generated)
        return {
            "precision": within(generated, real, 3).any(1).float().mean(),
            "recall": within(real, generated, 3).any(1).float().mean(),
            "density": within(generated, real, 5).float().sum(1).mean() / 5,
            "coverage": within(generated, real, 5).any(0).float().mean(),
        }


def radii(points: Features, k: int) -> Float[Tensor, " n"]:
    """The distance from each point to its k-th nearest neighbour."""
    rows = points.split(ROWS)
    return torch.cat([torch.cdist(row, points).kthvalue(k + 1).values for row in rows])


def within(points: Features, centres: Float[Tensor, "m d"], k: int) -> Bool[Tensor, "n m"]:
    """Whether each point lies in the ball of each centre."""
    reach = radii(centres, k)
    return torch.cat([torch.cdist(row, centres) <= reach for row in points.split(ROWS)])
