"""The diffusion model as a classifier and as a detector of images of another kind.

``python train.py classify --ckpt_path conditional.ckpt``
"""

import argparse
import sys

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc
from tqdm import tqdm

from lightning_ddpm.checkpoints import load_model
from lightning_ddpm.data import DataError, MNISTDataModule
from lightning_ddpm.module import DiffusionLightningModule
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.shapes import Images


@torch.no_grad()
def denoising_errors(
    model: DiffusionLightningModule,
    x0: Images,
    index: Int[Tensor, " b"],
    labels: list[int],
    draws: int,
) -> Float[Tensor, "b labels"]:
    """How badly the model denoises each image under each label (2303.16203, algorithm 1).

    The loss is averaged over ``draws`` evenly spaced time steps. Time steps and noise are the same
    for all labels, so that they differ by the label alone.

    Args:
        model: the model.
        x0: images (b, c, h, w) in [-1, 1].
        index: each image's place in its split, which its noise belongs to.
        labels: the classes to try, -1 for none.
        draws: how many time steps.
    """
    noise, errors = SampleNoise(0, index.tolist()), torch.zeros(len(x0), len(labels))
    for draw in range(draws):
        time = int((draw + 0.5) / draws * model.schedule.T)
        t = torch.full((len(x0),), time, device=x0.device)
        epsilon = noise.draw(x0.shape[1:]).to(x0)
        for i, label in enumerate(labels):
            given = torch.full_like(t, label) if model.network.num_classes > 0 else None
            errors[:, i] += model.loss(x0, t, epsilon, given).cpu() / draws
    return errors


def errors_of_split(
    model: DiffusionLightningModule,
    data: MNISTDataModule,
    labels: list[int],
    size: int,
    draws: int,
) -> tuple[Float[Tensor, "n labels"], Int[Tensor, " n"]]:
    """``denoising_errors`` of the first ``size`` test images, and their true labels."""
    data.prepare_data()
    split = data.load_splits("test")["test"]
    errors = []
    for index in tqdm(torch.arange(min(size, len(split))).split(100), data.dataset):
        x0 = (split.images[index].float() / 127.5 - 1).to(model.device)
        errors.append(denoising_errors(model, x0, index, labels, draws))
    return torch.cat(errors), split.labels[:size]


def detection(inside: Float[Tensor, " n"], outside: Float[Tensor, " m"]) -> float:
    """How well errors tell images of another kind: area under the ROC curve; 0.5 is by chance."""
    errors = torch.cat([inside, outside])
    other = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).long()
    return binary_auroc(errors / errors.max(), other).item()


def main() -> None:
    """Print the accuracy on MNIST's test images, and how well Fashion-MNIST is told from them."""
    parser = argparse.ArgumentParser(prog="python train.py classify", description=__doc__)
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--data_dir", help="folder of MNIST, as for train.py")
    parser.add_argument("--fashion_dir", help="folder of Fashion-MNIST; data_dir if not given")
    parser.add_argument("--num_images", type=int, default=500)
    parser.add_argument("--draws", type=int, default=20, help="time steps for each image")
    options = parser.parse_args()
    if options.num_images < 1 or options.draws < 1:
        sys.exit("error: --num_images and --draws must be at least 1")
    try:
        model = load_model(options.ckpt_path)
        if model.image_shape != (1, 28, 28):
            raise ValueError(f"{options.ckpt_path} is of images of shape {model.image_shape}")
        digits = MNISTDataModule(options.data_dir)
        sizes = (options.num_images, options.draws)
        classes = list(range(model.network.num_classes))
        if classes:
            errors, labels = errors_of_split(model, digits, classes, *sizes)
            accuracy = (errors.argmin(1) == labels).double().mean().item()
            print(f"classifier accuracy: {accuracy:.1%} of {len(labels)} test images")
        fashion = MNISTDataModule(options.fashion_dir or options.data_dir, "FashionMNIST")
        inside, _ = errors_of_split(model, digits, [-1], *sizes)
        outside, _ = errors_of_split(model, fashion, [-1], *sizes)
        print(f"MNIST against Fashion-MNIST: AUROC {detection(inside[:, 0], outside[:, 0]):.4f}")
    except (DataError, OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
