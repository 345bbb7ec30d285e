"""What the command line may leave out, and what wins over what."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import SOURCE
from tiny import built_by, call

from lightning_ddpm import Diffusion, DiffusionLightningModule
from lightning_ddpm.cli.classify import classify
from lightning_ddpm.cli.export import export
from lightning_ddpm.cli.flags import expand, short_flags
from lightning_ddpm.cli.score import score
from lightning_ddpm.configs import CONFIGS
from lightning_ddpm.data import ImageFolderDataModule
from lightning_ddpm.networks import Network
from lightning_ddpm.samplers import DDIM, DPMSolver

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
SAMPLER = "--model.sampler null --model.sampler"


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("", "fit"),
        ("--accelerator gpu", "fit --trainer.accelerator gpu"),
        (
            "fit --lr 1e-3 --batch_size=256",
            "fit --training.lr 1e-3 --data.init_args.batch_size 256",
        ),
        ("--optimizer adam", "fit --training.optimizer adam"),
        ("--max_epochs 5", "fit --trainer.max_epochs 5"),
        ("--max_steps=5 --max_epochs 2", "fit --trainer.max_steps 5 --trainer.max_epochs 2"),
        ("--config mlp", f"fit --config {CONFIGS / 'mlp.yaml'}"),
        ("--config=mlp", f"fit --config {CONFIGS / 'mlp.yaml'}"),
        ("--lr 1 --config mlp", f"fit --config {CONFIGS / 'mlp.yaml'} --training.lr 1"),
        ("-c my/mlp.yaml", "fit -c my/mlp.yaml"),
        ("predict --seed 3 --png", "predict --seed_everything 3 --samples.png true"),
        ("predict --png false", "predict --samples.png false"),
        ("predict --png --outdir x", "predict --samples.png true --samples.outdir x"),
        ("predict --batch_size 3", "predict --data.init_args.sample_batch_size 3"),
        ("test --num_samples 9", "test --evaluation.num_samples 9"),
        ("predict --num_samples 9", "predict --data.init_args.num_samples 9"),
        ("--steps 20", "fit --model.sampler.init_args.steps 20"),
        ("--sampler DPMSolver", "fit --model.sampler DPMSolver"),
        ("--sampler DDIM", f"fit {SAMPLER} DDIM"),
        ("--sampler my.Own", f"fit {SAMPLER} my.Own"),
        ("--steps 7 --sampler DDIM", f"fit {SAMPLER} DDIM --model.sampler.init_args.steps 7"),
        (
            "--sampler DPMSolver --config paper",
            f"fit --config {CONFIGS / 'paper.yaml'} {SAMPLER} DPMSolver",
        ),
        ("--sampler null", "fit --model.sampler null"),
        ("fit --trainer.max_epochs 5", "fit --trainer.max_epochs 5"),
        ("--lr -1", "fit --training.lr=-1"),
        ("--help", "--help"),
        ("predict --labels 7", "predict --model.labels [7]"),
        ("predict --labels=0,1,2", "predict --model.labels [0,1,2]"),
        ("predict --labels [0,1] --guidance 2", "predict --model.labels [0,1] --model.guidance 2"),
        ("bogus --lr 1", "bogus --training.lr 1"),
    ],
)
def test_short_command_lines(short: str, full: str) -> None:
    assert expand(short.split()) == full.split()
    assert expand(full.split()) == full.split()  # DDP's processes expand once more


@pytest.mark.parametrize(
    ("arguments", "epochs"),
    [("", -1), ("--config full", 20), ("--max_epochs 3", 3), ("--config full --max_epochs 3", 3)],
)
def test_steps_alone_set_no_limit_to_the_epochs(arguments: str, epochs: int) -> None:
    once = expand(["--max_steps", "5", *arguments.split()])
    assert expand(once) == once  # as DDP's processes do
    trainer = built_by(*once).trainer
    assert (trainer.max_steps, trainer.max_epochs) == (5, epochs)


def test_every_argument_has_a_short_flag() -> None:
    # Oracle: Python's own view of the constructors, without the parser.
    flags = short_flags(ImageFolderDataModule)
    assert flags["--image_size"] == "--data.init_args.image_size"
    names = {*Diffusion.__init__.__annotations__} - {"return"}
    assert {"network", "medium", "condition_dropout", "shape"} < names
    assert {f"--{name}" for name in names} <= set(flags)
    assert {flags[f"--{name}"] for name in names} == {f"--model.{name}" for name in names}
    assert "--model" not in flags


@pytest.mark.parametrize(
    ("arguments", "sampler", "expected"),
    [
        ("", DPMSolver, {"steps": 12, "eta": 1.0}),  # the recipe's
        ("--sampler DPMSolver", DPMSolver, {"steps": 12, "eta": 1.0}),
        ("--sampler lightning_ddpm.samplers.DPMSolver", DPMSolver, {"steps": 12, "eta": 1.0}),
        ("--sampler DPMSolver --steps 7", DPMSolver, {"steps": 7, "eta": 1.0}),
        ("--sampler DDIM", DDIM, vars(DDIM())),
        ("--sampler DDIM --steps 7", DDIM, {"steps": 7, "eta": 0.0}),
        ("--steps 7 --sampler DDIM", DDIM, {"steps": 7, "eta": 0.0}),
        ("--model.sampler.init_args.eta 0.5 --sampler DDIM", DDIM, {"steps": 50, "eta": 0.5}),
        ("--config paper --sampler DPMSolver", DPMSolver, vars(DPMSolver())),
        ("--sampler DPMSolver --config paper", DPMSolver, vars(DPMSolver())),
    ],
)
def test_another_sampler_starts_from_its_own_arguments(
    arguments: str, sampler: type, expected: dict
) -> None:
    model = built_by(*arguments.split()).model.model
    assert type(model.sampler) is sampler
    assert vars(model.sampler) == expected


def test_another_data_module_takes_its_flags_in_any_order() -> None:
    # Nothing is read before training, and the shape need not be asked for.
    words = ("--image_size", 8, "--data", "ImageFolderDataModule", "--data_dir", "own")
    own = (*words, "--shape", "[1,8,8]", "--model.network.init_args.in_channels", 1)
    data = built_by(*own).datamodule
    assert isinstance(data, ImageFolderDataModule)
    assert (data.image_size, str(data.data_dir)) == (8, "own")


OWN = """
from functools import partial
import torch
from torch.utils.data import DataLoader
from lightning_ddpm.data import ArrayDataModule, ArrayDataset

