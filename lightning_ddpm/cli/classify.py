"""A model as a classifier: ``python train.py classify --ckpt_path conditional.ckpt``."""

from pathlib import Path

from torch import Tensor

from lightning_ddpm.checkpoints import PRETRAINED, model_of, read_saved
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
    """Print the accuracy on the model's own test images, and how well others are told from them.

    Args:
        ckpt_path: the package's model if not given.
        data_dir: folder of MNIST, as for train.py.
        fashion_dir: folder of the others, Fashion-MNIST or, for its models, MNIST; or data_dir.
        num_images: how many test images.
        draws: time steps for each image.
    """
    if num_images < 1 or draws < 1:
        refuse("--num_images and --draws must be at least 1")
    saved = read_saved(ckpt_path)
    model, trained = model_of(saved), saved.recipe.get("data")
    own = trained["init_args"].get("dataset") if trained else "MNIST"
    if model.shape != (1, 28, 28):
        raise ValueError(f"{ckpt_path} is of samples of shape {model.shape}")
    if own is None or model.network.num_classes not in (0, 10):
        raise ValueError(f"{ckpt_path}: not a model of MNIST or its drop-in replacements")
    other = "MNIST" if own == "FashionMNIST" else "FashionMNIST"
    x0, label = (part[:num_images] for part in test_split(MNISTDataModule(data_dir, own)))
    if classes := list(range(model.network.num_classes)):
        accuracy = (errors_of(model, x0, classes, draws).argmin(1) == label).double().mean()
        print(f"classifier accuracy: {accuracy:.1%} of {len(x0)} test images")
    others, _ = test_split(MNISTDataModule(fashion_dir or data_dir, other))
    sets = (x0, others[:num_images])
    inside, outside = (errors_of(model, images, [-1], draws)[:, 0] for images in sets)
    print(f"{own} against {other}: AUROC {detection(inside, outside):.4f}")


def test_split(data: MNISTDataModule) -> tuple[Tensor, Tensor]:
    """The test images and their labels, fetched if they are not there."""
    data.prepare_data()
    return data.load_splits("test")["test"].pair()
