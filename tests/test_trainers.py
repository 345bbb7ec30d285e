"""Lightning's own ways: one Trainer for all, other loggers, threads and intervals."""

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fits import FewImages, tiny_model, trainer, weights_of
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import built_by, call

from lightning_ddpm import DiffusionLightningModule
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.training import EMA, BestCheckpoint, LastCheckpoint, SampleWriter
from lightning_ddpm.training.evaluation import SampleEvaluation

pytestmark = pytest.mark.usefixtures("features_once")


def callbacks() -> list[Callback]:
    return [EMA(0.8), LastCheckpoint(0), BestCheckpoint(monitor="val/loss", filename="best")]


def losses(run: Any, module: Any, path: Any = None) -> tuple[float, float]:
    options = {"verbose": False, "ckpt_path": path, "weights_only": True}
    (validated,) = run.validate(module, FewImages(), **options)
    (tested,) = run.test(module, FewImages(), **options)
    return validated["val/loss"], tested["test/loss"]


def test_one_trainer_measures_and_samples_as_fresh_ones_do(tmp_path: Path) -> None:
    module, (ema, last, best) = tiny_model(lr=0.05, warmup_steps=1), callbacks()
    run = trainer(tmp_path, max_epochs=2, callbacks=[ema, last, best, SampleWriter()])
    run.fit(module, FewImages())
    fresh = [trainer(tmp_path, callbacks=more) for more in ([], callbacks())]
    expected = losses(fresh[0], tiny_model(), last.path)
    loaded = DiffusionLightningModule.load_from_checkpoint(last.path, weights_only=True)
    assert losses(fresh[0], loaded) == expected
    for other in (fresh[1], run):
        assert losses(other, module, last.path) == expected
        assert losses(other, tiny_model(), last.path) == expected
    assert losses(run, module, "last") == expected
    assert losses(run, module, "best") == losses(fresh[0], tiny_model(), best.best_model_path)
    samples = [run.predict(module, FewImages(), ckpt_path=last.path, weights_only=True)]
    samples += [fresh[0].predict(tiny_model(), FewImages(), ckpt_path=last.path, weights_only=True)]
    assert torch.equal(*(batches[0]["images"] for batches in samples))


def test_the_command_line_measures_and_samples_as_python_does(
    run: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, few = run["checkpoint"], {"limit_val_batches": 3, "limit_test_batches": 1}
    words = ("--ckpt_path", path, "--limit_val_batches", 3, "--limit_test_batches", 1)
    words += ("--accelerator", "cpu", "--source", "packaged", "--evaluation.num_samples", 6)
    module = DiffusionLightningModule.load_from_checkpoint(path, weights_only=True)
    for name in ("validate", "test"):
        cli = built_by(name, *(words[:-2] if name == "validate" else words))
        options = {"verbose": False, "ckpt_path": path, "weights_only": True}
        (told,) = getattr(cli.trainer, name)(cli.model, cli.datamodule, **options)
        (found,) = getattr(trainer(tmp_path, **few), name)(module, cli.datamodule, verbose=False)
        assert {key: told[key] for key in found} == found
    call("predict", *words[:2], "--num_samples", 3, "--precision", "32-true")
    expected = module.model.eval().sample(3, progress=False)
    images = torch.from_numpy(np.load("samples/samples.npz")["images"])
    assert torch.equal(images[:, None], to_uint8(expected))


def test_the_best_is_that_of_another_callback_or_the_last(tmp_path: Path) -> None:
    last, best = LastCheckpoint(), ModelCheckpoint(monitor="val/loss")
    run = trainer(tmp_path, max_epochs=1, callbacks=[last, best])
    run.fit(tiny_model(), FewImages())
    assert last.best_model_path == best.best_model_path
    run = trainer(tmp_path / "alone", max_epochs=1, callbacks=[last])
    run.fit(tiny_model(), FewImages())
    assert last.best_model_path == str(last.path)
    (tested,) = run.test(ckpt_path="best", datamodule=FewImages(), weights_only=True)
    assert tested["test/loss"] > 0


def test_without_the_average_a_run_goes_on_from_the_weights_in_training(tmp_path: Path) -> None:
    last = LastCheckpoint()
    averaged = trainer(tmp_path, max_epochs=1, callbacks=[EMA(0.9), last])
    averaged.fit(tiny_model(lr=0.05, warmup_steps=1), FewImages())
    saved, module = torch.load(last.path, weights_only=True), tiny_model()
    seen = []
    module.on_train_batch_start = lambda *_: seen.append(weights_of(module))
    run = trainer(tmp_path / "on", max_epochs=2, callbacks=[])
    run.fit(module, FewImages(), ckpt_path=last.path, weights_only=True)
    module.load_state_dict(saved["current_model_state"])
    assert torch.equal(seen[0], weights_of(module))
    module.load_state_dict(saved["state_dict"])
    assert not torch.equal(seen[0], weights_of(module))


def test_tensorboard_is_found_among_several_loggers(tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path / "board", default_hp_metric=False)
    options = {"logger": [CSVLogger(tmp_path / "csv"), board], "max_epochs": 1}
    trainer(tmp_path, **options).fit(tiny_model(), FewImages())
    events = EventAccumulator(board.log_dir).Reload()
    assert len(events.Images("samples")) == 1
    assert {"custom_scalars__config__", "_hparams_/session_start_info"} <= {
        *events.summary_metadata
    }


def test_a_second_fit_draws_a_second_grid(tmp_path: Path) -> None:
    module = tiny_model()
    for folder in ("a", "b"):
        run = trainer(tmp_path / folder, max_steps=2, limit_val_batches=0)
        run.fit(module, FewImages())
        assert len([*(tmp_path / folder / "grids").iterdir()]) == 1


def test_every_third_epoch_where_every_second_is_validated(tmp_path: Path) -> None:
    evaluated, judge = [], SampleEvaluation(6, every_n_epochs=3)
    judge.evaluate = lambda trainer, *_: evaluated.append(trainer.current_epoch + 1)
    module = tiny_model(grid_every_n_epochs=3)
    options = {"max_epochs": 12, "check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
    trainer(tmp_path, callbacks=[judge], **options).fit(module, FewImages())
    assert evaluated == [4, 6, 10, 12]  # the first that are validated from 3, 6, 9 and 12 on
    steps = [int(path.stem[-6:]) // 10 for path in (tmp_path / "grids").iterdir()]
    assert sorted(steps) == evaluated


def test_a_fit_outside_the_main_thread(tmp_path: Path) -> None:
    last = LastCheckpoint()
    run = trainer(tmp_path, max_epochs=1, callbacks=[EMA(), last])
    thread = threading.Thread(target=run.fit, args=(tiny_model(), FewImages()))
    thread.start()
    thread.join()
    assert torch.load(last.path, weights_only=True)["global_step"] == 10


def test_a_signal_is_answered_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    last = LastCheckpoint()
    last.signal = 0
    last.on_signal(signal.SIGINT, None)
    assert "once more to stop at once" in capfd.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        last.on_signal(signal.SIGINT, None)
    assert exit_.value.code == 130
