"""All figures of generated digits at once, each to be put beside its floor."""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.utilities import dim_zero_cat

from lightning_ddpm.data.base import ImageDataset
from lightning_ddpm.metrics.features import DigitFeatures
from lightning_ddpm.metrics.manifold import Manifold
from lightning_ddpm.metrics.memorisation import memorisation, nearest

Digits = UInt8[Tensor, "n 1 28 28"]
BATCH = 500


class AsIs(nn.Module):
    """Takes features for images: they are computed once, for all figures."""

    num_features = DigitFeatures.num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return them."""
        return features


class Judge(Metric):
    """Compares generated digits with training digits, in frozen features and in pixels.

    The figures are those of the images in the order of their indices, whatever the batches and the
    number of processes. Distances are to all training images, manifolds to as many as are judged.

    Args:
        train: the training split.
        features: the frozen classifier; ``DigitFeatures()`` if not given.
    """

    train_images: Tensor
    indices: list[Tensor]
    features: list[Tensor]
    labels: list[Tensor]
    distances: list[Tensor]

    def __init__(self, train: ImageDataset, features: DigitFeatures | None = None) -> None:
        super().__init__()
        self.extractor = features or DigitFeatures()
        self.register_buffer("train_images", train.images, persistent=False)
        self.train_share = train.labels.bincount(minlength=10).cpu() / len(train)
        self.train_features: Tensor | None = None
        for name in ("indices", "features", "labels", "distances"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def extract(self, images: Digits) -> Float[Tensor, "n d"]:
        """The frozen features of images, a batch at a time."""
        return torch.cat([self.extractor(batch) for batch in images.split(BATCH)])

    def update(
        self,
        images: Digits,
        index: Int[Tensor, " n"],
        label: Int[Tensor, " n"] | None = None,
    ) -> None:
        """Add images, their places among all, and the digits they were to show, if any were."""
        self.indices.append(index)
        self.features.append(self.extract(images))
        self.labels.append(torch.full_like(index, -1) if label is None else label)
        self.distances.append(nearest(images, self.train_images)[0])

    def compute(self) -> dict[str, Tensor]:
        """The figures; see the README for what each means.

        Raises:
            ValueError: if there are too few images to be judged.
        """
        order = dim_zero_cat(self.indices).argsort()
        features, labels, distances = (
            dim_zero_cat(state)[order] for state in (self.features, self.labels, self.distances)
        )
        if len(features) < 6:
            raise ValueError(f"at least 6 images are needed to judge them, got {len(features)}")
        if self.train_features is None:
            self.train_features = self.extract(self.train_images)
        real, read = self.train_features, self.extractor.classify(features)
        figures = {
            "frechet_distance": frechet_distance(real, features),
            "kernel_distance": kernel_distance(real, features),
        }
        spaced = torch.linspace(0, len(real) - 1, min(len(features), len(real))).long()
        manifold = Manifold(sync_on_compute=False).to(real.device)
        manifold.update(real[spaced.to(real.device)], real=True)
        manifold.update(features, real=False)
        figures |= manifold.compute()
        figures |= memorisation(distances)
        counts = read.bincount(minlength=10).cpu()
        expected = self.train_share * len(read)
        figures["class_chi_square"] = ((counts - expected) ** 2 / expected).sum()
        figures |= {f"share_of_{digit}": count / len(read) for digit, count in enumerate(counts)}
        if (labels >= 0).all():
            figures["label_accuracy"] = (read == labels).float().mean()
        return figures

    def score(
        self,
        images: Digits,
        labels: Int[Tensor, " n"] | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> dict[str, float]:
        """The figures of ``images``, of which process ``rank`` of ``processes`` adds its share."""
        self.reset()
        device = self.train_images.device
        for place in torch.arange(rank, len(images), processes).split(BATCH):
            label = None if labels is None else labels[place].to(device)
            self.update(images[place].to(device), place.to(device), label)
        return self.figures()

    def figures(self) -> dict[str, float]:
        """The figures as plain numbers; what was added is forgotten."""
        figures = {name: float(value) for name, value in self.compute().items()}
        self.reset()
        return figures


def frechet_distance(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"]) -> Tensor:
    """Fréchet distance of the Gaussians through both sets (Heusel et al. 2017, 1706.08500)."""
    metric = FrechetInceptionDistance(AsIs(), sync_on_compute=False).to(real.device)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return metric.compute()


def kernel_distance(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"]) -> Tensor:
    """Squared maximum mean discrepancy, over 100 subsets (Bińkowski et al. 2018, 1801.01401)."""
    size = min(1000, len(generated), len(real))
    metric = KernelInceptionDistance(AsIs(), subset_size=size, sync_on_compute=False)
    metric.to(real.device).update(real, real=True)
    metric.update(generated, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # chooses the subsets
        return metric.compute()[0]


def with_floors(figures: dict[str, float], floors: dict[str, float]) -> dict[str, float]:
    """The figures and, as ``frechet_floor`` and so on, those of unseen real images."""
    named = {f"{name.removesuffix('_distance')}_floor": value for name, value in floors.items()}
    return figures | named


def table(figures: dict[str, float]) -> str:
    """Each figure, its floor and their ratio, a line each."""
    lines = [f"{'':24}{'samples':>12}{'floor':>12}{'ratio':>9}"]
    for name, value in figures.items():
        floor = figures.get(f"{name.removesuffix('_distance')}_floor")
        if name.endswith("_floor") or floor is None:
            continue
        ratio = f"{value / floor:9.2f}" if floor else f"{'-':>9}"
        lines.append(f"{name:24}{value:12.4f}{floor:12.4f}{ratio}")
    return "\n".join(lines)
