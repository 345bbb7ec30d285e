"""A model is built again from its parts, and refuses those that do not fit."""

import pytest
import torch
from test_diffusion import tiny
from torch import nn

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.media import Images
from lightning_ddpm.networks import MLP, Network, UNet
from lightning_ddpm.objective import (
    LogitNormalTimes,
    MinSNRWeighting,
    UniformWeighting,
    VelocityTarget,
)
from lightning_ddpm.parts import built, config_of
from lightning_ddpm.samplers import Ancestral
from lightning_ddpm.schedule import BetaSchedule, CosineSchedule, ZeroTerminalSNR


def test_a_model_is_built_again_from_its_config() -> None:
    schedule = ZeroTerminalSNR(CosineSchedule(30))
    model = tiny(schedule=schedule, target=VelocityTarget(), guidance_interval=(0.3, 0.9))
    again = built(Diffusion, config_of(model)["init_args"])
    assert isinstance(again.schedule, ZeroTerminalSNR)
    assert isinstance(again.schedule.schedule, CosineSchedule)
    assert (again.network.hidden, again.guidance_interval) == (16, (0.3, 0.9))
    assert isinstance(again.medium, Images)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.sample(2, progress=False), model.sample(2, progress=False))


class Forgetful(Network):
    """Does not keep its argument."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, width, padding="same")

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return self.layer(x_t)


class Nameless(Network):
    """Has arguments without names."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return x_t


@pytest.mark.parametrize(
    "parts",
    [
        {"network": Forgetful(3)},
        {"network": Nameless(3, 4)},
        {"schedule": BetaSchedule(torch.full((50,), 0.1))},
    ],
)
def test_a_part_that_forgets_its_arguments_is_refused(parts: dict) -> None:
    with pytest.raises(TypeError, match="must keep each constructor argument"):
        config_of(tiny(**parts))


LEARNED = {"network": UNet(channels=(8,), out_channels=2), "variance": "learned"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition_dropout": 1.5}, "condition_dropout must be from 0 to 1"),
        ({"guidance_interval": (0.9, 0.3)}, "guidance_interval must rise"),
        ({"variance": "learned"}, "need 2 \\(out_channels\\)"),
        ({"network": UNet(channels=(8,), out_channels=2)}, "need 1 \\(out_channels\\)"),
        ({"network": MLP(shape=(1, 4, 5))}, "does not fit samples of shape \\(1, 28, 28\\)"),
        ({"shape": ()}, "shape must be that of a sample"),
        ({"shape": (1, 0, 4)}, "shape must be that of a sample"),
        ({"schedule": ZeroTerminalSNR()}, "take VelocityTarget or DataTarget"),
        (
            {
                "schedule": ZeroTerminalSNR(),
                "target": VelocityTarget(),
                "weighting": MinSNRWeighting(),
            },
            "MinSNRWeighting gives errors of VelocityTarget no weight at the time step 999 of "
            "ZeroTerminalSNR: take UniformWeighting",
        ),
        (LEARNED | {"time_sampler": LogitNormalTimes()}, "take UniformTimes"),
        (
            {"schedule": CosineSchedule(50), "sampler": Ancestral(51)},
            "between 1 and T = 50, got 51",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Diffusion(**options)


def test_a_list_of_parts_is_refused_before_it_is_saved() -> None:
    class Sum(UniformWeighting):
        def __init__(self, parts: list) -> None:
            self.parts = parts

    assert Diffusion(MLP(hidden=8), weighting=Sum([1.0])).weighting.parts == [1.0]
    with pytest.raises(TypeError, match="must keep each constructor argument"):
        Diffusion(MLP(hidden=8), weighting=Sum([UniformWeighting()]))
