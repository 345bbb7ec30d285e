"""What data modules share of data of which a part is known, and several samples are drawn."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightning_ddpm.data.base import ArrayDataModule
from lightning_ddpm.shapes import spaced

DRAWN = 4  # held-out samples, of which some are drawn in training


class PairedDataModule(ArrayDataModule, ABC):
    """Data of which a part is known, where they are held out.

    Args:
        draws: how many samples ``predict`` generates of each.
        num_held_out: of how many, evenly spaced; there may be fewer.
        batch_size: as ``ArrayDataModule`` has it.
        num_workers: as ``ArrayDataModule`` has it.
        sample_batch_size: as ``ArrayDataModule`` has it.
    """

    drawn_each: int
    """Samples of each that are drawn in training, at most."""

    def __init__(
        self,
        draws: int,
        num_held_out: int,
        batch_size: int,
        num_workers: int,
        sample_batch_size: int | None,
    ) -> None:
        super().__init__(batch_size, num_workers, draws * num_held_out, sample_batch_size)
        self.draws = draws
        self.num_held_out = num_held_out

    @abstractmethod
    def known(self, places: Int[Tensor, " b"]) -> Bool[Tensor, "b ..."]:
        """What is known of those at these places of their split."""

    def setup(self, stage: str) -> None:
        """Find the splits; there may be fewer held-out samples than were asked for."""
        super().setup(stage)
        if self.splits:
            self.num_samples = self.draws * len(self.chosen())

    def chosen(self) -> list[int]:
        """Those that are predicted, of their split."""
        return spaced(len(self.splits[self.held_out_split]), self.num_held_out)

    @property
    def drawn(self) -> Sequence[int]:
        """Some samples of each of a few."""
        chosen, each = spaced(len(self.chosen()), DRAWN), min(self.drawn_each, self.draws)
        return [window * self.draws + i for window in chosen for i in range(each)]

    def held_out(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Those of which a part is known, each for ``draws`` indices in turn."""
        windows = torch.tensor(indices) // self.draws % len(self.chosen())
        places = torch.tensor(self.chosen())[windows]
        batch = self.splits[self.held_out_split].__getitems__(places.tolist())
        return batch | {"known": self.known(places), "window": windows}
