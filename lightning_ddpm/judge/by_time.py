"""The loss by time step."""

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_ddpm.shapes import PerSample, TimeSteps

BINS = 10


class LossByTime(Metric):
    """The mean loss in ten ranges of time steps.

    Args:
        T: the schedule's number of time steps.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, T: int) -> None:
        super().__init__()
        self.T = T
        self.add_state("sums", torch.zeros(BINS), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(BINS), dist_reduce_fx="sum")

    def update(self, losses: PerSample, t: TimeSteps) -> None:
        """Add the losses (b) of samples at ``t`` (b)."""
        bins = t.to(losses.device) * BINS // self.T
        self.sums.index_add_(0, bins, losses.float())
        self.counts.index_add_(0, bins, torch.ones_like(losses, dtype=torch.float32))

    def compute(self) -> dict[str, Tensor]:
        """The mean of each range that has any, by its first and last time step."""
        ends = [-(-i * self.T // BINS) for i in range(BINS + 1)]
        return {
            f"{ends[i]:04d}-{ends[i + 1] - 1:04d}": self.sums[i] / self.counts[i]
            for i in self.counts.nonzero().flatten().tolist()
        }
