"""Class labels: left out at times in training, and enforced in sampling."""

import torch

from lightning_ddpm.networks import Network
from lightning_ddpm.shapes import Images, Labels, Output, TimeSteps, expand_like


def drop_labels(label: Labels, probability: float, generator: torch.Generator) -> Labels:
    """Replace labels (b) by -1, none, each with this probability (2207.12598, algorithm 1)."""
    dropped = torch.rand(label.shape, generator=generator, device=label.device) < probability
    return label.masked_fill(dropped, -1)


class GuidedNetwork:
    r"""Classifier-free guidance: a network's output, pushed away from that without a label.

    .. math:: f(x_t, t) + w \, (f(x_t, t, y) - f(x_t, t))

    (Ho and Salimans 2022, arXiv 2207.12598, eq. 6, whose w is one less). All targets are linear in
    one another at a given x_t, so guiding the output guides the noise.

    Args:
        network: what predicts, with labels and without.
        label: the class of each image (b), from 0; -1 is none.
        scale: w; 1 is the conditional model, 0 the unconditional one.
        interval: the time steps [low, high) that are guided; elsewhere w is 1 (Kynkäänniemi et al.
            2024, arXiv 2404.07724).
    """

    def __init__(
        self, network: Network, label: Labels, scale: float, interval: tuple[int, int]
    ) -> None:
        self.network = network
        self.label = label
        self.scale = scale
        self.interval = interval

    def __call__(self, x_t: Images, t: TimeSteps) -> Output:
        """The guided output for ``x_t`` at time steps ``t`` (b); v, if learned, is not guided."""
        low, high = self.interval
        guided = (low <= t) & (t < high)
        if self.scale == 1 or not guided.any():
            return self.network(x_t, t, self.label)
        labels = torch.cat([self.label, torch.full_like(self.label, -1)])
        output = self.network(torch.cat([x_t, x_t]), torch.cat([t, t]), labels)
        output, unconditional = output.float().chunk(2)
        scale = expand_like(torch.where(guided, self.scale, 1.0), x_t)
        c = x_t.shape[1]
        images = unconditional[:, :c].lerp(output[:, :c], scale)
        return torch.cat([images, output[:, c:]], dim=1)
