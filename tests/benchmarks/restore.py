"""Inpainting beside RePaint, and a cascade beside a model of the whole image.

``python tests/benchmarks/restore.py --inpainting CKPT --base CKPT --large CKPT``; what it compares
with is the package's model.
"""

import argparse

import torch
from common import machine

from lightning_ddpm import Diffusion, MNISTDataModule, load_model
from lightning_ddpm.editing import cascade, inpaint
from lightning_ddpm.judge import DigitJudge, restoration_error
from lightning_ddpm.media.images import from_uint8, to_uint8
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.observation import Holes
from lightning_ddpm.samplers import Ancestral

REPAINT = ((1, 25), (5, 25), (10, 100))  # rounds and steps


def fill_holes(model: Diffusion, judge: DigitJudge, size: int) -> None:
    """Print the error and the digits read right, by calls of the network for each image."""
    images, labels = (part[:size] for part in judge.test)
    x0, plain = from_uint8(images), load_model()
    given = Holes().draw(x0, SampleNoise(0, range(size)))
    filled = {f"trained, {model.sampler.steps} calls": model.sample(size, given=given)}
    mask = given.known.float()
    for rounds, steps in REPAINT:
        denoise = plain.denoiser(guidance=1.0)
        name = f"RePaint, {rounds * (steps - 1) + 1} calls"
        filled[name] = inpaint(denoise, x0, mask, Ancestral(steps), rounds)
    filled["nearest training image"] = Holes().naive(given, from_uint8(judge.train_images))
    filled["truth"] = x0
    print(f"{'':26}{'error':>8}{'read right':>12}{'Fréchet distance':>18}")
    for name, made in filled.items():
        raw = torch.where(given.known, images, to_uint8(made))
        error, figures = restoration_error(raw, images, ~given.known), judge.score(raw, labels)
        right, distance = figures["label_accuracy"], figures["frechet_distance"]
        print(f"{name:26}{error:8.2f}{right:12.1%}{distance:18.3f}")


def make_larger(base: Diffusion, large: Diffusion, judge: DigitJudge, size: int) -> None:
    """Print the Fréchet distance of digits that a cascade makes, and that one model makes."""
    made = {
        "cascade": cascade(base, large, n=size),
        "the package's model": load_model().sample(size),
    }
    for name, x0 in made.items():
        print(f"{name:26}{judge.score(to_uint8(x0))['frechet_distance']:.3f}")
    print(f"{'real digits':26}{judge.floors(size)['frechet_distance']:.3f}")


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inpainting", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--large", required=True, help="of superresolution with --factor 2")
    parser.add_argument("--num_samples", type=int, default=200)
    options = parser.parse_args()
    judge = MNISTDataModule().judge()
    assert judge is not None
    print(f"{options.num_samples} test digits with holes, on {machine()}")
    fill_holes(load_model(options.inpainting), judge, options.num_samples)
    print(f"\n{5 * options.num_samples} digits, their Fréchet distance")
    models = load_model(options.base), load_model(options.large)
    make_larger(*models, judge, 5 * options.num_samples)


if __name__ == "__main__":
    main()
