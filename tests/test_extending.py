"""A part of one's own is one class in one file: it is named, and everything works with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SOURCE
from gaussian import draw
from toys import Cold, ConstantSchedule, NegativeTarget, Pointwise

from lightning_ddpm import DiffusionLightningModule
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM


def test_toy_parts_train_and_sample_from_the_command_line(call_main, tmp_path: Path) -> None:
    toys = ("--network", "toys.Pointwise", "--schedule", "toys.ConstantSchedule")
    toys += ("--model.schedule.init_args.T", "40")
    toys += ("--target", "toys.NegativeTarget", "--sampler", "toys.Cold", "--steps", "3")
    options = ("--source", SOURCE, "--max_steps", "2", "--limit_val_batches", "1")
    call_main(*toys, *options)
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    model = DiffusionLightningModule.load_from_checkpoint(checkpoint, weights_only=True)
    assert isinstance(model.network, Pointwise)
    assert isinstance(model.schedule, ConstantSchedule)
    assert isinstance(model.target, NegativeTarget)
    assert isinstance(model.sampler, Cold)
    assert (model.schedule.T, model.sampler.steps) == (40, 3)

    call_main("predict", "--ckpt_path", checkpoint)
    images = np.load(tmp_path / "samples" / "samples.npz")["images"].astype(int)
    expected = ((model.sample(16, progress=False)[:, 0] + 1) * 127.5).round().numpy()
    assert np.abs(images - expected).max() <= 1


def test_toy_sampler_keeps_the_contract() -> None:
    schedule = ConstantSchedule()
    assert draw(Cold(), schedule, 200, 0.4, 0.5).mean().item() == pytest.approx(0.4, abs=0.05)
    assert Cold(7).timesteps(schedule)[-1] == -1
    together, alone = (draw(Cold(), schedule, n, 0, 0.5) for n in (5, 2))
    torch.testing.assert_close(together[:2], alone)


def test_toy_schedule_and_target_work_with_every_other_part() -> None:
    model = DiffusionLightningModule(
        Pointwise(), ConstantSchedule(), NegativeTarget(), sampler=DDIM(5)
    )
    x0 = torch.rand(3, 1, 28, 28) * 2 - 1
    noise = SampleNoise(0, range(3)).draw(x0.shape[1:])
    assert model.loss(x0, torch.tensor([0, 20, 39]), noise).isfinite().all()
    assert model.sample(2, progress=False).isfinite().all()
