"""A model as a classifier: ``python train.py classify --ckpt_path conditional.ckpt``."""

from pathlib import Path

from torch import Tensor

from lightning_ddpm.checkpoints import PRETRAINED, load_model
from lightning_ddpm.classification import detection, errors_of
from lightning_ddpm.cli.errors import refuse
from lightning_ddpm.data import MNISTDataModule


def classify(
    ckpt_path: Path = PRETRAINED,
    data_dir: str | None = None,
    fashion_dir: str | None = None,
    num_images: int = 500,
    draws: int = 20,
) -> None:
    """Print the accuracy on MNIST's test images, and how well Fashion-MNIST is told from them.

    Args:
        ckpt_path: the package's model if not given.
        data_dir: folder of MNIST, as for train.py.
        fashion_dir: folder of Fashion-MNIST; data_dir if not given.
        num_images: how many test images.
        draws: time steps for each image.
    """
    if num_images < 1 or draws < 1:
        refuse("--num_images and --draws must be at least 1")
    model = load_model(ckpt_path)
    if model.shape != (1, 28, 28):
        raise ValueError(f"{ckpt_path} is of samples of shape {model.shape}")
    x0, label = (part[:num_images] for part in test_split(MNISTDataModule(data_dir)))
    if classes := list(range(model.network.num_classes)):
        accuracy = (errors_of(model, x0, classes, draws).argmin(1) == label).double().mean()
        print(f"classifier accuracy: {accuracy:.1%} of {len(x0)} test images")
    fashion, _ = test_split(MNISTDataModule(fashion_dir or data_dir, "FashionMNIST"))
    sets = (x0, fashion[:num_images])
    inside, outside = (errors_of(model, images, [-1], draws)[:, 0] for images in sets)
    print(f"MNIST against Fashion-MNIST: AUROC {detection(inside, outside):.4f}")


def test_split(data: MNISTDataModule) -> tuple[Tensor, Tensor]:
    """The test images and their labels, fetched if they are not there."""
    data.prepare_data()
    return data.load_splits("test")["test"].pair()
