"""Guidance: away from what a weaker self of the network says, which training has to prepare."""

import torch

from lightning_ddpm.networks import Network
from lightning_ddpm.shapes import Images, Labels, Mask, Output, TimeSteps, expand_like


def chosen(images: int, probability: float, generator: torch.Generator) -> Mask:
    """Which of so many images go without their label, or train the weaker self: each alike."""
    return torch.rand(images, generator=generator, device=generator.device) < probability


class GuidedNetwork:
    r"""A network's output, pushed away from that of its weaker self.

    .. math:: f_0(x_t, t) + w \, (f(x_t, t) - f_0(x_t, t))

    With labels, f_0 is the network without them: classifier-free guidance (Ho and Salimans 2022,
    arXiv 2207.12598, eq. 6, whose w is one less). Without, it is a worse network: autoguidance
    (Karras et al. 2024, arXiv 2406.02507), here the same one without some of its blocks,
    trained on a part of the images (``Network.weak_dropout``). All targets are linear in one
    another at a given x_t, so guiding the output guides the noise.

    Args:
        network: what predicts.
        label: the class of each image (b), from 0, or -1 for none; None for a network without them.
        scale: w; 1 is the network as it is, 0 its weaker self.
        interval: the time steps [low, high) that are guided; elsewhere w is 1 (Kynkäänniemi et al.
            2024, arXiv 2404.07724).
    """

    def __init__(
        self, network: Network, label: Labels | None, scale: float, interval: tuple[float, float]
    ) -> None:
        self.network = network
        self.label = label
        self.scale = scale
        self.interval = interval

    def __call__(self, x_t: Images, t: TimeSteps) -> Output:
        """The guided output for ``x_t`` at time steps ``t`` (b); v, if learned, is not guided."""
        low, high = self.interval
        guided = (low <= t) & (t < high)
        exporting = torch.compiler.is_exporting()  # then values cannot be asked for
        if self.scale == 1 or not (exporting or guided.any()):
            return self.network(x_t, t, self.label)
        if self.label is None:
            strong = torch.zeros_like(guided)
            selves = (None, torch.cat([strong, ~strong]))
        else:
            selves = (torch.cat([self.label, torch.full_like(self.label, -1)]),)
        output = self.network(torch.cat([x_t, x_t]), torch.cat([t, t]), *selves)
        output, weaker = output[: x_t.shape[0]].float(), output[x_t.shape[0] :].float()
        scale = expand_like(torch.where(guided, self.scale, 1.0), x_t)
        c = x_t.shape[1]
        images = weaker[:, :c].lerp(output[:, :c], scale)
        return torch.cat([images, output[:, c:]], dim=1)
