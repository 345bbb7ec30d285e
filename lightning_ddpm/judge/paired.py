"""What judges share of samples that each have a truth, several samples of one."""

from abc import ABC
from collections.abc import Callable, Mapping, Sequence

from jaxtyping import Int, Shaped
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_ddpm.judge.base import Judge
from lightning_ddpm.media.base import grouped


class PairedJudge(Judge, ABC):
    """Compares samples with what they are of, held-out data of which a part was known.

    Args:
        held_out: gives the data that samples are of, by the samples' indices.
        draws: samples of each.
        most: samples of all.
    """

    made: list[Tensor]
    indices: list[Tensor]
    paired = True

    def __init__(
        self,
        held_out: Callable[[Sequence[int]], Mapping[str, Tensor]],
        draws: int,
        most: int,
    ) -> None:
        super().__init__()
        self.held_out = held_out
        self.draws = self.together = draws
        self.usual = most
        for name in ("made", "indices"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @property
    def most(self) -> int:
        """All samples of all."""
        return self.usual

    def update(
        self,
        samples: Shaped[Tensor, "n ..."],
        index: Int[Tensor, " n"],
        label: Tensor | None = None,
    ) -> None:
        """Add samples and their places among all."""
        self.made.append(samples)
        self.indices.append(index)

    def floors(
        self, size: int, labels: Tensor | None = None, rank: int = 0, processes: int = 1
    ) -> dict[str, float]:
        """None: those there are stand among the figures."""
        return {}

    def beside_truth(self) -> tuple[Shaped[Tensor, "n draws ..."], Mapping[str, Tensor]]:
        """All samples, those of the same together, and what the data say of what they are of."""
        index, order = dim_zero_cat(self.indices).cpu().sort()
        together = {"made": dim_zero_cat(self.made).cpu()[order], "window": index // self.draws}
        asked = {n: v.cpu() for n, v in self.held_out(index[:: self.draws].tolist()).items()}
        return grouped(together, "made")["made"], asked
