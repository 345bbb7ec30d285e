"""The best checkpoints: as many as are asked for, known again, and of the average weights."""

from pathlib import Path

import pytest
import torch
from fits import FewImages, tiny_model, trainer, weights_of
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import TINY, call, error_of

from lightning_ddpm import load_model
from lightning_ddpm.training import EMA, BestCheckpoint, SampleEvaluation

LOSSES = [0.5, 0.2, 0.4, 0.1, 0.3]


class Told(Callback):
    """Validation that finds what it is told."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        pl_module.log("val/told", self.losses[trainer.current_epoch])


def fit(folder: Path, epochs: int, losses=LOSSES, path=None, **options) -> BestCheckpoint:
    """A run with a checkpoint ``last-N.ckpt`` of each epoch beside the best ones."""
    best = BestCheckpoint(
        monitor="val/told", filename="best", enable_version_counter=False, **options
    )
    every = ModelCheckpoint(filename="last-{epoch}", save_top_k=-1)
    callbacks = [Told(losses), best, every]
    fitted = trainer(folder, callbacks=callbacks, max_epochs=epochs, limit_train_batches=1)
    fitted.fit(tiny_model(), FewImages(), ckpt_path=path, weights_only=True)
    return best


@pytest.mark.parametrize("k", [1, 3, -1])
def test_as_many_are_kept_as_are_asked_for(tmp_path: Path, k: int) -> None:
    fit(tmp_path, 5, save_top_k=k)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("best*"))
    epochs = sorted(range(5), key=LOSSES.__getitem__)[: k if k > 0 else 5]
    names = [f"best-epoch={epoch}-step={epoch + 1}.ckpt" for epoch in sorted(epochs)]
    assert kept == (["best.ckpt"] if k == 1 else names)


@pytest.mark.parametrize("how", ["moved", "relative", "as it is"])
def test_the_best_score_is_known_again(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(tmp_path / "a", 2, [0.5, 0.2])
    if how == "moved":
        (tmp_path / "a").rename(tmp_path / "b")
    monkeypatch.chdir(tmp_path)
    folder = {"moved": tmp_path / "b", "relative": Path("a"), "as it is": tmp_path / "a"}[how]
    best = fit(folder, 3, [0.5, 0.2, 900.0], folder / "checkpoints" / "last-epoch=1.ckpt")
    assert best.best_model_score == pytest.approx(0.2)
    saved = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["epoch"] == 1
    assert Path(best.best_model_path).is_file()


def test_a_run_in_another_folder_has_its_own_best(tmp_path: Path) -> None:
    fit(tmp_path / "a", 2, [0.5, 0.2])
    best = fit(tmp_path / "b", 3, [0.5, 0.2, 900.0], tmp_path / "a/checkpoints/last-epoch=1.ckpt")
    assert best.best_model_score == 900
    assert Path(best.best_model_path) == tmp_path / "b" / "checkpoints" / "best.ckpt"


def test_weights_alone_are_the_average(tmp_path: Path) -> None:
    options = {"save_weights_only": True, "monitor": "val/loss", "filename": "best"}
    best, module = BestCheckpoint(**options), tiny_model(lr=0.05)
    fitted = trainer(tmp_path, callbacks=[EMA(0.9), best], max_epochs=1)
    fitted.fit(module, FewImages())  # ends with the average
    found = load_model(best.best_model_path)
    assert torch.equal(weights_of(found), weights_of(module))
    assert "optimizer_states" not in torch.load(best.best_model_path, weights_only=True)


def test_weights_alone_are_for_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ("--source", "packaged", "--limit_train_batches", 2, "--max_epochs", 1)
    call(*TINY[:6], *few, "--limit_val_batches", 1, "--best_checkpoint.save_weights_only", "true")
    call("predict", "--ckpt_path", next(tmp_path.rglob("best.ckpt")), "--num_samples", 1)
    assert (tmp_path / "samples" / "samples.npz").is_file()


def test_a_figure_of_every_second_epoch_is_monitored_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances = iter([3.0, 1.0, 2.0])

    def evaluate(self, trainer, pl_module, stage) -> None:
        pl_module.log("eval/frechet_distance", next(distances))

    monkeypatch.setattr(SampleEvaluation, "evaluate", evaluate)
    best = BestCheckpoint(monitor="eval/frechet_distance", filename="best", save_top_k=-1)
    callbacks = [SampleEvaluation(6, every_n_epochs=2), best]
    fitted = trainer(tmp_path, callbacks=callbacks, max_epochs=6, limit_train_batches=1)
    fitted.fit(tiny_model(), FewImages())
    saved = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert saved == [f"best-epoch={e}-step={e + 1}.ckpt" for e in (1, 3, 5)]
    assert best.best_model_score == 1.0


@pytest.mark.parametrize(
    ("monitor", "names"),
    [
        ("eval/frechet_distance", "--evaluation.every_n_epochs says when"),
        ("val/los", "best_checkpoint.monitor val/los: there are val/loss"),
    ],
)
def test_what_will_not_be_there_is_refused_before_training(
    monitor: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (*TINY, "--accelerator", "cpu", "--best_checkpoint.monitor", monitor)
    _, line = error_of(capfd, lambda: call(*words))
    assert names in line
    assert not [*tmp_path.rglob("*.ckpt")]


def test_another_checkpoint_of_the_same_figure_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.yaml").write_text(
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint, "
        "init_args: {monitor: val/loss, filename: mine}}]}"
    )
    few = ("--source", "packaged", "--limit_train_batches", 2, "--max_epochs", 1)
    words = (*TINY[:6], *few, "--limit_val_batches", 1, "--config", "my.yaml")
    call(*words)
    names = {path.name for path in tmp_path.rglob("*.ckpt")}
    assert names == {"best.ckpt", "mine.ckpt", "last.ckpt"}
    text = (tmp_path / "my.yaml").read_text()
    twice = text.replace("[{", "[{class_path: ModelCheckpoint, init_args: {monitor: val/loss}}, {")
    (tmp_path / "my.yaml").write_text(twice)
    code, line = error_of(capfd, lambda: call(*words))
    assert code == 2
    assert "ModelCheckpoint" in line
