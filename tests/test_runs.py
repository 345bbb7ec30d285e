"""A run writes into its own folder, and is found there again."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from fits import FewImages, tiny_model, trainer
from tiny import TINY, built_by, call, error_of, last_of

from lightning_ddpm import MNISTDataModule, load_model
from lightning_ddpm.data import ImageFolderDataModule
from lightning_ddpm.training import EMA, LastCheckpoint, SampleEvaluation, SampleWriter

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def step_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


OWN_LOGGER = ("--trainer.logger", "my_loggers.Flat")
FLAT = """
from lightning.pytorch.loggers.logger import Logger

class Flat(Logger):
    save_dir, name, version = ".", "flat", "first"

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, *args, **kwargs):
        pass
"""


@pytest.mark.parametrize(
    "logger",
    [("--trainer.logger", "false"), OWN_LOGGER, ()],
    ids=["none", "without a folder", "TensorBoard"],
)
def test_a_configuration_in_the_working_folder_stays(
    logger: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_loggers.py").write_text(FLAT)
    monkeypatch.syspath_prepend(tmp_path)
    text = "# mine\nmodel: {network: {init_args: {hidden: 8}}}\n"
    Path("config.yaml").write_text(text)
    Path("checkpoints").mkdir()
    Path("checkpoints/last.ckpt").write_text("mine")
    call(*TINY[:2], *TINY[4:], "--config", "mlp", "--config", "config.yaml", *logger)
    assert Path("config.yaml").read_text() == text
    assert Path("checkpoints/last.ckpt").read_text() == "mine"
    folder = Path("flat/first") if logger == OWN_LOGGER else last_of(0).parents[1]
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"]["network"]["init_args"]["hidden"] == 8
    assert step_of(folder / "checkpoints" / "last.ckpt") == 4
    assert len([*folder.glob("grids/*.png")]) == 1


def test_runs_without_a_logger_stand_beside_each_other_and_resume() -> None:
    quiet = ("--trainer.logger", "false")
    call(*TINY, *quiet)
    first = last_of(0).read_bytes()
    call(*TINY, *quiet, "--seed", 1)
    assert last_of(0).read_bytes() == first
    assert last_of(1).is_file()
    call(*TINY, *quiet, "--seed", 1, "--resume", "--max_steps", 6)
    assert (step_of(last_of(0)), step_of(last_of(1))) == (4, 6)
    assert not last_of(2).exists()


def test_trainers_without_a_logger_leave_each_other_s_checkpoints(tmp_path: Path) -> None:
    def fit(steps: int, path: Path | None = None) -> Path:
        last = LastCheckpoint()
        fitted = trainer(tmp_path, callbacks=[last], max_steps=steps)
        fitted.fit(tiny_model(), FewImages(), ckpt_path=path, weights_only=True)
        assert last.path is not None
        return last.path

    first, second = fit(2), fit(3)
    assert first == tmp_path / "checkpoints" / "last.ckpt"
    assert second == tmp_path / last_of(0)
    assert (step_of(first), step_of(second)) == (2, 3)
    assert fit(4, first) == first
    assert (step_of(first), step_of(second)) == (4, 3)


def test_home_is_known_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LIGHTNING_DDPM_DATA", "~/data")
    home = tmp_path / "home"
    assert MNISTDataModule().data_dir == home / "data"
    assert MNISTDataModule("~/mine").data_dir == home / "mine"
    assert ImageFolderDataModule("~/mine").data_dir == home / "mine"
    assert SampleWriter("~/out").folder(trainer(tmp_path)) == home / "out"
    assert SampleEvaluation(outdir="~/out").folder == home / "out"
    Path("my.yaml").write_text("trainer: {default_root_dir: ~/runs}")
    words = ("--source", "packaged", *TINY[:6], "--limit_val_batches", 1, "--config", "my.yaml")
    words += ("--limit_train_batches", 2)
    call(*words, "--max_epochs", 1)
    run = home / "runs" / last_of(0).parents[1]
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    call(*words, "--resume", "--max_epochs", 2)
    assert step_of(run / "checkpoints" / "last.ckpt") == 4
    assert step_of(run / "checkpoints" / "best.ckpt") in (2, 4)
    path = "~/runs/lightning_logs/version_0/checkpoints/last.ckpt"
    assert load_model(path).network.hidden == 16
    call("predict", f"--ckpt_path={path}", "--num_samples", 1, "--outdir=~/samples")
    assert (home / "samples" / "samples.npz").is_file()
    assert not Path("~").exists()
    assert not (home / "checkpoints").exists()


def test_a_saved_configuration_can_be_run_again(run: dict[str, str], capfd) -> None:
    call(*TINY, "--ckpt_path", run["checkpoint"], "--max_steps", 5)
    call(*TINY, "--resume", "--max_steps", 6)
    config = last_of(0).parents[1] / "config.yaml"
    assert step_of(last_of(0)) == 6
    saved = yaml.safe_load(config.read_text())
    assert (saved["resume"], saved["ckpt_path"]) == (False, None)
    built = built_by("fit", "--config", str(config))
    assert built.options.ckpt_path is None
    call("predict", "--config", config, "--ckpt_path", last_of(0), "--num_samples", 1)


def test_the_same_callbacks_serve_two_trainers(tmp_path: Path) -> None:
    callbacks, ends = [EMA(0.5), LastCheckpoint()], []
    for folder in (tmp_path / "a", tmp_path / "b"):
        torch.manual_seed(0)
        module = tiny_model()
        fitted = trainer(folder, callbacks=callbacks, max_steps=5)
        fitted.fit(module, FewImages())
        ends.append(torch.cat([p.flatten() for p in module.parameters()]))
        assert callbacks[1].path == folder / "checkpoints" / "last.ckpt"
    assert torch.equal(*ends)


def test_addresses_are_refused(capfd) -> None:
    for words in (("--trainer.default_root_dir", "s3://bucket"), ("--data_dir", "memory://x")):
        _, line = error_of(capfd, lambda words=words: call(*TINY, *words))
        assert f"{words[1]}: only folders and files of this machine" in line
    assert not [*Path().iterdir()]


def test_a_linked_folder_of_runs_is_gone_on_with() -> None:
    Path("scratch").mkdir()
    Path("lightning_logs").symlink_to("scratch")
    call(*TINY)
    call(*TINY, "--resume", "--max_steps", 6)
    assert [path.name for path in Path("scratch").iterdir()] == ["version_0"]
    assert step_of(last_of(0)) == 6


def test_names_of_figures_make_no_folders() -> None:
    few = ("--source", "packaged", "--limit_train_batches", 2, "--max_epochs", 1)
    name = ("--best_checkpoint.filename", "{epoch}-{val/loss:.2f}")
    call(*TINY[:6], *few, "--limit_val_batches", 1, *name)
    best, last = sorted(last_of(0).parent.iterdir())
    assert last.name == "last.ckpt"
    assert re.fullmatch(r"0-\d\.\d\d\.ckpt", best.name)


LOGGER = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs")


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (LOGGER, "logs/lightning_logs"),
        (("--config", "my.yaml"), "here/again"),
    ],
    ids=["save_dir", "recipe"],
)
def test_a_run_of_another_logger_is_found_where_it_is(
    words: tuple[str, ...], folder: str, capfd
) -> None:
    arguments = "{save_dir: here, name: again}"
    logger = f"{{class_path: TensorBoardLogger, init_args: {arguments}}}"
    Path("my.yaml").write_text(f"trainer: {{logger: {logger}}}")
    call(*TINY, *words)
    (first,) = Path(folder).glob("*/checkpoints/last.ckpt")
    call(*TINY, *words, "--resume", "--max_steps", 6)
    assert f"resume:      {first.resolve()}" in capfd.readouterr().out.replace(
        f"resume:      {folder}", f"resume:      {Path(folder).resolve()}"
    )
    steps = sorted(step_of(path) for path in Path(folder).glob("*/checkpoints/last.ckpt"))
    assert steps == [4, 6]


@pytest.mark.parametrize("flag", ["enable_checkpointing=false", "barebones=true"])
def test_a_run_may_do_without_checkpoints(flag: str, capfd) -> None:
    call(*TINY, f"--trainer.{flag}")
    assert not [*Path().rglob("*.ckpt")]
    told = capfd.readouterr().out
    assert "checkpoint:" not in told
    assert ("curves:" in told) == ("enable" in flag)
