"""Videos of 8-bit frames: film strips, animations and mp4."""

import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from lightning_ddpm.files import replacing
from lightning_ddpm.media.base import Arrays, Medium, grouped, write_png
from lightning_ddpm.media.images import UNKNOWN, from_uint8, gif_of, image_grid, to_uint8, write_gif
from lightning_ddpm.shapes import Samples, spaced

SHOWN_VIDEOS, SHOWN_SAMPLES, SHOWN_FRAMES = 4, 2, 20
FRAME_RATE = Fraction(25, 2)  # a second, as GIFs have


class Videos(Medium):
    """Videos (b, c, frames, h, w) of one byte a channel, 0..255, grey (c = 1) or RGB (c = 3).

    In files, where the array is ``videos``, the samples of a video stand together: (n, samples,
    frames, h, w), and of RGB ones (n, samples, frames, h, w, 3).
    """

    name = "videos"
    value_range = (-1.0, 1.0)

    def encode(self, raw: Tensor) -> Samples:
        """Map 0..255 to [-1, 1].

        Raises:
            ValueError: if they are no videos of bytes.
        """
        if raw.ndim != 5 or raw.dtype != torch.uint8:
            found = f"{raw.dtype} of shape {tuple(raw.shape)}"
            raise ValueError(f"videos must be bytes (b, c, frames, h, w), got {found}")
        return from_uint8(raw)

    def decode(self, x0: Samples) -> UInt8[Tensor, "b c frames h w"]:
        """Round to the nearest grey level."""
        return to_uint8(x0)

    def picture(self, samples: Arrays) -> UInt8[Tensor, "3 H W"] | None:
        """A few videos as film strips, two samples of each below the truth, if there is one.

        Of the truth, what was not known is tinted blue. Videos that are neither grey nor RGB cannot
        be shown.
        """
        if not self.shows(samples):
            return None
        videos = beside_truth(grouped(samples, self.name)).flatten(0, 1)
        frames = spaced(videos.shape[2], SHOWN_FRAMES)
        images = videos[:, :, frames].transpose(1, 2).flatten(0, 1)
        return image_grid(images, columns=len(frames))

    def shows(self, samples: Arrays) -> bool:
        """Whether they are grey or RGB."""
        return samples[self.name].shape[1] in (1, 3)

    def files(self, film: bool = False, **options: Any) -> list[str]:
        """Arrays, film strips, and an animation, twice."""
        return [*super().files(), "strips.png", "videos.gif", "videos.mp4"]

    def write(self, samples: Arrays, folder: Path, **options: Any) -> list[Path]:
        """Write ``samples.npz``, ``strips.png``, ``videos.gif`` and ``videos.mp4``."""
        arrays, picture = grouped(samples, self.name), self.picture(samples)
        named = {n: in_files(a) if a.ndim > 4 else a for n, a in arrays.items()}
        written = super().write(named, folder)
        if picture is None:
            return written
        frames = self.animation(samples)
        strips, gif, mp4 = (folder / name for name in self.files()[1:])
        write_png(picture, strips)
        write_gif(frames, gif)
        filmed = [mp4] if write_mp4(frames, mp4) else []
        return [*written, strips, gif, *filmed]

    def gif(self, samples: Arrays) -> bytes | None:
        """What ``picture`` shows as a moving picture: a row for each video."""
        return gif_of(self.animation(samples)) if self.shows(samples) else None

    def animation(self, samples: Arrays) -> list[UInt8[Tensor, "3 H W"]]:
        """The pictures of it."""
        videos = beside_truth(grouped(samples, self.name))
        return [image_grid(f.flatten(0, 1), columns=videos.shape[1]) for f in videos.unbind(3)]


def beside_truth(windows: Arrays) -> UInt8[Tensor, "n k 3 frames h w"]:
    """Two samples of each of a few videos, after the truth, if there is one."""
    videos, chosen = windows[Videos.name], spaced(len(windows[Videos.name]), SHOWN_VIDEOS)
    shown = videos[chosen, :SHOWN_SAMPLES].expand(-1, -1, 3, -1, -1, -1)
    if "truth" not in windows:
        return shown
    truth = windows["truth"][chosen].expand(-1, 3, -1, -1, -1)
    blue = torch.tensor(UNKNOWN, dtype=torch.uint8)[:, None, None, None].expand_as(truth)
    known = windows["known"][chosen][:, None, :, None, None]
    return torch.cat([torch.where(known, truth, truth.maximum(blue))[:, None], shown], dim=1)


def in_files(videos: Shaped[Tensor, "*n c frames h w"]) -> Shaped[Tensor, "..."]:
    """Grey ones without channels, others with them at the end."""
    return videos.squeeze(-4) if videos.shape[-4] == 1 else videos.movedim(-4, -1)


def write_mp4(frames: Sequence[UInt8[Tensor, "3 H W"]], path: Path) -> bool:
    """Write frames, cut to even heights and widths, as the codec H.264 asks for.

    Where the package av is not installed or lacks it, that is told, and nothing is written.
    """
    try:
        import av

        av.Codec("h264", "w")
    except (ImportError, ValueError):  # the latter of a codec that is not there
        warnings.warn(f'{path.name} needs av: pip install "lightning-ddpm[video]"', stacklevel=2)
        return False
    height, width = (size - size % 2 for size in frames[0].shape[1:])
    with replacing(path) as temporary, av.open(temporary, "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=FRAME_RATE)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            pixels = frame[:, :height, :width].permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return True
