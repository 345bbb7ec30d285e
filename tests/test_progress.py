"""What is known of where the Trainer stands: fails where Lightning moves its private names."""

from pathlib import Path

import pytest
import torch
from fits import FewImages, tiny_model, trainer
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_ddpm.training import EMA, LastCheckpoint
from lightning_ddpm.training.progress import (
    batches_begun,
    can_stop,
    epoch_and_batch,
    epoch_as_it_is,
    is_whole,
    log_train_step,
    steps_logged,
)


class Notes(Callback):
    """Writes down at each batch what is said of it, beside what is known by counting."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.begun, self.stops, self.places = stop_at, [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.begun.append(batches_begun(trainer))
        trainer.should_stop = trainer.global_step == self.stop_at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.stops.append(can_stop(trainer))
        self.places.append((trainer.current_epoch, batch_idx + 1, epoch_and_batch(trainer)))


def fit(folder: Path, stop_at: int | None = None, **options) -> tuple[Trainer, Notes]:
    """Three epochs of ten batches, with validation after five of them and two a step."""
    torch.manual_seed(0)
    notes, last = Notes(stop_at), LastCheckpoint(every_n_seconds=0)
    settings = {"max_epochs": 3, "min_epochs": 1, "callbacks": [EMA(), last, notes]}
    settings |= {"val_check_interval": 5, "accumulate_grad_batches": 2, "log_every_n_steps": 1}
    run = trainer(folder, logger=CSVLogger(folder), **settings)
    run.fit(tiny_model(), FewImages(), **options)
    return run, notes


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notes]:
    """A run that ends in its second epoch: its last checkpoint."""
    folder = tmp_path_factory.mktemp("cut")
    run, notes = fit(folder, stop_at=7)
    (last,) = (c.path for c in run.checkpoint_callbacks if isinstance(c, LastCheckpoint))
    return last, notes


def test_batches_are_counted_over_the_run(cut: tuple[Path, Notes], tmp_path: Path) -> None:
    saved, notes = cut
    assert notes.begun == [*range(1, len(notes.begun) + 1)]
    assert 10 < len(notes.begun) < 20
    _, resumed = fit(tmp_path, ckpt_path=saved, weights_only=True)
    assert resumed.begun == [*range(len(notes.begun) + 1, 31)]
    for epoch, batches, said in (*notes.places, *resumed.places):
        assert said == (epoch, batches if batches < 10 else 0)


def test_a_run_can_stop_between_steps_but_not_before_validation(cut: tuple[Path, Notes]) -> None:
    # By construction: a step every second batch, validation after batches 5 and 10 of an epoch.
    expected = [batch % 2 == 0 and batch not in (5, 10) for batch in range(1, 11)]
    assert cut[1].stops[:10] == expected


def test_a_checkpoint_says_its_steps_and_whether_it_is_whole(cut: tuple[Path, Notes]) -> None:
    state = torch.load(cut[0], weights_only=True)
    assert is_whole(state)
    ended = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"]
    assert not ended
    assert steps_logged(state) == state["global_step"]
    for name in ("loops", "global_step", "optimizer_states"):
        assert not is_whole({key: value for key, value in state.items() if key != name})


def test_an_epoch_that_is_cut_short_has_not_been_processed(tmp_path: Path) -> None:
    seen = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            before = trainer.fit_loop.epoch_progress.current.processed
            with epoch_as_it_is(trainer):
                seen.append(before - trainer.fit_loop.epoch_progress.current.processed)
            assert trainer.fit_loop.epoch_progress.current.processed == before

    run = trainer(tmp_path, max_steps=14, limit_val_batches=0, callbacks=[Look()])
    run.fit(tiny_model(), FewImages())
    assert seen == [0, 1]


def test_a_step_can_be_logged_before_lightning_does(tmp_path: Path) -> None:
    logged = []

    class Log(CSVLogger):
        def log_metrics(self, metrics, step=None) -> None:
            logged.append((step, set(metrics)))

    class Early(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            before = len(logged)
            log_train_step(trainer)
            assert [names for _, names in logged[before:]] == [{"train/loss", "epoch"}]

    options = {"max_steps": 2, "limit_val_batches": 0, "log_every_n_steps": 1}
    run = trainer(tmp_path, logger=Log(tmp_path), callbacks=[Early()], **options)
    run.fit(tiny_model(), FewImages())
    assert len(logged) >= 2
