"""The judge in training and in ``test``."""

import json
from pathlib import Path

import pytest
import torch
from fits import FewImages, small_model, tiny_model, trainer
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ddpm import MNISTDataModule, load_model
from lightning_ddpm.judge import DigitJudge
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import UniformTimes
from lightning_ddpm.training import EMA, BestCheckpoint, LastCheckpoint, SampleEvaluation
from lightning_ddpm.training.precision import measuring_device

SAMPLES = 12
pytestmark = pytest.mark.usefixtures("features_once")


def fit(folder: Path, every: int | None) -> tuple[Trainer, MNISTDataModule]:
    data = MNISTDataModule(source="packaged", batch_size=50)
    monitor = {"monitor": "eval/frechet_distance"} if every else {}
    checkpoint = ModelCheckpoint(folder, "best", every_n_epochs=every or 1, **monitor)
    callbacks = [EMA(0.5), SampleEvaluation(SAMPLES, every), checkpoint]
    options = {"limit_train_batches": 5, "limit_val_batches": 1, "logger": True, "max_epochs": 2}
    fitted = trainer(folder, callbacks=callbacks, **options)
    fitted.fit(small_model(), data)
    return fitted, data


def test_fewer_samples_than_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "world_size", 8)
    with pytest.raises(ValueError, match="num_samples 6 is below the 8 processes"):
        SampleEvaluation(6).setup(trainer(tmp_path), small_model(), "fit")


def test_samples_of_the_average_weights_are_judged(tmp_path: Path) -> None:
    fitted, data = fit(tmp_path, every=2)
    logged = {name: value.item() for name, value in fitted.callback_metrics.items()}
    # Oracle: the same samples, drawn and judged by hand from the weights in the checkpoint.
    checkpoint = fitted.checkpoint_callback
    assert isinstance(checkpoint, ModelCheckpoint)
    best = checkpoint.best_model_path
    images = to_uint8(load_model(best).sample(SAMPLES, progress=False))
    expected = data.judge().score(images)
    for name in ("frechet_distance", "nearest_distance", "precision", "share_of_1"):
        assert logged[f"eval/{name}"] == pytest.approx(expected[name], rel=1e-3, abs=1e-6), name
    assert checkpoint.best_model_score == logged["eval/frechet_distance"]
    assert logged["eval/samples"] == SAMPLES
    assert logged["eval/frechet_floor"] > 0
    assert not any("judge" in name for name in torch.load(best, weights_only=True)["state_dict"])

    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent)).Reload()
    assert len(events.Scalars("eval/frechet_distance")) == 1  # of two epochs
    (picture,) = events.Images("eval/training images, samples, nearest training images")
    assert (picture.width, picture.height) == (4 * (10 * 30 + 2), 4 * (3 * 30 + 2))
    bins = [tag for tag in events.Tags()["scalars"] if tag.startswith("val_by_time/")]
    assert sorted(bins)[:2] == ["val_by_time/0000-0004", "val_by_time/0005-0009"]
    assert len(bins) == 10


def test_a_cpu_is_not_kept_busy_by_default(tmp_path: Path) -> None:
    fitted, _ = fit(tmp_path, every=None)
    assert not any(name.startswith("eval/") for name in fitted.callback_metrics)


def test_data_without_a_judge_are_not_judged(tmp_path: Path, capfd) -> None:
    assert FewImages().judge() is None
    every_epoch, module = SampleEvaluation(SAMPLES, every_n_epochs=1), tiny_model()
    fitted = trainer(tmp_path, callbacks=[every_epoch], max_epochs=1)
    fitted.fit(module, FewImages())
    assert not any(name.startswith("eval/") for name in fitted.callback_metrics)
    (figures,) = fitted.test(module, FewImages(), verbose=False)
    assert set(figures) == {
        *("test/loss", "test/bits_per_dim", "test/bits_per_dim_ci95"),
        *("test/L_0", "test/L_t", "test/L_T"),
    }
    output = capfd.readouterr().out
    assert "bits per dimension: " in output
    assert "floor" not in output


def test_validation_loss_by_time_is_the_loss_of_those_time_steps(tmp_path: Path) -> None:
    # Oracle: the loss of all images in one batch, and the time step that each has to itself.
    module, data = small_model(), MNISTDataModule(source="packaged", batch_size=64)
    (logged,) = trainer(tmp_path).validate(module, data)
    model, split, own = module.model.eval(), data.splits["val"], SampleNoise(0, range(500))
    with torch.no_grad():
        loss = model.loss({"x0": split.x0}, own)
    t = UniformTimes().draw(model.schedule, own)
    for low in range(0, 50, 5):
        expected = loss[(t >= low) & (t < low + 5)].mean().item()
        assert logged[f"val_by_time/{low:04d}-{low + 4:04d}"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("options", [{"num_samples": 5}, {"every_n_epochs": -1}])
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="evaluation needs"):
        SampleEvaluation(**options)


def test_test_prints_one_table_and_writes_json(
    run: dict[str, str], call_main, tmp_path: Path, capfd
) -> None:
    options = ("--num_samples", 20, "--limit_test_batches", 2, "--source", "packaged")
    call_main("test", "--ckpt_path", run["checkpoint"], *options, "--outdir", "scores")
    output = capfd.readouterr().out
    figures = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert figures["samples"] == 20
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "near_copies"):
        (line,) = [line for line in output.splitlines() if line.startswith(f"{name} ")]
        value, floor, *_ = map(float, line.split()[1:3])
        assert value == pytest.approx(figures[name], abs=1e-4)
        assert floor == pytest.approx(figures[f"{name.removesuffix('_distance')}_floor"], abs=1e-4)
    assert f"bits per dimension: {figures['bits_per_dim']:.3f} +- " in output
    assert "Test metric" not in output  # Lightning's own table


def test_an_evaluation_that_fails_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a device that cannot compute what the judge asks of it, here in the second epoch.
    score = DigitJudge.update

    def update(judge: DigitJudge, *arguments) -> None:
        if fitted.current_epoch == 1:
            raise TypeError("no float64 here")
        score(judge, *arguments)

    monkeypatch.setattr(DigitJudge, "update", update)
    best, last = BestCheckpoint(monitor="eval/frechet_distance", filename="best"), LastCheckpoint()
    callbacks = [EMA(0.5), SampleEvaluation(SAMPLES, 1), best, last]
    options = {"limit_train_batches": 5, "limit_val_batches": 1, "max_epochs": 3}
    fitted = trainer(tmp_path, callbacks=callbacks, **options)
    data = MNISTDataModule(source="packaged", batch_size=50)
    with pytest.warns(UserWarning, match="could not be judged, training goes on: no float64 here"):
        fitted.fit(small_model(), data)
    assert torch.load(last.path, weights_only=True)["global_step"] == 15
    assert fitted.callback_metrics["eval/samples"] == SAMPLES


def test_apple_s_gpus_are_measured_on_the_cpu() -> None:
    assert measuring_device(torch.device("mps")) == torch.device("cpu")
    assert measuring_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
