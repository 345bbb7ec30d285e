"""All figures of generated digits at once, each to be put beside its floor."""

import math

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.utilities import dim_zero_cat

from lightning_ddpm.judge.base import BATCH, Judge, in_float32
from lightning_ddpm.judge.features import DigitFeatures
from lightning_ddpm.judge.manifold import Manifold
from lightning_ddpm.judge.memorisation import memorisation, nearest
from lightning_ddpm.media.images import image_grid
from lightning_ddpm.shapes import shuffled

Digits = UInt8[Tensor, "n 1 28 28"]
COLUMNS = 10  # of the picture


class Precomputed(nn.Module):
    """Takes features where torchmetrics has images: they are computed once, for all figures."""

    num_features = DigitFeatures.num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return them."""
        return features


class DigitJudge(Judge):
    """Compares generated digits with training digits, in frozen features and in pixels.

    The figures are those of the images in the order of their indices, whatever the batches and the
    number of processes. Distances are to all training images, manifolds to as many as are judged.
    Images that were to show certain digits are compared with training images in the same shares.

    Args:
        train: the training images and their labels (n).
        test: the test images and their labels, which the floors are of.
        features: the frozen classifier; ``DigitFeatures()`` if not given.
    """

    train_images: Tensor
    indices: list[Tensor]
    features: list[Tensor]
    labels: list[Tensor]
    distances: list[Tensor]

    def __init__(
        self,
        train: tuple[Digits, Int[Tensor, " n"]],
        test: tuple[UInt8[Tensor, "m 1 28 28"], Int[Tensor, " m"]],
        features: DigitFeatures | None = None,
    ) -> None:
        super().__init__()
        images, labels = train
        order = shuffled(len(test[0]))
        self.test = (test[0][order], test[1][order])  # MNIST's are ordered by their writers
        self.extractor = features or DigitFeatures()
        self.register_buffer("train_images", images, persistent=False)
        self.train_labels = labels.cpu()
        self.train_features: Tensor | None = None
        for name in ("indices", "features", "labels", "distances"):
            self.add_state(name, [], dist_reduce_fx="cat")

    picture_title = "training images, samples, nearest training images"

    @property
    def most(self) -> int:
        """As many images are judged at the most: those of the floor."""
        return len(self.test[0])

    def extract(self, images: Digits) -> Float[Tensor, "n d"]:
        """The frozen features of images, a batch at a time."""
        return torch.cat([self.extractor(batch) for batch in images.split(BATCH)])

    def update(
        self,
        samples: Digits,
        index: Int[Tensor, " n"],
        label: Int[Tensor, " n"] | None = None,
    ) -> None:
        """Add images, their places among all, and the digits they were to show, if any were."""
        self.indices.append(index)
        self.features.append(self.extract(samples))
        self.labels.append(torch.full_like(index, -1) if label is None else label)
        self.distances.append(nearest(samples, self.train_images)[0])

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
        asked = labels.cpu() if (labels >= 0).all() else None
        reference = slice(None) if asked is None else in_shares_of(self.train_labels, asked)
        real, read = self.train_features[reference], self.extractor.classify(features)
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
        told = self.train_labels[reference]
        expected = told.bincount(minlength=10) / len(told) * len(read)
        terms = (counts - expected) ** 2 / expected
        figures["class_chi_square"] = terms[expected > 0].sum()
        figures |= {f"share_of_{digit}": count / len(read) for digit, count in enumerate(counts)}
        if asked is not None:
            figures["label_accuracy"] = (read == labels).float().mean()
        return figures

    def floors(
        self,
        size: int,
        labels: Int[Tensor, " n"] | None = None,
        rank: int = 0,
        processes: int = 1,
    ) -> dict[str, float]:
        """The figures of ``size`` test images in random order, always the same ones."""
        images, told = self.test
        chosen = torch.arange(size) if labels is None else in_shares_of(told, labels.cpu(), most=1)
        label = None if labels is None else told[chosen]
        return self.score(images[chosen], label, rank, processes)

    def picture(self, samples: Digits) -> UInt8[Tensor, "3 H W"]:
        """A row of training images, one of samples, and one of those nearest to them."""
        images = samples[:COLUMNS]
        _, places = nearest(images, self.train_images)
        rows = [self.train_images[: len(images)], images, self.train_images[places[:, 0]]]
        return image_grid(torch.cat(rows), columns=len(images))


def in_shares_of(
    labels: Int[Tensor, " n"], asked: Int[Tensor, " m"], most: float = math.inf
) -> Int[Tensor, " k"]:
    """The places of as many of ``labels`` as have, together, the shares of the ones ``asked``.

    ``most``: at most so many times as many as were asked.
    """
    have, want = labels.bincount(minlength=10), asked.bincount(minlength=10)
    times = min(most, (have / want)[want > 0].min().item())
    places = [
        (labels == label).nonzero()[: int(count * times), 0] for label, count in enumerate(want)
    ]
    return torch.cat(places).sort().values


def frechet_distance(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"]) -> Tensor:
    """Fréchet distance of the Gaussians through both sets (Heusel et al. 2017, 1706.08500)."""
    metric = FrechetInceptionDistance(Precomputed(), sync_on_compute=False).to(real.device)
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return metric.compute()


@in_float32()
def kernel_distance(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"]) -> Tensor:
    """Squared maximum mean discrepancy, over 100 subsets (Bińkowski et al. 2018, 1801.01401)."""
    size = min(1000, len(generated), len(real))
    metric = KernelInceptionDistance(Precomputed(), subset_size=size, sync_on_compute=False)
    metric.to(real.device).update(real, real=True)
    metric.update(generated, real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # chooses the subsets; a GPU's stays as it is
        return metric.compute()[0]
