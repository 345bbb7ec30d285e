"""What a sample is: how raw data become x0 and x0 becomes raw data, a picture and files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor, nn

from lightning_ddpm.files import replacing
from lightning_ddpm.shapes import Samples

Arrays = Mapping[str, Tensor]
"""Raw samples under the medium's name and, beside them, what was asked for: ``labels`` (n), what
was ``known`` of each, and the ``truth``."""


class Medium(nn.Module, ABC):
    """A kind of data. Subclasses keep their constructor's arguments as attributes."""

    name: str
    """What an array of raw samples is called in files."""

    value_range: tuple[float, float] | None = None
    """What a predicted x0 is clipped to, if data have bounds."""

    def shape(self, raw_shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of x0 (c, *spatial) of raw data of ``raw_shape``."""
        return tuple(raw_shape)

    @abstractmethod
    def encode(self, raw: Tensor) -> Samples:
        """The clean samples x0 (b, c, *spatial), in float32, of raw data (b, ...).

        Raises:
            ValueError: if the raw data are of another kind.
        """

    @abstractmethod
    def decode(self, x0: Samples) -> Tensor:
        """The raw data of clean samples x0 (b, c, *spatial)."""

    def decode_known(self, x0: Samples, known: Tensor, raw: Tensor) -> Tensor:
        """The same, where some of it is ``known`` (b, k, *spatial) to be as the ``raw`` data are.

        Media override it whose ``decode`` gives back what was encoded only nearly.
        """
        return self.decode(x0)

    def log_likelihood(self, x0: Samples, mean: Samples, std: Tensor) -> Samples:
        """Log-probability, in nats, of each value of the data under the decoder of L_0.

        ``mean`` has the shape of ``x0``, and ``std`` is broadcast over it. Where a medium does not
        say it, there is no bound.
        """
        raise NotImplementedError(f"{type(self).__name__} has no decoder, and so no bound")

    @property
    def has_decoder(self) -> bool:
        """Whether there is one."""
        return type(self).log_likelihood is not Medium.log_likelihood

    def picture(self, samples: Arrays) -> UInt8[Tensor, "3 H W"] | None:
        """Show raw samples, and what was asked for, in one picture, if they can be shown."""
        return None

    def gif(self, samples: Arrays) -> bytes | None:
        """The same as a moving picture, where samples move."""
        return None

    def files(self, film: bool = False, **options: Any) -> list[str]:
        """What ``write`` with these options, and ``write_film``, may call their files, as globs."""
        return ["samples.npz"]

    def write(self, samples: Arrays, folder: Path, **options: Any) -> list[Path]:
        """Write raw samples to a folder that exists, and return the files: ``samples.npz``, always.

        It holds the arrays by name.
        """
        path = folder / "samples.npz"
        with replacing(path) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {name: array.numpy() for name, array in samples.items()}
            np.savez_compressed(file, **arrays)
        return [path]

    def write_film(self, film: Tensor, folder: Path) -> list[Path]:
        """Write the way from noise to samples, raw (n, frames, ...); return the files, if any."""
        return []


def write_png(picture: UInt8[Tensor, "c h w"], path: Path) -> None:
    """Write a grey (c = 1) or RGB (c = 3) picture, making its folder first."""
    from torchvision.transforms.functional import to_pil_image

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        to_pil_image(picture).save(temporary, format="png")


def grouped(samples: Arrays, name: str) -> dict[str, Tensor]:
    """The samples of each ``window`` together, under their medium's ``name``: (n, samples, ...).

    What they have in common, as ``known`` and ``truth`` (n, ...), stands there once.
    """
    if "window" not in samples:
        return {**samples, name: samples[name][:, None]}
    n = len(samples["window"].unique())
    arrays = {key: a.unflatten(0, (n, -1)) for key, a in samples.items() if key != "window"}
    return {key: a if key == name else a[:, 0] for key, a in arrays.items()}
