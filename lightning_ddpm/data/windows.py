"""Windows of a table."""

import torch
from jaxtyping import Int
from torch import Tensor

from lightning_ddpm.data.base import ArrayDataset
from lightning_ddpm.data.tables import Table


class Windows(ArrayDataset):
    """Windows of a table, cut when they are asked for.

    Args:
        starts: the row that each begins with (n); of rows that are not there nothing was measured.
        table: the series.
        length: rows of a window.
    """

    def __init__(self, starts: Int[Tensor, " n"], table: Table, length: int) -> None:
        super().__init__(starts)
        self.table = table
        self.length = length
        self.values = torch.from_numpy(table.values)

    def to(self, device: torch.device) -> "Windows":
        """The same on a device."""
        moved = Windows(self.x0.to(device), self.table, self.length)
        moved.values = self.values.to(device)
        return moved

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """The windows at ``index`` (b), with the ``row`` of each value and, if known, its ``time``.

        Beyond the table nothing was measured.
        """
        row = self.x0[index][:, None] + torch.arange(self.length, device=self.x0.device)
        there = (row >= 0) & (row < len(self.values))
        values = self.values[row.clamp(0, len(self.values) - 1)]
        values = values.masked_fill(~there[..., None], torch.nan).transpose(1, 2)
        batch, start = {"x0": values, "row": row}, self.table.start
        return batch if start is None else batch | {"time": start + self.table.step * row}
