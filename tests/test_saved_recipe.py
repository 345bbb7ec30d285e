"""A checkpoint says by itself what it needs: the model, its training and its data; flags win."""

from pathlib import Path

import numpy as np
import pytest
import torch
from own_images import write_images
from tiny import TINY, built_by, call, error_of

from lightning_ddpm.data import ImageFolderDataModule
from lightning_ddpm.networks import MLP
from lightning_ddpm.objective import FlowTarget
from lightning_ddpm.samplers import DDIM
from lightning_ddpm.schedule import RectifiedFlow

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that is told the classes of images of one's own, by a flow, and the images."""
    folder = tmp_path_factory.mktemp("own")
    write_images(folder / "images", (12, 20))
    words = ("--config", "conditional", "--schedule", "RectifiedFlow", "--target", "FlowTarget")
    words += ("--data", "ImageFolderDataModule", "--data_dir", folder / "images")
    words += ("--image_size", 8, "--batch_size", 4, "--model.network.init_args.channels", "[8,8]")
    words += ("--steps", 3, "--max_steps", 2, "--trainer.default_root_dir", folder)
    call(*words, "--accelerator", "cpu")
    return {"images": folder / "images", "checkpoint": next(folder.rglob("last.ckpt"))}


@pytest.mark.parametrize("subcommand", ["predict", "validate", "test"])
def test_own_images_need_the_checkpoint_only(subcommand: str, own: dict[str, Path]) -> None:
    cli = built_by(subcommand, "--ckpt_path", own["checkpoint"])
    data, model = cli.datamodule, cli.model.model
    assert isinstance(data, ImageFolderDataModule)
    assert (data.data_dir, data.image_size, data.batch_size) == (own["images"], 8, 4)
    assert (model.shape, model.network.num_classes, model.sampler.steps) == ((3, 8, 8), 2, 3)
    assert isinstance(model.schedule, RectifiedFlow)
    assert isinstance(model.target, FlowTarget)
    weights = torch.load(own["checkpoint"], weights_only=True)["state_dict"]
    assert all(torch.equal(w, weights[f"model.{n}"]) for n, w in model.state_dict().items())


def test_own_images_are_predicted_validated_and_tested(
    own: dict[str, Path], tmp_path: Path
) -> None:
    call("predict", "--ckpt_path", own["checkpoint"], "--num_samples", 3, "--labels", 1)
    samples = np.load(tmp_path / "samples" / "samples.npz")
    assert samples["images"].shape == (3, 3, 8, 8)
    assert samples["labels"].tolist() == [1, 1, 1]
    call("validate", "--ckpt_path", own["checkpoint"])
    call("test", "--ckpt_path", own["checkpoint"])


def test_flags_win_over_the_checkpoint_s_data(own: dict[str, Path], tmp_path: Path, capfd) -> None:
    words = ("validate", "--ckpt_path", own["checkpoint"], "--batch_size", 2)
    data = built_by(*words, "--data_dir", "elsewhere").datamodule
    assert (str(data.data_dir), data.image_size, data.batch_size) == ("elsewhere", 8, 2)
    code, line = error_of(capfd, lambda: call(*words, "--data_dir", "elsewhere"))
    assert (code, line) == (1, "error: elsewhere: no such folder")
    _, line = error_of(capfd, lambda: call(*words, "--image_size", 16))
    assert "shape (3, 8, 8) of the model is not that of the data, (3, 16, 16)" in line
    _, line = error_of(
        capfd, lambda: call("predict", "--ckpt_path", own["checkpoint"], "--labels", 2)
    )
    assert "labels must be from 0 to 1, got [2]" in line


def test_flags_win_over_checkpoint_and_checkpoint_over_defaults(run: dict[str, str]) -> None:
    words = ("predict", "--ckpt_path", run["checkpoint"])
    module = built_by(*words).model
    assert isinstance(module.model.network, MLP)
    assert (module.model.network.hidden, module.model.sampler.steps, module.lr) == (16, 3, 0.005)
    module = built_by(*words, "--steps", 9, "--lr", 0.5).model
    assert (module.model.network.hidden, module.model.sampler.steps, module.lr) == (16, 9, 0.5)


def test_arguments_of_the_checkpoint_s_own_network_are_flags(run: dict[str, str], capfd) -> None:
    # The default recipe's network is a U-Net, which has no ``hidden``.
    words = ("predict", "--ckpt_path", run["checkpoint"], "--model.network.init_args.hidden")
    assert built_by(*words, 16).model.model.network.hidden == 16
    code, line = error_of(capfd, lambda: built_by(*words, 17))
    assert (code, line) == (2, "error: the checkpoint does not hold the weights of this MLP")


def test_a_recipe_wins_over_the_checkpoint_and_flags_over_both(
    run: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "my.yaml").write_text(
        "model: {sampler: {class_path: DDIM, init_args: {steps: 8, eta: 0.5}}}"
    )
    words = ("predict", "--ckpt_path", run["checkpoint"], "--config", "my.yaml")
    sampler = built_by(*words).model.model.sampler
    assert isinstance(sampler, DDIM)
    assert vars(sampler) == {"steps": 8, "eta": 0.5}
    assert vars(built_by(*words, "--steps", 5).model.model.sampler) == {"steps": 5, "eta": 0.5}


def test_fit_goes_on_with_the_checkpoint_s_model(run: dict[str, str]) -> None:
    cli = built_by("--ckpt_path", run["checkpoint"], "--max_steps", 6)
    assert isinstance(cli.model.model.network, MLP)
    assert cli.options.ckpt_path == run["checkpoint"]


def test_a_recipe_may_name_the_checkpoint(run: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(f"ckpt_path: {run['checkpoint']}")
    for subcommand in ("predict", "validate", "fit"):
        cli = built_by(subcommand, "--config", "my.yaml")
        assert isinstance(cli.model.model.network, MLP)
        assert cli.options.ckpt_path == run["checkpoint"]


def test_a_recipe_may_ask_to_resume(run: dict[str, str], tmp_path: Path, capfd) -> None:
    (tmp_path / "my.yaml").write_text("resume: true")
    words = ("--config", "my.yaml", *TINY, "--trainer.default_root_dir")
    assert built_by(*words, run["folder"]).options.ckpt_path == run["checkpoint"]
    assert f"resume:      {run['checkpoint']}" in capfd.readouterr().out
    assert built_by(*words, tmp_path).options.ckpt_path is None
    assert "no last.ckpt under" in capfd.readouterr().out
    code, line = error_of(capfd, lambda: call("predict", "--config", "my.yaml"))
    assert code == 2
    assert "--resume: only fit goes on with a run" in line
    (tmp_path / "my.yaml").write_text("resume: false")
    assert built_by(*words, run["folder"]).options.ckpt_path is None
