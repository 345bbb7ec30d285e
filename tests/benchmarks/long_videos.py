"""What becomes of digits in videos of 300 frames: python tests/benchmarks/long_videos.py CKPT."""

import argparse

import torch
from torch import Tensor

from lightning_ddpm import load_model
from lightning_ddpm.data import MovingMNISTDataModule
from lightning_ddpm.judge.videos import VideoJudge, cut, located
from lightning_ddpm.longer import longer

LAST = 20  # frames
SPEED = 0.1 * (32 - 14)  # pixels a frame


def figures(judge: VideoJudge, videos: Tensor, asked: dict[str, Tensor]) -> tuple[float, ...]:
    """Of the last frames: digits that are read right where they seem to be, and even steps.

    A step is even if it is at most a pixel and a half, which is what rounding does, longer or
    shorter than the digits' speed.
    """
    right, even = [], []
    last = videos[:, 0, -LAST:].flatten(0, 1)
    for images, labels in zip(asked["images"].unbind(1), asked["digits"].unbind(1), strict=True):
        corners = located(last, images.repeat_interleave(LAST, 0))
        read = judge.read(cut(last, corners, images.shape[-1]))
        right.append((read == labels.repeat_interleave(LAST)).float().mean())
        steps = corners.unflatten(0, (-1, LAST)).diff(dim=1).float().norm(dim=2)
        even.append(((steps - SPEED).abs() <= 1.5).float().mean())
    return torch.stack(right).mean().item(), torch.stack(even).mean().item()


def main() -> None:
    """Print them beside those of true videos."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--length", type=int, default=300)
    parser.add_argument("--videos", type=int, default=16)
    options = parser.parse_args()
    data = MovingMNISTDataModule(frames=options.length, num_videos=options.videos, draws=1)
    data.prepare_data()
    data.setup("test")
    asked, judge = data.held_out(range(options.videos)), data.judge()
    model = load_model(options.checkpoint)
    truth = asked["x0"]
    print(f"{'':16}{'read right':>12}{'even steps':>12}   of the last {LAST} frames")
    for scheme in ("truth", "autoregressive", "hierarchical"):
        videos = truth
        if scheme != "truth":
            known = model.medium.encode(truth[:, :, : data.observe])
            videos = model.medium.decode(longer(model, options.length, known, scheme=scheme)).cpu()
        right, even = figures(judge, videos, asked)
        print(f"{scheme:16}{right:12.2f}{even:12.2f}")


if __name__ == "__main__":
    main()
