"""Guidance: away from what a weaker self of the network says, which training has to prepare."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_ddpm.denoiser import Predict, for_each
from lightning_ddpm.networks import Network
from lightning_ddpm.shapes import Condition, Output, Samples, TimeSteps, expand_like

GUIDANCE = 2.0  # the scale, where none is asked for


@dataclass
class Strong:
    """A network, told the condition (b, ...), if any, and more by name: ``predict(x_t, t)``."""

    network: Network
    condition: Condition | None = None
    told: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, x_t: Samples, t: TimeSteps) -> Output:
        """The output for ``x_t`` at ``t``."""
        return self.network(x_t, for_each(t, x_t), self.condition, **self.told)


@dataclass
class Weak:
    """The same without the condition or, if there is none, the network's weaker self."""

    network: Network
    condition: Condition | None = None
    told: Mapping[str, Tensor] = field(default_factory=dict)

    def __call__(self, x_t: Samples, t: TimeSteps) -> Output:
        """The output for ``x_t`` at ``t``."""
        t = for_each(t, x_t)
        if self.condition is None:
            weak = torch.ones_like(t, dtype=torch.bool)
            return self.network(x_t, t, None, weak=weak, **self.told)
        return self.network(x_t, t, self.network.unconditional(self.condition), **self.told)


@dataclass
class Guided:
    r"""The output of a strong network, pushed away from that of a weak one.

    .. math:: f_0(x_t, t) + w \, (f(x_t, t) - f_0(x_t, t))

    With a condition, the weak one is the network without it: classifier-free guidance (Ho and
    Salimans 2022, arXiv 2207.12598, eq. 6, whose w is one less). Without, it is a worse network:
    autoguidance (Karras et al. 2024, arXiv 2406.02507), here the same one without some of its
    blocks, trained on a part of the samples (``Network.weak_dropout``). All targets are linear in
    one another at a given x_t, so guiding the output guides the noise.

    Args:
        strong: f.
        weak: f_0.
        scale: w; 1 is the strong one as it is, 0 the weak one.
        interval: the time steps [low, high) that are guided; elsewhere w is 1 (Kynkäänniemi et al.
            2024, arXiv 2404.07724).
    """

    strong: Predict
    weak: Predict
    scale: float
    interval: tuple[float, float]

    def __call__(self, x_t: Samples, t: TimeSteps) -> Output:
        """The guided output for ``x_t``; a learned variance is the strong one's."""
        low, high = self.interval
        guided, output = (low <= t) & (t < high), self.strong(x_t, t)
        if t.ndim == 0 and not guided:
            return output
        scale = torch.where(guided, self.scale, 1.0)
        scale = scale.item() if t.ndim == 0 else expand_like(scale, x_t)
        c, output, weaker = x_t.shape[1], output.float(), self.weak(x_t, t).float()
        return torch.cat([weaker[:, :c].lerp(output[:, :c], scale), output[:, c:]], dim=1)


def guidance_scale(
    network: Network, usual: float | None, asked: float | None, condition: Condition | None
) -> float:
    """The scale that is asked for, or the usual one of a network that was trained for guidance.

    Without a condition, a network that takes one is not guided.

    Raises:
        ValueError: if it is asked of a network that was not, or away from no condition without one.
    """
    if network.conditional and condition is None:
        if asked not in (None, 1):
            raise ValueError(f"guidance {asked} needs a condition to guide to, as labels")
        return 1.0
    prepared = network.conditional or network.weak_dropout > 0
    asked = usual if asked is None else asked
    scale = (GUIDANCE if prepared else 1.0) if asked is None else asked
    if scale != 1 and not prepared:
        raise ValueError(
            "guidance cannot be asked of a model that was trained without labels and without "
            "weak_dropout"
        )
    return scale
