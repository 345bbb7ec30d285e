"""The variational bound of a set of samples, from the estimates of each."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lightning_ddpm.likelihood import Bound


class VariationalBound(Metric):
    """The mean over samples of estimated bounds, with its parts, and the terms over t.

    Args:
        T: the schedule's number of time steps.
    """

    rows: list[Tensor]
    sums: Tensor
    counts: Tensor

    def __init__(self, T: int) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("sums", torch.zeros(T), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(T), dist_reduce_fx="sum")

    def update(self, bound: Bound) -> None:
        """Add the bounds of a batch."""
        L_t = (bound.weight * bound.L_t).mean(1)
        self.rows.append(torch.stack([bound.L_T, L_t, bound.L_0], dim=1))
        for t, terms in ((torch.zeros_like(bound.t[:, 0]), bound.L_0), (bound.t, bound.L_t)):
            self.sums.index_add_(0, t.flatten(), terms.flatten())
            self.counts.index_add_(0, t.flatten(), torch.ones_like(terms).flatten())

    def compute(self) -> tuple[dict[str, Tensor], Float[Tensor, " T"]]:
        """The figures in bits per dimension, and the mean term of each t, nan where none was drawn.

        ``bits_per_dim_ci95`` is the half-width of the 95% confidence interval of the mean over
        samples. It is a little too wide: it takes the samples' time steps to be independent.
        """
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        total, parts = rows.sum(1), rows.mean(0)
        figures = {
            "bits_per_dim": total.mean(),
            "bits_per_dim_ci95": 1.96 * total.std() / len(total) ** 0.5,
        } | dict(zip(("L_T", "L_t", "L_0"), parts, strict=True))
        return figures, self.sums / self.counts
