import re
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from test_networks import randomised
from torch import nn
from torch.nn import functional as F

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule, diffusion
from lightning_ddpm.callbacks import EMA
from lightning_ddpm.images import to_uint8
from lightning_ddpm.likelihood import bound_term
from lightning_ddpm.networks import MLP, Network, UNet
from lightning_ddpm.objective import (
    LogitNormalTimes,
    MinSNRWeighting,
    NoiseTarget,
    VelocityTarget,
)
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver
from lightning_ddpm.schedule import (
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    ZeroTerminalSNR,
)


class Forgetful(Network):
    """Does not keep its argument."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, width, padding="same")

    def forward(self, x_t, t, label=None) -> torch.Tensor:
        return self.layer(x_t)


def small_model() -> DiffusionLightningModule:
    return DiffusionLightningModule(
        MLP(hidden=32, time_dim=8), CosineSchedule(50), NoiseTarget(), Ancestral(5), lr=0.002
    )


def trainer(folder: Path, **options) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", **(quiet | options))


@torch.no_grad()
def validation_loss(model: DiffusionLightningModule, data: MNISTDataModule, size: int) -> float:
    parts = []
    images = data.splits["val"].images[:300].float() / 127.5 - 1
    for start in range(0, 300, size):
        batch = {"image": images[start : start + size]}
        batch["index"] = torch.arange(start, start + len(batch["image"]))
        parts.append(model.evaluation_loss(batch))
    return torch.cat(parts).mean().item()


@torch.no_grad()
def test_loss_is_algorithm_1(digits: MNISTDataModule) -> None:
    # Oracle: Algorithm 1, line 5 of Ho et al. written out, with alpha_bar from scratch.
    model = DiffusionLightningModule()
    for parameter in model.network.parameters():  # some start at zero, and would hide t
        parameter.add_(0.05 * torch.randn_like(parameter))
    x0 = digits.splits["train"].images[:4].float() / 127.5 - 1
    t, noise = torch.tensor([0, 9, 499, 999]), torch.randn_like(x0)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    a = alpha_bar[t].float()[:, None, None, None]
    predicted = model.network(a.sqrt() * x0 + (1 - a).sqrt() * noise, t)
    expected = torch.stack([F.mse_loss(p, n) for p, n in zip(predicted, noise, strict=True)])
    torch.testing.assert_close(model.loss(x0, t, noise), expected)


def test_validation_loss_depends_on_the_weights_alone(digits: MNISTDataModule) -> None:
    model = small_model()
    first = validation_loss(model, digits, size=300)
    torch.manual_seed(99)
    for size in (300, 100, 7):
        assert validation_loss(model, digits, size) == pytest.approx(first, rel=1e-6)


def test_validation_time_steps_are_spread_evenly() -> None:
    model, times = DiffusionLightningModule(MLP(hidden=8)), []
    model.loss = lambda x0, t, *_: times.append(t) or t.float()
    for start in range(0, 500, 50):
        index = torch.arange(start, start + 50)
        model.evaluation_loss({"image": torch.zeros(50, 1, 28, 28), "index": index})
    strata = torch.bincount(torch.cat(times) // 10, minlength=100)
    assert strata.sum() == 500
    assert (strata.min() >= 4) & (strata.max() <= 6)


def test_training_noise_is_new_in_each_batch(tmp_path: Path, digits: MNISTDataModule) -> None:
    def first_noises(seed: int) -> list[torch.Tensor]:
        seen = []
        torch.manual_seed(seed)
        model = small_model()
        loss = model.loss
        model.loss = lambda x0, t, noise, *_: seen.append(noise) or loss(x0, t, noise)
        options = {"max_steps": 4, "limit_val_batches": 0, "accumulate_grad_batches": 2}
        trainer(tmp_path, **options).fit(model, digits)
        return seen

    runs = [first_noises(seed=1), first_noises(seed=2)]
    noises = [noise[0] for run in runs for noise in run]
    assert len(noises) == 16
    assert all(not torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])
    again = first_noises(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(runs[0], again, strict=True))


def test_learning_rate_rises_then_falls_to_zero(tmp_path: Path, digits: MNISTDataModule) -> None:
    model, rates = small_model(), []
    model.warmup_steps = 4
    model.on_train_batch_start = lambda *_: rates.append(model.optimizers().param_groups[0]["lr"])
    trainer(tmp_path, max_steps=20, limit_val_batches=0).fit(model, digits)
    assert rates[:4] == pytest.approx([0.0005, 0.001, 0.0015, 0.0017])
    assert rates[4:] == pytest.approx([0.002 * (1 - step / 20) for step in range(4, 20)])


def test_a_resumed_run_has_the_state_of_the_first_and_its_own_learning_rate(
    tmp_path: Path, digits: MNISTDataModule
) -> None:
    def fit(lr: float, steps: int, ckpt_path: Path | None = None) -> Trainer:
        torch.manual_seed(0)
        model = small_model()
        model.lr = lr
        rates.clear()
        model.on_train_batch_start = lambda *_: rates.append(
            model.optimizers().param_groups[0]["lr"]
        )
        fitted = trainer(tmp_path, max_steps=steps, limit_val_batches=0, callbacks=[EMA()])
        fitted.fit(model, digits, ckpt_path=ckpt_path, weights_only=True)
        return fitted

    rates: list[float] = []
    fit(0.001, 8).save_checkpoint(tmp_path / "a.ckpt")
    resumed = fit(0.004, 20, tmp_path / "a.ckpt")
    assert resumed.global_step == 20
    expected = [0.004 * min((step + 1) / 100, 1 - step / 20) for step in range(8, 20)]
    assert rates == pytest.approx(expected)
    assert [c._latest_update_step for c in resumed.callbacks if isinstance(c, EMA)] == [20]


def test_checkpoint_of_a_model_built_by_hand_reloads(tmp_path: Path, digits) -> None:
    model = small_model()
    fitted = trainer(tmp_path, max_steps=2, limit_val_batches=0)
    fitted.fit(model, digits)
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    again = DiffusionLightningModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert isinstance(again.network, MLP)
    assert isinstance(again.schedule, CosineSchedule)
    assert (again.network.hidden, again.schedule.T, again.sampler.steps) == (32, 50, 5)
    assert again.hparams == model.hparams
    assert torch.equal(again.sample(3, seed=4), model.sample(3, seed=4))


def test_sampling_leaves_the_global_random_state_and_the_mode_alone() -> None:
    model = small_model()
    state = torch.get_rng_state()
    images = model.sample(2)
    assert torch.equal(state, torch.get_rng_state())
    assert model.network.training
    assert images.shape == (2, 1, 28, 28)
    assert images.abs().max() <= 1


def test_sample_takes_another_sampler_and_a_generator() -> None:
    model = small_model()
    few, more = (model.sample(2, sampler=DDIM(steps), progress=False) for steps in (5, 20))
    assert (few - more).abs().max() > 0.01
    assert model.sampler.steps == 5
    generator = torch.Generator().manual_seed(1)
    first, second = (model.sample(2, generator=generator, progress=False) for _ in range(2))
    again = model.sample(2, generator=torch.Generator().manual_seed(1), progress=False)
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)


def test_sampling_shows_its_progress(capsys: pytest.CaptureFixture) -> None:
    model = small_model()
    model.sample(2)
    assert re.search(r"sampling 2 images:.*/5 ", capsys.readouterr().err)
    model.sample(2, progress=False)
    assert capsys.readouterr().err == ""


def test_hybrid_loss_trains_the_variance_by_the_bound_and_the_rest_by_the_error(digits) -> None:
    # Oracle: the gradients of the two parts, each of its own.
    network = randomised(UNet(channels=(8, 16), out_channels=2))
    model = DiffusionLightningModule(network, CosineSchedule(50), variance="learned")
    x0 = digits.splits["train"].images[:4].float() / 127.5 - 1
    t, noise = torch.tensor([0, 1, 20, 49]), torch.randn_like(x0)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(loss.sum(), network.head.weight)
        return gradient  # (2, c, 3, 3): of the noise and of v

    x_t = model.schedule.add_noise(x0, noise, t)
    of_error = gradient((network(x_t, t)[:, :1] - noise).square().flatten(1).mean(1))
    term = bound_term(model.denoiser()(x_t, t), model.schedule, x0, x_t, t)
    of_bound = gradient(0.001 * 50 * term)
    of_both = gradient(model.loss(x0, t, noise))
    torch.testing.assert_close(of_both[0], of_error[0])
    torch.testing.assert_close(of_both[1], of_bound[1])
    assert of_bound[0].abs().max() > 0  # and would have changed the noise
    assert of_error[1].abs().max() == 0


def test_weighting_and_times_are_those_of_training(tmp_path: Path, digits) -> None:
    model, seen = small_model(), []
    model.time_sampler, model.weighting = LogitNormalTimes(3.0, 0.1), MinSNRWeighting(0.5)
    loss = model.loss
    model.loss = lambda x0, t, *rest: seen.append(t) or loss(x0, t, *rest)
    trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(model, digits)
    assert torch.cat(seen).min() >= 45
    x0, t = torch.zeros(2, 1, 28, 28), torch.tensor([10, 40])
    noise = torch.randn_like(x0)
    weighted, plain = loss(x0, t, noise), small_model()
    plain.network = model.network
    alpha, sigma = model.schedule.alpha_sigma(t)
    snr = (alpha / sigma) ** 2
    expected = snr.clamp(max=0.5) / snr * plain.loss(x0, t, noise)
    torch.testing.assert_close(weighted, expected)


def test_labels_are_learned_and_at_times_dropped(tmp_path: Path, digits) -> None:
    network, seen = UNet(channels=(8,), num_classes=10), []
    forward = network.forward
    network.forward = lambda x, t, label=None: seen.append(label) or forward(x, t, label)
    model = DiffusionLightningModule(network, sampler=DDIM(2), label_dropout=0.3)
    seen.clear()
    trainer(tmp_path, max_steps=20, limit_val_batches=0).fit(model, digits)
    trained = torch.cat(seen[:20])
    assert (trained == -1).double().mean().item() == pytest.approx(0.3, abs=0.08)
    assert set(trained.tolist()) == set(range(-1, 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_dropout": 1.5}, "label_dropout must be from 0 to 1"),
        ({"variance": "learned"}, "need 2 \\(out_channels\\)"),
        ({"network": UNet(channels=(8,), out_channels=2)}, "need 1 \\(out_channels\\)"),
        ({"schedule": ZeroTerminalSNR()}, "take VelocityTarget or DataTarget"),
        (
            {
                "network": UNet(channels=(8,), out_channels=2),
                "variance": "learned",
                "time_sampler": LogitNormalTimes(),
            },
            "take UniformTimes",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionLightningModule(**options)


def test_nested_parts_are_rebuilt(tmp_path: Path, digits: MNISTDataModule) -> None:
    schedule = ZeroTerminalSNR(CosineSchedule(30))
    model = DiffusionLightningModule(
        MLP(hidden=8),
        schedule,
        VelocityTarget(),
        sampler=DPMSolver(4),
        guidance_interval=(0.3, 0.9),
    )
    fitted = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fitted.fit(model, digits)
    fitted.save_checkpoint(tmp_path / "a.ckpt")
    again = DiffusionLightningModule.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert isinstance(again.schedule, ZeroTerminalSNR)
    assert isinstance(again.schedule.schedule, CosineSchedule)
    assert torch.equal(again.schedule.alpha, schedule.alpha)
    assert torch.equal(again.sample(2, progress=False), model.sample(2, progress=False))


def test_sample_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    together = to_uint8(model.sample(6, seed=3)).int()
    alone = to_uint8(model.sample([4], seed=3)).int()
    assert (together[4] - alone[0]).abs().max() <= 1
    assert (together[3] - together[4]).abs().max() > 50
    monkeypatch.setattr(diffusion, "sampling_batch", lambda *_: 4)
    parts = to_uint8(model.sample(6, seed=3)).int()
    assert (together - parts).abs().max() <= 1


class Nameless(Network):
    """Has arguments without names."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, x_t, t, label=None) -> torch.Tensor:
        return x_t


