"""What the Trainer and the model make of one another."""

from pathlib import Path

import pytest
import torch
from fits import small_model, trainer, validation_loss
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from lightning_ddpm import Diffusion, DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.networks import MLP, Network, UNet
from lightning_ddpm.objective import VelocityTarget
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver
from lightning_ddpm.schedule import CosineSchedule, LinearSchedule, ZeroTerminalSNR
from lightning_ddpm.training import EMA


def test_validation_loss_depends_on_the_weights_alone(tmp_path: Path, digits) -> None:
    module, few = small_model(), digits.splits["val"].part(torch.arange(300))
    first = validation_loss(module, few, tmp_path, size=300)
    torch.manual_seed(99)
    for size in (300, 100, 7):
        assert validation_loss(module, few, tmp_path, size) == pytest.approx(first, rel=1e-6)


def test_training_noise_is_new_in_each_batch(tmp_path: Path, digits: MNISTDataModule) -> None:
    def first_noises(seed: int) -> list[torch.Tensor]:
        seen = []
        torch.manual_seed(seed)
        module = small_model()
        loss = module.model.denoising_loss
        module.model.denoising_loss = lambda x0, t, noise, *rest: (
            seen.append(noise) or loss(x0, t, noise, *rest)
        )
        options = {"max_steps": 4, "limit_val_batches": 0, "accumulate_grad_batches": 2}
        trainer(tmp_path, **options).fit(module, digits)
        return seen

    runs = [first_noises(seed=1), first_noises(seed=2)]
    noises = [noise[0] for run in runs for noise in run]
    assert len(noises) == 16
    assert all(not torch.equal(a, b) for i, a in enumerate(noises) for b in noises[:i])
    again = first_noises(seed=1)
    assert all(torch.equal(a, b) for a, b in zip(runs[0], again, strict=True))


def test_learning_rate_rises_then_falls_to_zero(tmp_path: Path, digits: MNISTDataModule) -> None:
    module, rates = small_model(warmup_steps=4), []
    module.on_train_batch_start = lambda *_: rates.append(module.optimizers().param_groups[0]["lr"])
    trainer(tmp_path, max_steps=20, limit_val_batches=0).fit(module, digits)
    assert rates[:4] == pytest.approx([0.0005, 0.001, 0.0015, 0.0017])
    assert rates[4:] == pytest.approx([0.002 * (1 - step / 20) for step in range(4, 20)])


def test_a_resumed_run_has_the_state_of_the_first_and_its_own_learning_rate(
    tmp_path: Path, digits: MNISTDataModule
) -> None:
    def fit(lr: float, steps: int, ckpt_path: Path | None = None) -> Trainer:
        torch.manual_seed(0)
        module = small_model(lr=lr)
        rates.clear()
        module.on_train_batch_start = lambda *_: rates.append(
            module.optimizers().param_groups[0]["lr"]
        )
        fitted = trainer(tmp_path, max_steps=steps, limit_val_batches=0, callbacks=[EMA()])
        fitted.fit(module, digits, ckpt_path=ckpt_path, weights_only=True)
        return fitted

    rates: list[float] = []
    fit(0.001, 8).save_checkpoint(tmp_path / "a.ckpt")
    resumed = fit(0.004, 20, tmp_path / "a.ckpt")
    assert resumed.global_step == 20
    expected = [0.004 * min((step + 1) / 100, 1 - step / 20) for step in range(8, 20)]
    assert rates == pytest.approx(expected)
    assert [c._latest_update_step for c in resumed.callbacks if isinstance(c, EMA)] == [20]


def saved_and_reloaded(
    module: DiffusionLightningModule, data: MNISTDataModule, folder: Path
) -> DiffusionLightningModule:
    """What the checkpoint of a fit of two steps gives."""
    fitted = trainer(folder, max_steps=2, limit_val_batches=0)
    fitted.fit(module, data)
    fitted.save_checkpoint(folder / "a.ckpt")
    return DiffusionLightningModule.load_from_checkpoint(folder / "a.ckpt", weights_only=True)


def test_checkpoint_of_a_model_built_by_hand_reloads(tmp_path: Path, digits) -> None:
    module = small_model()
    again = saved_and_reloaded(module, digits, tmp_path)
    model = again.model
    assert isinstance(model.network, MLP)
    assert isinstance(model.schedule, CosineSchedule)
    assert (model.network.hidden, model.schedule.T, model.sampler.steps) == (32, 50, 5)
    assert again.lr == 0.002
    assert again.hparams == module.hparams
    assert torch.equal(model.sample(3, seed=4), module.model.sample(3, seed=4))


