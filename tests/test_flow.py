"""Rectified flow: a straight line from the data to the noise, and the ODE along it."""

from itertools import pairwise
from math import prod

import pytest
import torch
from gaussian import SHAPES, draw, each_shape, ideal_denoiser
from test_diffusion import plain_loop
from toys import WaveData, Waves

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.networks import MLP
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import FlowTarget, NoiseTarget
from lightning_ddpm.parts import check_target
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver, Heun, Sampler
from lightning_ddpm.schedule import RectifiedFlow
from lightning_ddpm.shapes import expand_like

FLOW, MEAN, STD = RectifiedFlow(), 0.4, 0.5


def velocity(x: torch.Tensor, u: float) -> torch.Tensor:
    """E[noise - x0 | x_u] for data N(MEAN, STD^2): how the quantiles of x_u move with u.

    They are at (1 - u) MEAN + z sqrt((1 - u)^2 STD^2 + u^2) for each z.
    """
    variance = (1 - u) ** 2 * STD**2 + u**2
    return -MEAN + (u - (1 - u) * STD**2) / variance * (x - (1 - u) * MEAN)


@pytest.mark.parametrize("T", [2, 50, 1000])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64])
def test_signal_and_noise_share_the_way(T: int, dtype: torch.dtype) -> None:
    # Oracle: eq. 1 of Liu et al. 2022, x_u = (1 - u) x0 + u noise, with u from 0 to 1.
    u = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    alpha, sigma = RectifiedFlow(T).alpha_sigma(torch.arange(-1, T, dtype=dtype))
    torch.testing.assert_close(alpha, (1 - u).to(alpha), atol=1e-6, rtol=0)
    torch.testing.assert_close(sigma, u.to(sigma), atol=1e-6, rtol=0)
    assert (alpha[0], alpha[-1], sigma[0], sigma[-1]) == (1, 0, 0, 1)
    assert alpha.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@each_shape
def test_the_target_is_the_derivative_of_x_t(shape: tuple[int, ...]) -> None:
    # Oracle: x_t at two times, differentiated numerically in u = (t + 1) / T.
    x0, noise = torch.randn(4, *shape).double(), torch.randn(4, *shape).double()
    t, d = torch.tensor([0, 123, 500.5, 998], dtype=torch.float64), 0.5
    ahead, behind = (FLOW.add_noise(x0, noise, t + e) for e in (d, -d))
    alpha, sigma = (expand_like(value, x0) for value in FLOW.alpha_sigma(t))
    expected = (ahead - behind) / (2 * d / FLOW.T)
    torch.testing.assert_close(FlowTarget().target(x0, noise, alpha, sigma), expected)


@each_shape
@pytest.mark.parametrize("steps", [10, 25])
def test_ddim_is_eulers_method(steps: int, shape: tuple[int, ...]) -> None:
    # Oracle: Euler's method for dx/du = v, written out for Gaussian data.
    noise = SampleNoise(0, range(3))
    x = x_T = noise.draw(shape)
    for u, w in pairwise(torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()):
        x = x + (w - u) * velocity(x, u)
    ddim = DDIM(steps).sample(ideal_denoiser(FLOW, MEAN, STD), x_T, noise)
    torch.testing.assert_close(ddim, x, atol=1e-5, rtol=1e-5)
    # It does not lead just anywhere: quantiles go to quantiles, up to the error of such steps.
    assert (x - (MEAN + STD * x_T)).abs().mean() < 1 / steps


@each_shape
@pytest.mark.parametrize("sampler", [Ancestral(200), DDIM(50), DPMSolver(20), Heun(10)])
def test_every_sampler_goes_from_noise_to_gaussian_data(
    sampler: Sampler, shape: tuple[int, ...]
) -> None:
    x = draw(sampler, FLOW, 6_400 // prod(shape), MEAN, STD, shape=shape)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert x.std().item() == pytest.approx(STD, rel=0.05)


def test_noise_cannot_be_the_target() -> None:
    with pytest.raises(ValueError, match="says nothing of the data"):
        check_target(NoiseTarget(), FLOW)
    check_target(FlowTarget(), FLOW)
    with pytest.raises(ValueError, match="NoiseTarget says nothing of the data"):
        Diffusion(MLP(shape=SHAPES[0], hidden=8), FLOW, NoiseTarget(), shape=SHAPES[0])


def test_a_flow_learns_waves() -> None:
    # Oracle: the waves themselves, sines of one period or two and of amplitude 1 as x0; of noise
    # only 4 of 16 parts of the energy are at these frequencies.
    data = WaveData(batch_size=60)
    data.setup("fit")
    network = MLP(shape=(1, 16), hidden=64, time_dim=16)
    model = Diffusion(
        network, RectifiedFlow(100), FlowTarget(), DDIM(20), medium=Waves(), shape=(1, 16)
    )
    batches = [batch for _ in range(300) for batch in data.train_dataloader()]
    losses = plain_loop(model, batches, lr=5e-3)
    assert sum(losses[-50:]) / 50 < losses[0] / 2
    energy = torch.fft.rfft(model.sample(64, progress=False)[:, 0]).abs().square()
    assert energy[:, 1:3].sum() / energy.sum() > 0.9