@pytest.mark.parametrize(
    "parts",
    [
        (Forgetful(3),),
        (Nameless(3, 4),),
        (MLP(hidden=8), NoiseSchedule(torch.full((50,), 0.1)), None, Ancestral(5)),
    ],
)
def test_a_part_that_forgets_its_arguments_is_refused(parts: tuple) -> None:
    with pytest.raises(TypeError, match="must keep each constructor argument"):
        DiffusionLightningModule(*parts)


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"lr": -1.0}, {"warmup_steps": 0}])
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        DiffusionLightningModule(**options)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        small_model().sample(0)


def test_more_sampler_steps_than_the_schedule_has_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="between 1 and T = 50, got 51"):
        DiffusionLightningModule(schedule=CosineSchedule(50), sampler=Ancestral(51))


def test_mixed_precision_leaves_the_schedule_and_the_loss_in_float32(
    tmp_path: Path, digits: MNISTDataModule
) -> None:
    model, outputs = small_model(), []
    model.network.register_forward_hook(lambda *args: outputs.append(args[-1].dtype))
    options = {"max_steps": 2, "limit_val_batches": 1, "precision": "bf16-mixed"}
    fitted = trainer(tmp_path, **options)
    fitted.fit(model, digits)
    assert set(outputs) == {torch.bfloat16}
    assert {buffer.dtype for buffer in model.schedule.buffers()} == {torch.float32}
    assert fitted.callback_metrics["train/loss"].dtype == torch.float32
    assert len(list((tmp_path / "grids").iterdir())) == 1


