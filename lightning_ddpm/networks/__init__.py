"""Networks that predict from (x_t, t) what the target asks for."""

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.mlp import MLP
from lightning_ddpm.networks.stacked import StackedUNet
from lightning_ddpm.networks.transformer import Transformer
from lightning_ddpm.networks.unet import UNet
from lightning_ddpm.networks.video import VideoUNet

__all__ = ["MLP", "Network", "StackedUNet", "Transformer", "UNet", "VideoUNet"]
