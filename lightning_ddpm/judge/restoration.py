"""How far restored samples are from the truth, in what was not known of them."""

from jaxtyping import Bool, Shaped
from torch import Tensor
from torchmetrics import MeanMetric

from lightning_ddpm.shapes import Scalar


def restoration_error(
    raw: Shaped[Tensor, "n ..."],
    truth: Shaped[Tensor, "n ..."],
    unknown: Bool[Tensor, "n ..."],
) -> Scalar:
    """The mean absolute error of raw samples in what was ``unknown``, of all processes together."""
    mean = MeanMetric().to(raw.device)
    mean.update((raw.float() - truth.float()).abs(), unknown.float())
    return mean.compute()
