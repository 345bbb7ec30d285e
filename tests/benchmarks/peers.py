"""The networks of two other projects, as their own documentation sets them up for such images."""

from collections.abc import Callable

import torch
from common import DEVICE
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F


class Peer:
    """A network, a training step on images in [-1, 1], and samples."""

    network: nn.Module
    optimizer: torch.optim.Optimizer

    def loss(self, x0: Tensor) -> Tensor:
        """What the peer minimises."""
        raise NotImplementedError

    def sample(self, size: int, steps: int) -> Tensor:
        """Images in [-1, 1] (or beyond) by DDIM."""
        raise NotImplementedError

    def step(self, x0: Tensor) -> None:
        """One step of training."""
        self.optimizer.zero_grad()
        self.loss(x0).backward()
        self.optimizer.step()


class Diffusers(Peer):
    """The UNet2DModel of diffusers' course on MNIST-like images, with DDPM and DDIM."""

    def __init__(self) -> None:
        self.network = UNet2DModel(
            sample_size=28,
            in_channels=1,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        ).to(DEVICE)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), 1e-3)
        self.scheduler = DDPMScheduler()
        self.ddim = DDIMScheduler()

    def loss(self, x0: Tensor) -> Tensor:
        """The noise MSE at random time steps."""
        noise, t = torch.randn_like(x0), torch.randint(1000, (len(x0),), device=x0.device)
        x_t = self.scheduler.add_noise(x0, noise, t)  # type: ignore[arg-type]
        return F.mse_loss(self.network(x_t, t).sample, noise)

    @torch.no_grad()
    def sample(self, size: int, steps: int) -> Tensor:
        """DDIM in ``steps`` steps."""
        self.ddim.set_timesteps(steps)
        x = torch.randn(size, 1, 28, 28, device=DEVICE)
        for t in self.ddim.timesteps:
            x = self.ddim.step(self.network(x, t).sample, t, x).prev_sample  # type: ignore
        return x


class Lucidrains(Peer):
    """The Unet and GaussianDiffusion of denoising-diffusion-pytorch's README, at 28x28."""

    def __init__(self) -> None:
        from denoising_diffusion_pytorch import GaussianDiffusion, Unet

        self.network = Unet(dim=64, dim_mults=(1, 2, 4), channels=1).to(DEVICE)
        self.diffusion = GaussianDiffusion(
            self.network, image_size=28, timesteps=1000, sampling_timesteps=50
        ).to(DEVICE)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 8e-5)

    def loss(self, x0: Tensor) -> Tensor:
        """The package's own loss, which takes images in [0, 1]."""
        return self.diffusion((x0 + 1) / 2)

    @torch.no_grad()
    def sample(self, size: int, steps: int) -> Tensor:
        """The package's own DDIM."""
        self.diffusion.sampling_timesteps = steps
        return self.diffusion.sample(batch_size=size) * 2 - 1


PEERS: dict[str, Callable[[], Peer]] = {
    "diffusers UNet2DModel": Diffusers,
    "denoising-diffusion-pytorch Unet": Lucidrains,
}
