"""A run writes into its own folder, and predict over nothing but its own files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fits import FewImages, few_images, tiny_model, trainer
from lightning import Trainer
from PIL import Image
from tiny import TINY, built_by, call, error_of, tiny_run

from lightning_ddpm import MNISTDataModule, load_model
from lightning_ddpm.checkpoints import read_saved
from lightning_ddpm.data import ImageFolderDataModule
from lightning_ddpm.data.base import TrainingOrder
from lightning_ddpm.training import EMA, LastCheckpoint, SampleEvaluation, SampleWriter


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_run(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def last_of(version: int) -> Path:
    return Path("lightning_logs", f"version_{version}", "checkpoints", "last.ckpt")


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


def test_the_user_s_own_files_are_neither_removed_nor_written_over(
    run: dict[str, str], capfd
) -> None:
    predict = ("predict", "--ckpt_path", run["checkpoint"], "--outdir", "out", "--num_samples")
    Path("out/png").mkdir(parents=True)
    for name in ("png/00000.png", "trajectory.png"):
        Path("out", name).write_text("mine")
    call(*predict, 2)
    for name, flag in (("png/00000.png", "--png"), ("trajectory.png", "--trajectory")):
        code, line = error_of(capfd, lambda flag=flag: call(*predict, 2, flag))
        assert code == 1
        assert line.startswith(f"error: out/{name} would be written over: move it, or take another")
        assert Path("out", name).read_text() == "mine"
    Path("other").mkdir()
    Path("other/samples.npz").write_text("mine")
    code, line = error_of(capfd, lambda: call(*predict[:-2], "other"))
    assert (code, Path("other/samples.npz").read_text()) == (1, "mine")
    assert "other/samples.npz would be written over" in line


def test_what_predict_wrote_itself_is_replaced(run: dict[str, str]) -> None:
    predict = ("predict", "--ckpt_path", run["checkpoint"], "--num_samples")
    call(*predict, 3, "--png", "--trajectory")
    Path("samples/png/mine.png").write_text("mine")
    call(*predict, 2, "--png")
    names = {str(path.relative_to("samples")) for path in Path("samples").rglob("*.*")}
    singles = {"png/00000.png", "png/00001.png", "png/mine.png"}
    assert names == {".written", "samples.npz", "grid.png", *singles}
    call(*predict, 1)
    assert [path.name for path in Path("samples/png").iterdir()] == ["mine.png"]


def test_names_of_more_than_99_999_images_sort(tmp_path: Path) -> None:
    from lightning_ddpm.media import Images

    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_ddpm.media.images.write_png", lambda _, path: written.append(path))
        Images().write(
            {"images": torch.zeros(100_001, 1, 1, 1, dtype=torch.uint8)}, tmp_path, png=True
        )
    names = [path.name for path in written[1:]]
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("000000.png", "100000.png")


def test_metrics_are_not_written_over_another_s(run: dict[str, str], capfd) -> None:
    Path("out").mkdir()
    Path("out/metrics.json").write_text("mine")
    words = ("test", "--ckpt_path", run["checkpoint"], "--outdir", "out", "--num_samples", 6)
    words += ("--trainer.limit_test_batches", 1, "--source", "packaged")
    _, line = error_of(capfd, lambda: call(*words))
    assert "out/metrics.json would be written over" in line
    Path("out/metrics.json").unlink()
    call(*words)
    first = Path("out/metrics.json").read_text()
    call(*words)
    assert json.loads(Path("out/metrics.json").read_text()) == json.loads(first)


def test_fit_has_no_outdir(capfd) -> None:
    for words in (("--outdir", "x"), ("validate", "--outdir", "x")):
        code, line = error_of(capfd, lambda words=words: call(*words))
        assert code == 2
        assert "--outdir: " in line


@pytest.mark.parametrize("part", ["--target DataTarget", "--schedule LinearSchedule"])
def test_weights_do_not_go_on_as_something_else(part: str, run: dict[str, str], capfd) -> None:
    before = Path(run["checkpoint"]).read_bytes()
    words = (*TINY, "--trainer.default_root_dir", run["folder"], "--resume", "--max_steps", 9)
    code, line = error_of(capfd, lambda: call(*words, *part.split()))
    assert code == 2
    assert line.startswith(f"error: {part.split()[0]}: the weights were trained with ")
    code, line = error_of(capfd, lambda: call(*words, "--config", "paper", "--network", "MLP"))
    assert code == 2
    assert Path(run["checkpoint"]).read_bytes() == before


def test_what_else_has_changed_is_said(run: dict[str, str], capfd) -> None:
    words = (*TINY, "--ckpt_path", run["checkpoint"], "--max_steps", 5, "--lr", "1e-4")
    call(*words, "--weighting", "MinSNRWeighting")
    changed = [line for line in capfd.readouterr().out.splitlines() if line.startswith("changed:")]
    assert changed == [
        "changed:     weighting MinSNRWeighting(gamma=5.0) in place of UniformWeighting()",
        "changed:     lr 0.0001 in place of 0.005",
    ]


def test_the_checkpoint_s_data_are_taken_and_others_refused(capfd) -> None:
    brief = ("--network", "MLP", "--steps", 2, "--max_steps", 1, "--limit_val_batches", 1)
    from test_data import write_idx_files

    for name in ("FashionMNIST", "MNIST"):
        write_idx_files(Path("data", name, "raw"))
    call(*brief, "--data_dir", "data", "--dataset", "FashionMNIST")
    for words in (("--resume", *brief), ("test", "--ckpt_path", last_of(0))):
        assert built_by(*words).datamodule.dataset == "FashionMNIST"
        code, line = error_of(capfd, lambda words=words: call(*words, "--dataset", "MNIST"))
        assert code == 2
        assert line == "error: --data MNIST: the weights were trained on FashionMNIST"


def test_classes_of_other_names_are_refused(capfd) -> None:
    for name in ("cats", "dogs"):
        Path("own", name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(Path("own", name, f"{i}.png"))
    words = ("--config", "conditional", "--data", "ImageFolderDataModule", "--data_dir", "own")
    words += ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--batch_size", 4)
    call(*words, "--max_steps", 1, "--limit_val_batches", 1)
    assert list(read_saved(last_of(0)).class_names) == ["cats", "dogs"]
    call("predict", "--ckpt_path", last_of(0), "--labels", "dogs", "--num_samples", 2)
    assert np.load("samples/samples.npz")["labels"].tolist() == [1, 1]
    assert "classes:     0 cats, 1 dogs" in capfd.readouterr().out
    Path("own/cats").rename("own/eels")
    for command in (("test",), ("fit", "--max_steps", 2)):
        code, line = error_of(
            capfd, lambda command=command: call(*command, "--ckpt_path", last_of(0))
        )
        assert code == 2
        assert line == "error: --data has the classes dogs, eels, the weights know cats, dogs"


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


def test_a_recipe_may_ask_for_steps_alone() -> None:
    Path("my.yaml").write_text("trainer: {max_steps: 20}")
    trainer = built_by("--config", "my.yaml").trainer
    assert (trainer.max_steps, trainer.max_epochs) == (20, -1)
    Path("my.yaml").write_text("trainer: {max_steps: 20, max_epochs: 2}")
    assert built_by("--config", "my.yaml").trainer.max_epochs == 2


def test_flags_win_over_recipes_in_any_order() -> None:
    for words in (("--max_epochs", 1, "--config", "full"), ("--config", "full", "--max_epochs", 1)):
        assert built_by(*words).trainer.max_epochs == 1


def test_one_batch_in_a_recipe_is_one_batch(tmp_path: Path) -> None:
    Path("my.yaml").write_text("trainer: {limit_train_batches: 1, limit_val_batches: 1.0}")
    trainer = built_by("--config", "my.yaml").trainer
    assert trainer.limit_train_batches == 1
    assert isinstance(trainer.limit_train_batches, int)
    assert isinstance(trainer.limit_val_batches, float)


def test_a_linked_folder_of_runs_is_gone_on_with() -> None:
    Path("scratch").mkdir()
    Path("lightning_logs").symlink_to("scratch")
    call(*TINY)
    call(*TINY, "--resume", "--max_steps", 6)
    assert [path.name for path in Path("scratch").iterdir()] == ["version_0"]
    assert step_of(last_of(0)) == 6


def test_a_printed_configuration_is_a_configuration(capfd) -> None:
    with pytest.raises(SystemExit):
        call("predict", "--print_config")
    text = capfd.readouterr().out
    assert isinstance(yaml.safe_load(text)["model"], dict)
    assert text.count("\nmodel:") + text.startswith("model:") == 1


def test_names_of_figures_make_no_folders() -> None:
    few = ("--source", "packaged", "--limit_train_batches", 2, "--max_epochs", 1)
    name = ("--best_checkpoint.filename", "{epoch}-{val/loss:.2f}")
    call(*TINY[:6], *few, "--limit_val_batches", 1, *name)
    best, last = sorted(last_of(0).parent.iterdir())
    assert last.name == "last.ckpt"
    assert re.fullmatch(r"0-\d\.\d\d\.ckpt", best.name)


def test_fewer_images_than_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "world_size", 3)
    with pytest.raises(ValueError, match="2 training samples are below the 3 processes"):
        TrainingOrder(few_images(2), 1, trainer(tmp_path))
