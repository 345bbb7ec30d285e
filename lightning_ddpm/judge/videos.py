"""Videos of digits that move, beside the true ones: errors, and what became of the digits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_ddpm.judge.base import BATCH
from lightning_ddpm.judge.features import DigitFeatures
from lightning_ddpm.judge.paired import PairedJudge
from lightning_ddpm.observation.video import nearest_frames

MEAN_OF = 8  # samples
REACH = 5  # pixels that a digit is looked for away from its true place
SIMPLE = ("black", "average", "copy")
FIGURES = ("error_one", "error_mean", "error_after_bounces", "ssim", "digits_kept", "place_error")


class VideoJudge(PairedJudge):
    """Compares samples of videos with the truth, in the frames that were not known.

    Errors are squared, of values from 0 to 1, and summed over a frame, as the literature has them:
    of one sample, of the mean of up to 8, and of three simple methods: black frames, the average of
    the known ones, and a copy of the nearest. ``ssim`` is the structural similarity of one sample.

    Where the data say what moves, ``error_after_bounces`` is that of the mean in the two frames
    after a bounce; ``digits_kept`` the part of a sample's digits that are read as what they are at
    their true place; and ``place_error`` how many pixels from there, at most 5 along each axis, the
    frame looks most like the digit. Their floors are those of the true frames.

    Args:
        held_out: gives the videos of samples by the samples' indices.
        draws: samples of each video.
        most: samples of all videos.
        features: reads digits; ``DigitFeatures()`` if not given.
    """

    def __init__(
        self,
        held_out: Callable[[Sequence[int]], Mapping[str, Tensor]],
        draws: int,
        most: int,
        features: DigitFeatures | None = None,
    ) -> None:
        super().__init__(held_out, draws, most)
        self.extractor = features or DigitFeatures()

    def compute(self) -> dict[str, Tensor]:
        """The figures."""
        return self.compared(*self.beside_truth())

    def compared(
        self, videos: UInt8[Tensor, "n samples c frames h w"], asked: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The figures of samples beside the truth, and those of simple methods."""
        truth, unknown = asked["x0"], ~asked["known"]
        one, mean = videos[:, 0], videos[:, :MEAN_OF].float().mean(1)
        made = {"one": one, "mean": mean, **simple(truth, asked["known"])}
        errors = {name: squared_error(video, truth) for name, video in made.items()}
        figures = {f"error_{name}": error[unknown].mean() for name, error in errors.items()}
        frame, true = (video.transpose(1, 2)[unknown].float() / 255 for video in (one, truth))
        ssim: Any = structural_similarity_index_measure(frame, true, data_range=1.0)
        figures["ssim"] = ssim
        if "bounced" in asked:
            after = after_bounces(asked["bounced"]) & unknown
            if after.any():
                figures["error_after_bounces"] = errors["mean"][after].mean()
            figures |= self.of_digits(one, asked)
            figures |= {f"{n}_floor": value for n, value in self.of_digits(truth, asked).items()}
        return figures

    def table(self, figures: dict[str, float]) -> str:
        """A line for each figure, beside those of the truth and of simple methods."""
        others = {name: figures[f"error_{name}"] for name in SIMPLE}
        heads = "".join(f"{head:>12}" for head in ("samples", "truth", *SIMPLE))
        lines = [f"{figures['samples']:.0f} samples, in the frames that were not known:"]
        lines.append(f"{'':24}{heads}")
        for name in FIGURES:
            if name not in figures:
                continue
            value, truth = figures[name], figures.get(f"{name}_floor", float(name == "ssim"))
            line = f"{name:24}{value:12.3f}{truth:12.3f}"
            if name in ("error_one", "error_mean"):
                line += "".join(f"{error:12.3f}" for error in others.values())
                better = [other for other, error in others.items() if error < value]
                line += f"  loses to {', '.join(better)}" * bool(better)
            lines.append(line)
        return "\n".join(lines)

    def of_digits(
        self, videos: UInt8[Tensor, "n 1 frames h w"], asked: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """How many digits are read right at their place, and how far from it they seem to be."""
        unknown, right, away = ~asked["known"], [], []
        frames = F.pad(videos[:, 0], [REACH] * 4)[unknown]
        for images, labels, corners in zip(
            asked["images"].unbind(1),
            asked["digits"].unbind(1),
            asked["corners"].unbind(2),
            strict=True,
        ):
            row = unknown.nonzero()[:, 0]
            around = cut(frames, corners[unknown], images.shape[-1] + 2 * REACH)
            right.append(self.read(around[:, REACH:-REACH, REACH:-REACH]) == labels[row])
            away.append((located(around, images[row]) - REACH).float().norm(dim=1))
        return {
            "digits_kept": torch.cat(right).float().mean(),
            "place_error": torch.cat(away).mean(),
        }

    def read(self, images: UInt8[Tensor, "m k k"]) -> Int[Tensor, " m"]:
        """What each image is read as, brought to the size of MNIST's."""
        large = F.interpolate(images[:, None].float(), (28, 28), mode="bilinear").round().byte()
        features = [self.extractor(part.to(self.device)) for part in large.split(BATCH)]
        return self.extractor.classify(torch.cat(features)).cpu()


def cut(
    frames: UInt8[Tensor, "m h w"], corners: Int[Tensor, "m 2"], size: int
) -> UInt8[Tensor, "m size size"]:
    """The square of each frame whose upper left corner is there."""
    place = torch.arange(size)
    y, x = (corners[:, axis, None] + place for axis in (0, 1))
    return frames[torch.arange(len(frames))[:, None, None], y[:, :, None], x[:, None]]


def located(frames: UInt8[Tensor, "m h w"], digits: UInt8[Tensor, "m k k"]) -> Int[Tensor, "m 2"]:
    """The upper left corner of where each frame looks most like its digit.

    That is where the pixels of the digit, without its background, differ least.
    """
    square, weight = frames.float()[None] / 255, digits[:, None].float() / 255
    ink, m = (weight > 0).float(), len(weight)
    error = F.conv2d(square**2, ink, groups=m) - 2 * F.conv2d(square, weight, groups=m)
    best = error[0].flatten(1).argmin(1)
    return torch.stack([best // error.shape[-1], best % error.shape[-1]], dim=1)


def after_bounces(bounced: Bool[Tensor, "n frames"]) -> Bool[Tensor, "n frames"]:
    """Which frames are one of the two after one in which a digit bounced."""
    one, two = (F.pad(bounced, (later, 0))[:, :-later] for later in (1, 2))
    return one | two


def squared_error(
    made: Shaped[Tensor, "n c frames h w"], truth: Shaped[Tensor, "n c frames h w"]
) -> Float[Tensor, "n frames"]:
    """The sum over each frame of the squared errors of values from 0 to 1."""
    return ((made.float() - truth.float()) / 255).square().sum((1, 3, 4))


def simple(
    truth: UInt8[Tensor, "n c frames h w"], known: Bool[Tensor, "n frames"]
) -> dict[str, Tensor]:
    """What ``SIMPLE`` methods make of the frames that are known."""
    weight = known[:, None, :, None, None].float()
    average = (truth * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True).clamp(min=1)
    made = (torch.zeros_like(truth), average.expand(truth.shape), nearest_frames(truth, known))
    return dict(zip(SIMPLE, made, strict=True))
