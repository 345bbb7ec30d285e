"""A U-Net for videos, to which frames are channels."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_ddpm.networks.base import Network
from lightning_ddpm.networks.layers import in_order
from lightning_ddpm.networks.unet import UNet
from lightning_ddpm.shapes import Condition, Output, Samples, TimeSteps


class StackedUNet(Network):
    """A ``UNet`` that sees all frames of a video at once (MCVD, Voleti et al. 2022, 2205.09853).

    The channels of all frames, and of patches of pixels, are those of one image. So the first
    convolution sees what moves, and a video costs as much as an image. It is also told how far the
    frames are apart, so that they may be any frames of a longer video, in their order.

    Args:
        frames: of a video; in a recipe the data's, else 16 if not given.
        in_channels: channels of what it sees; if not given, the data's in a recipe, else 1.
        channels: channels of each level, from the finest.
        out_channels: channels of the output; ``in_channels`` if not given.
        patch: pixels along each axis, which are one place to the ``UNet``.

    Raises:
        ValueError: if an argument is below 1; when it is called, if there are more or fewer frames,
            or these cannot be divided as often as patches and levels ask for.
    """

    def __init__(
        self,
        frames: int | None = None,
        in_channels: int | None = None,
        channels: Sequence[int] = (64, 96, 128),
        out_channels: int | None = None,
        patch: int = 2,
    ) -> None:
        super().__init__()
        self.frames = frames = 16 if frames is None else frames
        self.in_channels = in_channels = in_channels or 1
        self.channels = tuple(channels)
        self.out_channels = out_channels
        self.patch = patch
        if min(frames, patch) < 1:
            raise ValueError(f"frames and patch must be at least 1, got {frames} and {patch}")
        seen, made = (frames * c * patch**2 for c in (in_channels, out_channels or in_channels))
        self.unet = UNet(seen, channels, made)
        dim = self.unet.modulation.in_features
        self.spacing = nn.Sequential(nn.Linear(frames, dim), nn.SiLU(), nn.Linear(dim, dim))
        # The noise of all frames does not fit through the finest level's channels: it goes past.
        self.past = nn.Linear(dim, out_channels or in_channels)
        nn.init.zeros_(self.past.weight)
        nn.init.zeros_(self.past.bias)

    def forward(
        self,
        x_t: Samples,
        t: TimeSteps,
        condition: Condition | None = None,
        positions: Int[Tensor, "b frames"] | None = None,
    ) -> Output:
        """Predict from noisy videos ``x_t`` (b, c, frames, h, w) at time steps ``t`` (b).

        ``positions`` are the indices of the frames in their video, rising; 0, 1, ... if not given.
        """
        divisor = self.patch * 2 ** (len(self.channels) - 1)
        fits = x_t.ndim == 5 and x_t.shape[2] == self.frames
        if not fits or any(size % divisor for size in x_t.shape[3:]):
            raise ValueError(
                f"this StackedUNet needs {self.frames} frames whose height and width divide by "
                f"{divisor}, got {tuple(x_t.shape[1:])}"
            )
        positions = in_order(x_t) if positions is None else positions
        apart = positions.diff(dim=1, prepend=positions[:, :1]).to(x_t).log1p()
        embedding = self.unet.embedding(t) + self.spacing(apart)
        x = F.pixel_unshuffle(x_t.flatten(1, 2), self.patch)
        x = F.pixel_shuffle(self.unet.of(x, embedding), self.patch)
        scale = self.past(embedding)[..., None, None, None]
        return torch.addcmul(x.unflatten(1, (-1, self.frames)), scale, x_t[:, : scale.shape[1]])
