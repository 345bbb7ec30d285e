"""Real digits, run backwards through a trained model."""

import torch

from lightning_ddpm import Diffusion, MNISTDataModule
from lightning_ddpm.editing import interpolate, invert
from lightning_ddpm.media.images import from_uint8
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM


def inverted(model: Diffusion) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen real digits, and what a model inverts them to."""
    data = MNISTDataModule(source="mnist")
    data.setup("fit")
    batch = from_uint8(data.splits["val"].x0[:16])
    return batch, invert(model.denoiser(), batch, steps=100)


def check_reconstruction(model: Diffusion, batch: torch.Tensor, x_T: torch.Tensor) -> None:
    """See that the way back leads to the digits, and that others lie between two of them."""
    denoise = model.denoiser()
    again = DDIM(100).sample(denoise, x_T, SampleNoise(0, range(16)))
    error = (again - batch).square().mean().sqrt().item()
    print(f"root mean square error of the reconstruction: {error:.4f} of a range of 2")
    assert error < 0.01
    start, end = batch[:4], batch[4:8]
    first, middle, last = interpolate(denoise, start, end, [0.0, 0.5, 1.0], 50)
    assert (first - start).square().mean().sqrt() < 0.02
    assert (last - end).square().mean().sqrt() < 0.02
    assert min((middle - start).abs().mean(), (middle - end).abs().mean()) > 0.05
