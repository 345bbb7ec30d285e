"""What is known of where the Trainer stands: fails where Lightning moves its private names."""

from pathlib import Path

import pytest
import torch
from fits import FewImages, tiny_model, trainer
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_ddpm.training import EMA, LastCheckpoint, resume
from lightning_ddpm.training.progress import (
    batches_begun,
    can_stop,
    epoch_and_batch,
    epoch_as_it_is,
    is_whole,
    log_train_step,
    steps_logged,
)

CUT = 14  # batches of a run that is stopped: in the middle of the second epoch


class Notes(Callback):
    """Writes down what is said at each batch, and what happens; ends the run where it is told."""

    def __init__(self, batches: int | None = None) -> None:
        self.batches = batches
        self.begun, self.places, self.index, self.events = [], [], [], []
        self.stops: list[bool] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.begun.append(batches_begun(trainer))
        self.index.append(batch["index"].tolist())
        self.events.append("batch")
        trainer.should_stop = len(self.begun) == self.batches

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.stops.append(can_stop(trainer))
        self.places.append((trainer.current_epoch, batch_idx + 1, epoch_and_batch(trainer)))

    def on_validation_start(self, trainer, pl_module) -> None:
        self.events.append("validation")

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.events.append("end of an epoch")


def fit(folder: Path, notes: Notes, ckpt_path: Path | None = None, **options) -> Trainer:
    """Three epochs of ten batches, with validation after five of them and two a step."""
    torch.manual_seed(0)
    settings = {"max_epochs": 3, "min_epochs": 1, "num_sanity_val_steps": 0}
    settings |= {"val_check_interval": 5, "accumulate_grad_batches": 2, "log_every_n_steps": 1}
    callbacks = [EMA(), LastCheckpoint(every_n_seconds=0), notes]
    run = trainer(folder, logger=CSVLogger(folder), callbacks=callbacks, **(settings | options))
    run.fit(tiny_model(), FewImages(), ckpt_path=ckpt_path, weights_only=True)
    return run


def last_of(run: Trainer) -> Path:
    (last,) = (c.path for c in run.checkpoint_callbacks if isinstance(c, LastCheckpoint))
    assert last is not None
    return last


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notes]:
    """The last checkpoint of a run that ends after 14 batches."""
    notes = Notes(CUT)
    return last_of(fit(tmp_path_factory.mktemp("cut"), notes)), notes


@pytest.fixture(scope="module")
def resumed(cut: tuple[Path, Notes], tmp_path_factory: pytest.TempPathFactory) -> Notes:
    """A run that goes on from there to the end."""
    notes = Notes()
    fit(tmp_path_factory.mktemp("resumed"), notes, cut[0])
    return notes


def test_batches_are_counted_over_the_run(cut: tuple[Path, Notes], resumed: Notes) -> None:
    assert cut[1].begun == [*range(1, CUT + 1)]
    assert resumed.begun == [*range(CUT + 1, 31)]
    for epoch, batches, said in (*cut[1].places, *resumed.places):
        assert said == (epoch, batches if batches < 10 else 0)


def test_a_run_that_goes_on_gets_the_rest_of_the_epoch(
    cut: tuple[Path, Notes], resumed: Notes, tmp_path: Path
) -> None:
    whole = Notes()
    fit(tmp_path, whole)
    assert [*cut[1].index, *resumed.index] == whole.index
    epochs = [torch.tensor(whole.index[start : start + 10]).flatten() for start in (0, 10, 20)]
    assert all(epoch.sort().values.equal(torch.arange(100)) for epoch in epochs)
    assert len(torch.stack(epochs).unique(dim=0)) == 3


def test_a_run_can_stop_between_steps_but_not_before_validation(
    cut: tuple[Path, Notes], resumed: Notes
) -> None:
    # By construction: a step every second batch; validation after batches 5 and 10 of an epoch,
    # and at the end of the run.
    expected = [batch % 2 == 0 and batch not in (5, 10) for batch in range(1, 11)] * 3
    expected[CUT - 1] = False
    assert [*cut[1].stops, *resumed.stops] == expected


def test_a_checkpoint_says_its_steps_and_whether_it_is_whole(cut: tuple[Path, Notes]) -> None:
    state = torch.load(cut[0], weights_only=True)
    assert is_whole(state)
    assert steps_logged(state) == state["global_step"] == CUT // 2
    for name in ("loops", "global_step", "optimizer_states", "lr_schedulers"):
        assert not is_whole({key: value for key, value in state.items() if key != name})


def saved_at_the_end_of_an_epoch(folder: Path) -> Path:
    return last_of(fit(folder, Notes(), max_epochs=-1, max_steps=5))


def test_a_run_that_was_saved_at_the_end_of_an_epoch_goes_on_with_the_next(tmp_path: Path) -> None:
    saved, notes = saved_at_the_end_of_an_epoch(tmp_path / "first"), Notes()
    state = torch.load(saved, weights_only=True)
    assert steps_logged(state) == state["global_step"] + 1 == 6  # the step of the grid
    fit(tmp_path / "next", notes, saved, max_epochs=-1, max_steps=10)
    half = [*["batch"] * 5, "validation"]
    assert notes.events == [*half, *half, "end of an epoch"]
    assert [epoch for epoch, *_ in notes.places] == [1] * 10


def test_lightning_would_go_through_the_end_of_the_epoch_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where it no longer does, leave_finished_epoch can go.
    saved, notes = saved_at_the_end_of_an_epoch(tmp_path / "first"), Notes()
    monkeypatch.setattr(resume, "leave_finished_epoch", lambda trainer: None)
    fit(tmp_path / "next", notes, saved, max_epochs=-1, max_steps=10)
    assert notes.events.count("end of an epoch") == 2


class Processed(Callback):
    """How many epochs a checkpoint says are done, at the end of each: as it is, and without."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[tuple[int, int]] = []

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        def processed() -> int:
            trainer.save_checkpoint(self.path)
            loops = torch.load(self.path, weights_only=True)["loops"]
            return loops["fit_loop"]["epoch_progress"]["current"]["processed"]

        with epoch_as_it_is(trainer):
            within = processed()
        self.seen.append((within, processed()))


def test_an_epoch_that_is_cut_short_has_not_been_processed(tmp_path: Path) -> None:
    look = Processed(tmp_path / "a.ckpt")
    trainer(tmp_path, max_steps=14, limit_val_batches=0, callbacks=[look]).fit(
        tiny_model(), FewImages()
    )
    assert look.seen == [(1, 1), (1, 2)]


def test_a_step_can_be_logged_before_lightning_does(tmp_path: Path) -> None:
    logged = []

    class Log(CSVLogger):
        def log_metrics(self, metrics, step=None) -> None:
            logged.append((step, set(metrics)))

    class Early(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            before = len(logged)
            log_train_step(trainer)
            assert logged[before:] == [(batch_idx, {"train/loss", "epoch"})]

        def on_train_epoch_end(self, trainer, pl_module) -> None:
            before = len(logged)
            log_train_step(trainer)  # there is none
            assert logged[before:] == []

    options = {"max_steps": 2, "limit_val_batches": 0, "log_every_n_steps": 1}
    run = trainer(tmp_path, logger=Log(tmp_path), callbacks=[Early()], **options)
    run.fit(tiny_model(), FewImages())
    assert len(logged) == 4  # each step twice
