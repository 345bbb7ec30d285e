import torch
from torch.nn import functional as F

from lightning_ddpm.denoiser import Denoiser
from lightning_ddpm.networks import Network
from lightning_ddpm.objective import NoiseTarget, squared_error
from lightning_ddpm.schedule import LinearSchedule
from lightning_ddpm.shapes import expand_like


class Shouting(Network):
    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 5 * torch.randn_like(x_t)


class Convolution(Network):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.layer(x_t)


def test_noise_target_round_trips() -> None:
    # A network that outputs the target itself must be read as the x0 and noise it came from.
    schedule, t = LinearSchedule(), torch.tensor([0, 10, 500, 999])
    x0, noise = torch.rand(4, 1, 5, 5) * 2 - 1, torch.randn(4, 1, 5, 5)
    alpha, sigma = (expand_like(value, x0) for value in schedule.alpha_sigma(t))
    x_t = schedule.add_noise(x0, noise, t)
    output = NoiseTarget().target(x0, noise, alpha, sigma)
    prediction = NoiseTarget().predict(output, x_t, alpha, sigma)
    torch.testing.assert_close(prediction.noise, noise)
    torch.testing.assert_close(prediction.x0, x0, atol=1e-3, rtol=0)


def test_squared_error_is_per_sample() -> None:
    output, target = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    expected = [F.mse_loss(o, t).item() for o, t in zip(output, target, strict=True)]
    torch.testing.assert_close(squared_error(output, target), torch.tensor(expected))


def test_denoiser_clips_x0_and_keeps_x_t() -> None:
    # Whatever the network says, x0 is an image, and alpha x0 + sigma noise is x_t again.
    schedule, t = LinearSchedule(), torch.tensor([3, 400, 900])
    x_t = torch.randn(3, 1, 8, 8)
    x0, noise = Denoiser(Shouting(), schedule, NoiseTarget())(x_t, t)
    assert x0.abs().max() == 1
    torch.testing.assert_close(schedule.add_noise(x0, noise, t), x_t)


def test_denoiser_returns_float32_under_autocast() -> None:
    network = Convolution()
    denoise = Denoiser(network, LinearSchedule(), NoiseTarget())
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 1, 8, 8), torch.tensor([0])).dtype == torch.bfloat16
        prediction = denoise(torch.randn(2, 1, 8, 8), torch.tensor([0, 999]))
    assert prediction.x0.dtype == prediction.noise.dtype == torch.float32