def test_the_bar_shows_the_loss_of_every_tenth_batch(tmp_path: Path, digits) -> None:
    model, losses = small_model(), []
    model.on_train_batch_end = lambda *args: losses.append(args[0]["loss"].item())
    fitted = trainer(tmp_path, max_steps=13, limit_val_batches=0)
    fitted.fit(model, digits)
    assert len(set(losses)) == 13
    assert fitted.progress_bar_metrics == {"loss": losses[10]}


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_other_true_precisions_are_refused(tmp_path: Path, digits, precision: str) -> None:
    with pytest.raises(ValueError, match="does not keep the noise schedule"):
        trainer(tmp_path, max_steps=1, precision=precision).fit(small_model(), digits)


class Linear(Network):
    """Predicts the noise sigma x_t, which is the best linear guess for data of unit variance."""

    def forward(self, x_t, t, label=None) -> torch.Tensor:
        return LinearSchedule().alpha_sigma(t)[1][:, None, None, None] * x_t


def test_training_learns(tmp_path: Path, digits: MNISTDataModule) -> None:
    # Oracle: the loss of the linear guess, which a network must soon leave far behind.
    model = DiffusionLightningModule(lr=6e-3, warmup_steps=20, sampler=Ancestral(1))
    linear = validation_loss(DiffusionLightningModule(Linear()), digits, 300)
    assert validation_loss(model, digits, 300) > linear
    trainer(tmp_path, max_steps=80, limit_val_batches=0).fit(model, digits)
    assert validation_loss(model, digits, 300) < linear / 2