class MyData(ArrayDataModule):
    raw_shape, class_names, dtype, condition = (1, 8, 8), [], torch.uint8, None

    def __init__(self, my_flag: int = 1) -> None:
        super().__init__(batch_size=4)
        self.my_flag = my_flag

    def load_splits(self, stage):
        split = ArrayDataset(torch.zeros(8, *self.raw_shape, dtype=self.dtype), self.condition)
        return {"train": split, "val": split, "test": split}
"""


def test_data_of_one_s_own_have_short_flags_and_are_in_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "my_own_data.py").write_text(OWN)
    small = ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--max_steps", 2)
    call("--data", "my_own_data.MyData", "--my_flag", 3, *small)
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    again = built_by("validate", "--ckpt_path", checkpoint)
    assert type(again.datamodule).__name__ == "MyData"
    assert again.datamodule.my_flag == 3
    assert again.model.model.shape == (1, 8, 8)
    assert built_by("test", "--my_flag", 4, "--ckpt_path", checkpoint).datamodule.my_flag == 4


def test_a_limit_of_one_is_one_batch_and_one_whole_is_all(tmp_path: Path) -> None:
    # Lightning alone makes 1.0 of 1.
    limits = {"train": "1", "val": "1.0", "test": "0.5", "predict": "3"}
    lines = [f"  limit_{split}_batches: {limit}\n" for split, limit in limits.items()]
    (tmp_path / "my.yaml").write_text("trainer:\n" + "".join(lines))
    flags = [w for split, limit in limits.items() for w in (f"--limit_{split}_batches", limit)]
    swapped = ("--limit_train_batches", "1.0", "--limit_val_batches=1")
    usual = [(int, 1), (float, 1.0), (float, 0.5), (int, 3)]
    for words, expected in (
        (("--config", "my.yaml"), usual),
        (flags, usual),
        (("--config", "my.yaml", *swapped), [(float, 1.0), (int, 1), *usual[2:]]),
    ):
        trainer = built_by(*words).trainer
        found = [getattr(trainer, f"limit_{split}_batches") for split in limits]
        assert [(type(limit), limit) for limit in found] == expected, words


TRAINED = {"conditional", "default", "learned_variance"}  # by test_folder.py
TRAINED |= {"inpainting", "superresolution", "video"}  # by test_restoring.py, test_filming.py


@pytest.mark.parametrize("recipe", sorted({path.stem for path in CONFIGS.glob("*.yaml")} - TRAINED))
def test_every_other_recipe_runs(recipe: str) -> None:
    source = () if recipe == "series" else ("--source", SOURCE)
    call("--config", recipe, *source, "--fast_dev_run", "true", "--steps", 2)
    assert not os.listdir()


def test_gradients_that_are_accumulated_are_not_in_cuda_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes = []
    monkeypatch.setattr(Network, "compile", lambda _, mode: modes.append(mode))
    built_by("--compile")
    built_by("--compile", "--accumulate_grad_batches", 2)
    assert modes == ["reduce-overhead", "default"]


def test_paper_recipe_is_the_python_default() -> None:
    recipes = [yaml.safe_load((CONFIGS / f"{n}.yaml").read_text()) for n in ("default", "paper")]
    recipe, model = recipes[0]["model"] | recipes[1]["model"], Diffusion()
    for name in ("network", "schedule", "target", "weighting", "time_sampler", "sampler"):
        assert recipe[name]["class_path"].split(".")[-1] == type(getattr(model, name)).__name__
    assert isinstance(DiffusionLightningModule().model, Diffusion)


@pytest.mark.parametrize("tool", [classify, export, score])
def test_tools_explain_their_arguments(tool: Callable, capfd) -> None:
    with pytest.raises(SystemExit) as exit_:
        call(tool.__name__, "--help")
    assert exit_.value.code in (None, 0)
    text = " ".join(capfd.readouterr().out.split())
    summary, *_, arguments = inspect.getdoc(tool).split("\n\n")
    assert " ".join(summary.split()) in text
    lines = [line.strip().split(": ", 1) for line in arguments.splitlines()[1:]]
    assert [name for name, _ in lines] == [*inspect.signature(tool).parameters]
    for name, meaning in lines:
        assert name in text
        assert meaning in text


def test_help_names_the_tools_and_the_flags(capfd) -> None:
    for words in (["--help"], ["fit", "--help"]):
        with pytest.raises(SystemExit):
            call(*words)
    text = capfd.readouterr().out
    assert "classify, export, score" in text
    for flag in ("--model.network", "--training.lr", "--trainer.max_epochs", "--data", "--resume"):
        assert flag in text


def test_a_recipe_may_ask_for_steps_alone() -> None:
    Path("my.yaml").write_text("trainer: {max_steps: 20}")
    trainer = built_by("--config", "my.yaml").trainer
    assert (trainer.max_steps, trainer.max_epochs) == (20, -1)
    Path("my.yaml").write_text("trainer: {max_steps: 20, max_epochs: 2}")
    assert built_by("--config", "my.yaml").trainer.max_epochs == 2


def test_flags_win_over_recipes_in_any_order() -> None:
    for words in (("--max_epochs", 1, "--config", "full"), ("--config", "full", "--max_epochs", 1)):
        assert built_by(*words).trainer.max_epochs == 1


def test_a_printed_configuration_is_a_configuration(capfd) -> None:
    with pytest.raises(SystemExit):
        call("predict", "--print_config")
    text = capfd.readouterr().out
    assert isinstance(yaml.safe_load(text)["model"], dict)
    assert text.count("\nmodel:") + text.startswith("model:") == 1
