"""Series of numbers: each standardised; forecasts as fans and as tables of quantiles."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lightning_ddpm.files import replacing
from lightning_ddpm.media.base import Arrays, Medium, grouped, write_png
from lightning_ddpm.shapes import Samples, spaced

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
WINDOWS, SERIES = 4, 4  # that are drawn


class Series(Medium):
    """Series (b, c, length) in their own units, NaN where nothing was measured.

    In files, where the array is ``series``, the samples of a window stand together: (n, samples, c,
    length).

    Args:
        mean: of each series (c); in a recipe the training data's, else 0 if not given.
        std: of each series (c); in a recipe the training data's, else 1 if not given.
        names: what each is called; in a recipe the data's.

    Raises:
        ValueError: if there is no ``mean`` for a ``std``, or a ``std`` is not above 0.
    """

    name = "series"
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if len(mean or ()) != len(std or ()) or min(std or [1]) <= 0:
            raise ValueError(f"each series needs a mean and a std above 0, got {mean} and {std}")
        self.mean = mean
        self.std = std
        self.names = names
        self.register_buffer("shift", torch.tensor(mean or [0.0])[:, None], persistent=False)
        self.register_buffer("scale", torch.tensor(std or [1.0])[:, None], persistent=False)

    def encode(self, raw: Tensor) -> Samples:
        """Standardise; what was not measured becomes the mean.

        Raises:
            ValueError: if they are no series, or of another number.
        """
        if raw.ndim != 3 or (self.mean and len(self.mean) != raw.shape[1]):
            wanted = len(self.mean) if self.mean else "c"
            raise ValueError(f"series must be (b, {wanted}, length), got {tuple(raw.shape)}")
        return ((raw.float() - self.shift) / self.scale).nan_to_num(0)

    def decode(self, x0: Samples) -> Float[Tensor, "b c length"]:
        """Back to their own units."""
        return x0 * self.scale + self.shift

    def decode_known(self, x0: Samples, known: Bool[Tensor, "b c length"], raw: Tensor) -> Tensor:
        """What is known is as it was, which rounding would not leave it."""
        return torch.where(known, raw, self.decode(x0))

    def files(self, film: bool = False, **options: Any) -> list[str]:
        """Arrays, and of a forecast a table and fans."""
        return [*super().files(), "forecast.csv", "forecast.png"]

    def picture(self, samples: Arrays) -> UInt8[Tensor, "3 H W"] | None:
        """Fans of 90% and 50% of the samples, around their median, over the truth.

        Of a few windows and series; what was known is orange, and the truth black.
        """
        windows = grouped(samples, self.name)
        known, truth = windows.get("known"), windows.get("truth")
        return pixels(fans(windows[self.name], known, truth, self.names or ()))

    def write(self, samples: Arrays, folder: Path, **options: Any) -> list[Path]:
        """Write ``samples.npz`` and, of a forecast, ``forecast.csv`` and ``forecast.png``."""
        windows = grouped(samples, self.name)
        written, picture = super().write(windows, folder), self.picture(samples)
        if "known" not in windows or picture is None:
            return written
        write_png(picture, folder / "forecast.png")
        with replacing(folder / "forecast.csv") as temporary:
            self.forecast(windows).to_csv(temporary, index=False, float_format="%.6g")
        return [*written, folder / "forecast.csv", folder / "forecast.png"]

    def forecast(self, windows: Arrays) -> Any:
        """A data frame of the quantiles of all that was not known, and when it is.

        Where there are no times, their rows are told, counted from 0.
        """
        import pandas as pd

        series, known, row = (windows[name].numpy() for name in (self.name, "known", "row"))
        window, channel, place = (~known & (row >= 0)[:, None]).nonzero()
        names = np.array(self.names or [str(i) for i in range(known.shape[1])])
        when: dict[str, Any] = {"row": row[window, place]}
        if "time" in windows:
            seconds = windows["time"].numpy()[window, place]
            when = {"time": pd.to_datetime(seconds, unit="s")}
        quantiles = np.quantile(series, QUANTILES, axis=1)[:, window, channel, place]
        columns = dict(zip(map(str, QUANTILES), quantiles, strict=True))
        return pd.DataFrame({"window": window, **when, "series": names[channel], **columns})


def fans(series: Tensor, known: Tensor | None, truth: Tensor | None, names: Sequence[str]) -> Any:
    """A figure of forecasts (n, samples, c, length), a row for each window."""
    from matplotlib.figure import Figure

    chosen, c = spaced(len(series), WINDOWS), min(SERIES, series.shape[2])
    figure = Figure(figsize=(3.2 * c, 2.1 * len(chosen)), dpi=80, layout="constrained")
    axes = figure.subplots(len(chosen), c, squeeze=False)
    for (row, i), j in ((place, j) for place in enumerate(chosen) for j in range(c)):
        axis, place = axes[row, j], np.arange(series.shape[3])
        low, lower, middle, upper, high = np.quantile(series[i, :, j], QUANTILES, axis=0)
        axis.fill_between(place, low, high, alpha=0.25, color="C0", linewidth=0)
        axis.fill_between(place, lower, upper, alpha=0.4, color="C0", linewidth=0)
        axis.plot(place, middle, color="C0", linewidth=1)
        if truth is not None:
            axis.plot(place, truth[i, j], color="black", linewidth=1)
        if truth is not None and known is not None:
            axis.plot(place, np.where(known[i, j], truth[i, j], np.nan), color="C1", linewidth=1.5)
        if row == 0 and len(names) > j:
            axis.set_title(names[j], fontsize=9)
    return figure


def pixels(figure: Any) -> UInt8[Tensor, "3 H W"]:
    """What a figure of matplotlib looks like."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)