def test_nested_parts_are_rebuilt(tmp_path: Path, digits: MNISTDataModule) -> None:
    schedule, t = ZeroTerminalSNR(CosineSchedule(30)), torch.arange(-1, 30)
    model = Diffusion(
        *(MLP(hidden=8), schedule, VelocityTarget(), DPMSolver(4)), guidance_interval=(0.3, 0.9)
    )
    again = saved_and_reloaded(DiffusionLightningModule(model), digits, tmp_path).model
    assert isinstance(again.schedule, ZeroTerminalSNR)
    assert isinstance(again.schedule.schedule, CosineSchedule)
    assert torch.equal(again.schedule.alpha_sigma(t)[0], schedule.alpha_sigma(t)[0])
    assert tuple(again.guidance_interval) == (0.3, 0.9)
    assert torch.equal(again.sample(2, progress=False), model.sample(2, progress=False))


def test_labels_are_learned_and_at_times_dropped(tmp_path: Path, digits) -> None:
    network, seen = UNet(channels=(8,), num_classes=10), []
    forward = network.forward
    network.forward = lambda x, t, label=None: seen.append(label) or forward(x, t, label)
    module = DiffusionLightningModule(Diffusion(network, sampler=DDIM(2), condition_dropout=0.3))
    seen.clear()
    trainer(tmp_path, max_steps=20, limit_val_batches=0).fit(module, digits)
    trained = torch.cat(seen[:20])
    assert (trained == -1).double().mean().item() == pytest.approx(0.3, abs=0.08)
    assert set(trained.tolist()) == set(range(-1, 10))


@pytest.mark.parametrize(
    "options", [{"lr": 0.0}, {"lr": -1.0}, {"warmup_steps": 0}, {"grid_every_n_epochs": 0}]
)
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        DiffusionLightningModule(**options)


def test_mixed_precision_leaves_the_schedule_and_the_loss_in_float32(
    tmp_path: Path, digits: MNISTDataModule
) -> None:
    module, outputs = small_model(), []
    module.model.network.register_forward_hook(lambda *args: outputs.append(args[-1].dtype))
    options = {"max_steps": 2, "limit_val_batches": 1, "precision": "bf16-mixed"}
    fitted = trainer(tmp_path, **options)
    fitted.fit(module, digits)
    assert set(outputs) == {torch.bfloat16}
    assert {buffer.dtype for buffer in module.model.schedule.buffers()} == {torch.float32}
    assert fitted.callback_metrics["train/loss"].dtype == torch.float32
    assert len(list((tmp_path / "grids").iterdir())) == 1


def test_the_bar_shows_the_loss_of_every_tenth_batch(tmp_path: Path, digits) -> None:
    module, losses = small_model(), []
    module.on_train_batch_end = lambda *args: losses.append(args[0]["loss"].item())
    fitted = trainer(tmp_path, max_steps=13, limit_val_batches=0)
    fitted.fit(module, digits)
    assert len(set(losses)) == 13
    assert fitted.progress_bar_metrics == {"loss": losses[10]}


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_other_true_precisions_are_refused(tmp_path: Path, digits, precision: str) -> None:
    with pytest.raises(ValueError, match=r"does not keep the noise schedule .* in float32"):
        trainer(tmp_path, max_steps=1, precision=precision).fit(small_model(), digits)


class Linear(Network):
    """Predicts the noise sigma x_t, which is the best linear guess for data of unit variance."""

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        return LinearSchedule().alpha_sigma(t)[1][:, None, None, None] * x_t


def test_training_learns(tmp_path: Path, digits: MNISTDataModule) -> None:
    # Oracle: the loss of the linear guess, which a network must soon leave far behind.
    few = digits.splits["val"].part(torch.arange(300))
    linear = validation_loss(DiffusionLightningModule(Diffusion(Linear())), few, tmp_path)
    model = Diffusion(UNet(channels=(16, 16)), sampler=Ancestral(1))
    module = DiffusionLightningModule(model, lr=1.5e-2, warmup_steps=10)
    assert validation_loss(module, few, tmp_path) > linear
    trainer(tmp_path, max_steps=50, limit_val_batches=0).fit(module, digits)
    assert validation_loss(module, few, tmp_path) < linear / 2


@pytest.mark.parametrize(("batches", "left"), [(2, False), (3, True)])
def test_only_gradients_that_wait_for_a_step_outlast_a_run(
    batches: int, left: bool, tmp_path: Path, digits: MNISTDataModule
) -> None:
    # CUDA graphs would refuse to move the others to the CPU, where every run ends.
    module = small_model()
    limits = {"max_epochs": 1, "limit_train_batches": 10, "limit_val_batches": 0}

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            if batch_idx == batches - 1:
                raise RuntimeError("stop")

    stopping = trainer(tmp_path, accumulate_grad_batches=2, callbacks=[Stop()], **limits)
    with pytest.raises(RuntimeError, match="stop"):
        stopping.fit(module, digits)
    assert any(p.grad is not None for p in module.parameters()) == left
