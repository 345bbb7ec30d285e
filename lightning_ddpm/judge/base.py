"""What every judge of samples does, and how figures stand beside their floors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import UInt8
from torch import Tensor
from torchmetrics import Metric

BATCH = 500  # samples that are judged at once
LOWER = ("restoration_error", "frechet_distance", "kernel_distance")  # the better
HIGHER = ("label_accuracy", "precision", "recall", "density", "coverage")  # the better


class Judge(Metric, ABC):
    """Figures of generated samples, beside those of as many held-out real ones.

    The figures are those of all processes together.
    """

    picture_title: str = "samples"
    paired: bool = False
    """Whether the figures are of each sample beside its truth, and have baselines among them."""
    usual: int = 1000
    """How many samples are judged if nothing else is said."""
    together: int = 1
    """Samples, by their indices, that are judged together or not at all."""

    @property
    @abstractmethod
    def most(self) -> int:
        """As many samples are judged at the most."""

    @abstractmethod
    def update(self, samples: Tensor, index: Tensor, label: Tensor | None = None) -> None:
        """Add raw samples (n, ...), their places among all, and what they were to show, if told."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The figures by name."""

    @abstractmethod
    def floors(
        self, size: int, labels: Tensor | None = None, rank: int = 0, processes: int = 1
    ) -> dict[str, float]:
        """The figures of ``size`` real samples, of which each process adds its share.

        If samples were to show ``labels`` (n), the real ones are as many of each.
        """

    def score(
        self, samples: Tensor, labels: Tensor | None = None, rank: int = 0, processes: int = 1
    ) -> dict[str, float]:
        """The figures of ``samples``, of which process ``rank`` of ``processes`` adds its share."""
        self.reset()
        for place in torch.arange(rank, len(samples), processes).split(BATCH):
            label = None if labels is None else labels[place].to(self.device)
            self.update(samples[place].to(self.device), place.to(self.device), label)
        return self.figures()

    def picture(self, samples: Tensor) -> UInt8[Tensor, "3 H W"] | None:
        """Show some of the samples beside real ones, if they can be shown."""
        return None

    def table(self, figures: dict[str, float]) -> str:
        """The figures to be read."""
        return table(figures)

    def figures(self) -> dict[str, float]:
        """The figures as plain numbers; what was added is forgotten."""
        figures = {name: float(value) for name, value in self.compute().items()}
        self.reset()
        return figures


@contextmanager
def in_float32() -> Iterator[None]:
    """Within, products are as exact as float32, whatever ``float32_matmul_precision`` says."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def with_floors(
    figures: dict[str, float], floors: dict[str, float], baseline: dict[str, float] | None = None
) -> dict[str, float]:
    """The figures and, as ``frechet_floor`` and so on, those of unseen real images.

    As ``frechet_baseline`` and so on, those of a simple method, if there is one.
    """
    found = dict(figures)
    for kind, others in (("floor", floors), ("baseline", baseline or {})):
        found |= {f"{name.removesuffix('_distance')}_{kind}": v for name, v in others.items()}
    return found


def table(figures: dict[str, float]) -> str:
    """How many samples were judged, and each figure, its floor and their ratio, a line each.

    Where there is a baseline, that stands beside it, and who loses to it is told.
    """
    compared = any(name.endswith("_baseline") for name in figures)
    beside = "the truth" if compared else "as many real ones"
    head = f"{figures['samples']:.0f} samples, and {beside} as their floor:"
    columns = f"{'':24}{'samples':>12}{'floor':>12}{'ratio':>9}"
    lines = [head, columns + f"{'baseline':>12}" * compared]
    for name, value in figures.items():
        stem = name.removesuffix("_distance")
        floor, baseline = (figures.get(f"{stem}_{kind}") for kind in ("floor", "baseline"))
        if name.endswith(("_floor", "_baseline")) or floor is None:
            continue
        ratio = f"{value / floor:9.2f}" if floor else f"{'-':>9}"
        line = f"{name:24}{value:12.4f}{floor:12.4f}{ratio}"
        if baseline is not None:
            worse = value > baseline if name in LOWER else value < baseline
            line += f"{baseline:12.4f}" + "  loses to it" * (worse and name in LOWER + HIGHER)
        lines.append(line)
    return "\n".join(lines)
