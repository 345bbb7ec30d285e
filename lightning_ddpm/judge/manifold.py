"""How well generated images cover real ones, and stay among them."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_ddpm.judge.base import in_float32

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

    @in_float32()
    def compute(self) -> dict[str, Tensor]:
        """The four figures, of sets of more than five images each."""
        real, generated = dim_zero_cat(self.real), dim_zero_cat(self.generated)
        real_3, real_5 = radii(real, (3, 5)).unbind(1)
        (generated_3,) = radii(generated, (3,)).unbind(1)
        precise, balls = [], []
        recalled = covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
        parts = zip(generated.split(ROWS), generated_3.split(ROWS), strict=True)
        for rows, reach in parts:
            distance = torch.cdist(rows, real)  # (rows, real)
            precise.append((distance <= real_3).any(1))
            recalled = recalled | (distance <= reach[:, None]).any(0)
            inside = distance <= real_5
            balls.append(inside.sum(1))
            covered = covered | inside.any(0)
        return {
            "precision": torch.cat(precise).float().mean(),
            "recall": recalled.float().mean(),
            "density": torch.cat(balls).float().mean() / 5,
            "coverage": covered.float().mean(),
        }


def radii(points: Features, neighbours: Sequence[int]) -> Float[Tensor, "n k"]:
    """The distances from each point to its k-th nearest neighbour, for each k in ``neighbours``."""
    most = max(neighbours) + 1  # the nearest of all is the point itself
    nearest = [
        torch.cdist(rows, points).topk(most, largest=False).values[:, list(neighbours)]
        for rows in points.split(ROWS)
    ]
    return torch.cat(nearest)
