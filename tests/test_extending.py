"""A part of one's own is one class in one file: it is named, and everything works with it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SOURCE
from gaussian import draw, each_shape
from toys import Cold, ConstantSchedule, NegativeTarget, Pointwise, WaveData, Waves

from lightning_ddpm import DiffusionLightningModule, load_model
from lightning_ddpm.batch import clean
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM
from lightning_ddpm.schedule import BetaSchedule

TOYS = ("--network", "toys.Pointwise", "--schedule", "toys.ConstantSchedule")
TOYS += ("--model.schedule.init_args.T", "40")
TOYS += ("--target", "toys.NegativeTarget", "--sampler", "toys.Cold", "--steps", "3")


def test_toy_parts_train_and_sample_from_the_command_line(call_main, tmp_path: Path) -> None:
    call_main(*TOYS, "--source", SOURCE, "--max_steps", "2", "--limit_val_batches", "1")
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    module = DiffusionLightningModule.load_from_checkpoint(checkpoint, weights_only=True)
    model = module.model
    assert isinstance(model.network, Pointwise)
    assert isinstance(model.schedule, ConstantSchedule)
    assert isinstance(model.target, NegativeTarget)
    assert isinstance(model.sampler, Cold)
    assert (model.schedule.T, model.sampler.steps) == (40, 3)

    call_main("predict", "--ckpt_path", checkpoint)
    images = np.load(tmp_path / "samples" / "samples.npz")["images"].astype(int)
    expected = to_uint8(model.sample(16, progress=False)[:, 0]).numpy()
    assert np.abs(images - expected).max() <= 1


def test_a_toy_medium_and_data_set_train_and_sample_from_the_command_line(
    call_main, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    wave = ("--medium", "toys.Waves", "--model.medium.init_args.std", "2.5")
    data = ("--data", "toys.WaveData", "--data.length", "8", "--num_samples", "4")
    network = ("--model.network.init_args.dims", "1", "--model.network.init_args.channels", "[8]")
    call_main(*wave, *data, "--config", "conditional", *network, "--steps", "3", "--max_steps", "4")
    assert "classes:     0 slow, 1 fast" in capsys.readouterr().out
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    model = load_model(checkpoint)
    assert isinstance(model.medium, Waves)
    assert (model.medium.std, model.shape) == (2.5, (1, 8))
    assert (model.network.in_channels, model.network.num_classes) == (1, 2)

    # The checkpoint says what the data are.
    call_main("test", "--ckpt_path", checkpoint)  # there is neither a judge nor a bound
    output = capsys.readouterr().out
    assert "denoising loss" in output
    assert "bits per dimension" not in output
    call_main("predict", "--ckpt_path", checkpoint, "--labels", "1")
    samples = np.load(tmp_path / "samples" / "samples.npz")
    assert sorted(samples) == ["labels", "waves"]
    assert samples["labels"].tolist() == [1, 1, 1, 1]
    expected = 3 + 2.5 * model.sample(4, condition=1, progress=False)[:, 0]
    np.testing.assert_allclose(samples["waves"], expected.numpy(), atol=1e-2)


def test_a_toy_medium_and_data_set_say_what_the_model_learns() -> None:
    # Oracle: the waves' own mean, 3, and standard deviation, sqrt(2).
    data = WaveData()
    data.setup("fit")
    model = Diffusion(Pointwise(), ConstantSchedule(), medium=Waves(), shape=(1, 16))
    x0, condition = clean(model, data.splits["train"].__getitems__(list(range(60))))
    assert x0.shape == (60, 1, 16)
    assert x0.mean().item() == pytest.approx(0, abs=1e-6)
    assert x0.std().item() == pytest.approx(2**-0.5, rel=1e-3)
    assert condition is None  # as Pointwise is told none
    assert model.loss(next(iter(data.train_dataloader())), SampleNoise(0, range(20))).shape == (20,)


@each_shape
def test_a_toy_sampler_keeps_the_contract(shape: tuple[int, ...]) -> None:
    schedule = ConstantSchedule()
    x = draw(Cold(), schedule, 800, 0.4, 0.5, shape=shape)
    assert x.mean().item() == pytest.approx(0.4, abs=0.05)
    assert Cold(7).timesteps(schedule)[-1] == -1
    together, alone = (draw(Cold(), schedule, n, 0, 0.5, shape=shape) for n in (5, 2))
    torch.testing.assert_close(together[:2], alone)


def test_a_toy_schedule_is_what_its_variances_make() -> None:
    # Oracle: BetaSchedule, which multiplies up the variances that the toy has in closed form.
    betas, t = torch.full((40,), 0.2, dtype=torch.float64), torch.arange(-1, 40)
    theirs = BetaSchedule(betas).alpha_sigma(t)
    torch.testing.assert_close(ConstantSchedule().alpha_sigma(t), theirs)


def test_a_toy_schedule_and_target_work_with_every_other_part() -> None:
    model = Diffusion(Pointwise(), ConstantSchedule(), NegativeTarget(), sampler=DDIM(5))
    x0 = torch.rand(3, 1, 28, 28) * 2 - 1
    noise = SampleNoise(0, range(3)).like(x0)
    assert model.denoising_loss(x0, torch.tensor([0, 20, 39]), noise).isfinite().all()
    assert model.sample(2, progress=False).isfinite().all()
