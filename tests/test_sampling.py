"""The samples of a model: whose noise they have, and what they leave alone."""

import re

import pytest
import torch
from fits import small_model
from gaussian import each_shape

from lightning_ddpm import diffusion
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.networks import MLP
from lightning_ddpm.samplers import DDIM, DPMSolver


def test_sampling_leaves_the_global_random_state_and_the_mode_alone() -> None:
    model = small_model().model
    state = torch.get_rng_state()
    images = model.sample(2)
    assert torch.equal(state, torch.get_rng_state())
    assert model.network.training
    assert images.shape == (2, 1, 28, 28)
    assert images.abs().max() <= 1


@each_shape
def test_samples_have_the_shape_of_the_data(shape: tuple[int, ...]) -> None:
    model = Diffusion(MLP(shape=shape, hidden=8, time_dim=4), sampler=DDIM(3), shape=shape)
    assert model.sample(2, progress=False).shape == (2, *shape)
    assert model.sample(2, progress=False, frames=4).shape == (2, 4, *shape)


def test_sample_takes_another_sampler_and_a_generator() -> None:
    model = small_model().model
    few, more = (model.sample(2, sampler=DDIM(steps), progress=False) for steps in (5, 20))
    assert (few - more).abs().max() > 0.01
    assert model.sampler.steps == 5
    generator = torch.Generator().manual_seed(1)
    first, second = (model.sample(2, generator=generator, progress=False) for _ in range(2))
    again = model.sample(2, generator=torch.Generator().manual_seed(1), progress=False)
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_sampling_shows_its_progress(capsys: pytest.CaptureFixture) -> None:
    model = small_model().model
    model.sample(2)
    assert re.search(r"sampling 2:.*/5 ", capsys.readouterr().err)
    model.sample(2, progress=False)
    assert capsys.readouterr().err == ""


def test_sample_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model().model
    together = to_uint8(model.sample(6, seed=3)).int()
    alone = to_uint8(model.sample(indices=[4], seed=3)).int()
    assert (together[4] - alone[0]).abs().max() <= 1
    assert (together[3] - together[4]).abs().max() > 50
    monkeypatch.setattr(diffusion, "batch_size", lambda *_: 4)
    parts = to_uint8(model.sample(6, seed=3)).int()
    assert (together - parts).abs().max() <= 1


def test_no_samples_are_refused() -> None:
    for options in ({"n": 0}, {"indices": []}):
        with pytest.raises(ValueError, match="at least one sample"):
            small_model().model.sample(**options)


def test_a_sampler_of_more_steps_than_the_schedule_has_is_refused() -> None:
    with pytest.raises(ValueError, match="between 1 and T = 50, got 51"):
        small_model().model.sample(2, sampler=DPMSolver(51))
