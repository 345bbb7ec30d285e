"""Judge any file of digits: ``python train.py score FILE.npz|FILE.pt|FOLDER``."""

from json import dumps
from pathlib import Path

from lightning_ddpm.data import MNISTDataModule
from lightning_ddpm.judge import table, with_floors
from lightning_ddpm.judge.files import read_samples


def score(file: Path, json: bool = False, data_dir: str | None = None) -> None:
    """Print the figures of generated digits, beside those of as many test digits.

    Of more images than there are test images only the first ones are judged.

    Args:
        file: .npz, .npy or .pt, or a folder of pictures.
        json: print JSON instead of a table.
        data_dir: folder of MNIST, as for train.py.
    """
    images, labels = read_samples(file)
    data = MNISTDataModule(data_dir)
    data.prepare_data()
    judge = data.judge()
    assert judge is not None  # of MNIST there is one
    size = min(len(images), judge.most)
    images, labels = images[:size], None if labels is None else labels[:size]
    figures, floors = judge.score(images, labels), judge.floors(size, labels)
    figures = {"samples": size, **with_floors(figures, floors)}
    print(dumps(figures, indent=2) if json else table(figures))
