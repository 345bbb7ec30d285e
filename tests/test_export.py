"""Models on disk: the package's own, exported weights, and ONNX."""

import os
import re
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import ROOT
from test_readme import PYTHON
from tiny import error_of
from torch import nn

from lightning_ddpm import Diffusion, MNISTDataModule, load_model
from lightning_ddpm.checkpoints import PRETRAINED, read_saved, write_weights
from lightning_ddpm.cli import main
from lightning_ddpm.judge import DigitJudge
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.networks import MLP, Network, UNet
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import FlowTarget, NoiseTarget, VelocityTarget
from lightning_ddpm.onnx import output_gain, write_onnx
from lightning_ddpm.parts import config_of
from lightning_ddpm.samplers import DDIM
from lightning_ddpm.schedule import CosineSchedule, RectifiedFlow


def small_model(flow: bool = False, **network: object) -> Diffusion:
    """An untrained model whose weights all differ from zero."""
    parts = (CosineSchedule(200), VelocityTarget())
    parts = (RectifiedFlow(200), FlowTarget()) if flow else parts
    model = Diffusion(UNet(channels=(8, 16), **network), *parts, sampler=DDIM(4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 30)
    return model.eval()


@pytest.mark.long
def test_the_package_has_a_model_that_draws_digits(digits: MNISTDataModule) -> None:
    # Oracle: real digits the model has not seen, in the judge's frozen features.
    images = to_uint8(load_model().sample(400, progress=False))
    train, val = digits.splits["train"].part(torch.arange(4000)), digits.splits["val"]
    judge = DigitJudge((train.x0, train.condition), (val.x0, val.condition))
    figures, floors = judge.score(images), judge.floors(400)
    assert figures["frechet_distance"] < 5 * floors["frechet_distance"]
    assert figures["coverage"] > 0.7 * floors["coverage"]
    assert figures["near_copies"] <= floors["near_copies"] + 0.01


def test_predict_needs_no_checkpoint(call_main, tmp_path: Path, capfd) -> None:
    call_main("predict", "--num_samples", 5, "--precision", "32-true")
    assert "--ckpt_path takes one of yours" in capfd.readouterr().out
    images = np.load(tmp_path / "samples" / "samples.npz")["images"].astype(int)
    expected = to_uint8(load_model().sample(5, progress=False))[:, 0].int().numpy()
    assert np.abs(images - expected).max() <= 1
    assert os.listdir(tmp_path) == ["samples"]


def test_the_note_beside_the_weights_tells_their_figures() -> None:
    note = (PRETRAINED.parent / "README.md").read_text()
    weights = sum(weight.numel() for weight in load_model().parameters())
    assert f"{weights:,} weights in float32" in note
    assert re.search(r"commit `[0-9a-f]{7,40}`", note)
    assert "python train.py" in note
    assert PRETRAINED.stat().st_size < 4_000_000


def test_exported_weights_sample_as_the_model_they_come_from(call_main, tmp_path: Path) -> None:
    model = small_model(num_classes=3)
    write_weights(model, tmp_path / "a.safetensors")
    again = load_model(tmp_path / "a.safetensors")
    assert config_of(again) == config_of(model)
    assert torch.equal(again.sample(3, progress=False), model.sample(3, progress=False))
    call_main("predict", "--ckpt_path", "a.safetensors", "--num_samples", 3, "--steps", 2)
    images = np.load(tmp_path / "samples" / "samples.npz")["images"].astype(int)
    expected = to_uint8(model.sample(3, sampler=DDIM(2), progress=False))[:, 0].int().numpy()
    assert np.abs(images - expected).max() <= 3  # bfloat16, where the hardware has it


def test_a_checkpoint_is_exported_with_its_average(call_main, tmp_path: Path, capfd) -> None:
    options = ("--network", "MLP", "--model.network.init_args.hidden", 8, "--steps", 3)
    call_main(*options, "--source", "packaged", "--max_steps", 3, "--limit_val_batches", 1)
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    call_main("export", "weights/a.safetensors", "--ckpt_path", checkpoint)
    assert capfd.readouterr().out.endswith("the model is in weights/a.safetensors\n")
    average = torch.load(checkpoint, weights_only=True)["state_dict"]
    exported = load_model(tmp_path / "weights" / "a.safetensors")
    assert isinstance(exported.network, MLP)
    weights = exported.state_dict()
    assert {f"model.{name}" for name in weights} == {*average}
    assert all(torch.equal(weight, average[f"model.{n}"]) for n, weight in weights.items())


@pytest.mark.parametrize(
    "options", [{"num_classes": 3, "weak_dropout": 0.1}, {"flow": True}], ids=str
)
def test_a_loop_over_the_onnx_graph_is_ddim(
    options: dict, call_main, tmp_path: Path, capfd
) -> None:
    model = small_model(**options)
    write_weights(model, tmp_path / "a.safetensors")
    call_main("export", "a.onnx", "--ckpt_path", "a.safetensors")
    (difference,) = re.findall(r"at most (\S+) from PyTorch", capfd.readouterr().out)
    assert 0 < float(difference) < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    told = {"label": []} if model.network.num_classes else {}
    told |= {"x_t": [1, 28, 28], "t": [], "s": []}
    assert {each.name: each.shape[1:] for each in session.get_inputs()} == told
    x = noise = np.random.default_rng(0).standard_normal((5, 1, 28, 28), np.float32)
    labels = {"label": np.arange(5) % 3} if model.network.num_classes else {}
    for t, s in pairwise(DDIM(6).timesteps(model.schedule)):
        x, _ = session.run(None, {"x_t": x, "t": np.full(5, t), "s": np.full(5, s), **labels})
    # Oracle: PyTorch, through the sampler's own loop.
    denoise = model.denoiser(torch.arange(5) % 3 if labels else None)
    expected = DDIM(6).sample(denoise, torch.from_numpy(noise), SampleNoise(0, []))
    np.testing.assert_allclose(x, expected.numpy(), atol=1e-4)


def test_the_installed_command_is_the_command_line() -> None:
    (script,) = entry_points(group="console_scripts", name="lightning-ddpm")
    assert script.load() is main


def test_export_takes_the_package_s_model_if_no_other(call_main, tmp_path: Path) -> None:
    call_main("export", "digits.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["digits.safetensors"]
    exported, model = load_model(tmp_path / "digits.safetensors"), load_model()
    for name, weight in model.state_dict().items():
        assert torch.equal(exported.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("arguments", "code", "names"),
    [
        (("a.pt",), 2, ".safetensors or .onnx"),
        (("a.onnx", "--ckpt_path", "nowhere.ckpt"), 1, "nowhere.ckpt: no such file"),
        (("a.onnx", "--ckpt_path", str(ROOT / "README.md")), 1, "neither a checkpoint"),
        (("/proc/x/a.onnx",), 1, "/proc/x"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple, code: int, names: str, call_main, tmp_path: Path, capfd
) -> None:
    found, line = error_of(capfd, lambda: call_main("export", *arguments))
    assert found == code
    assert names in line
    assert not [*tmp_path.iterdir()]


class ThereAndBack(Network):
    """Turns x_t and turns it back, with one weight in two places: x_t, but for rounding."""

    def __init__(self, branch: bool = False) -> None:
        super().__init__()
        self.branch = branch
        self.turn = nn.Parameter(torch.linalg.qr(torch.randn(784, 784))[0])
        self.same = self.turn

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        if self.branch and bool((x_t > 10).any()):
            return x_t
        return (x_t.flatten(1) @ self.turn @ self.same.T).view_as(x_t)


def test_a_network_is_not_blamed_for_what_x0_magnifies(tmp_path: Path) -> None:
    # On the cosine schedule, x0 is 20,000 times as far off as the noise, at the last time step.
    model = Diffusion(ThereAndBack(), CosineSchedule(), NoiseTarget()).eval()
    assert 0 < write_onnx(model, tmp_path / "a.onnx") < 1e-4
    gain = output_gain(model, torch.zeros(2, 1, 1, 1), torch.tensor([0, 999])).flatten()
    alpha, sigma = model.schedule.alpha_sigma(torch.tensor([0, 999]))
    torch.testing.assert_close(gain, sigma / alpha)
    assert gain[1] > 10_000
    write_weights(model, tmp_path / "a.safetensors")
    assert read_saved(tmp_path / "a.safetensors") is not None


def test_a_wrong_graph_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_ddpm.onnx.TOLERANCE", 1e-12)
    with pytest.raises(ArithmeticError, match="differs from PyTorch by"):
        write_onnx(Diffusion(MLP(hidden=8)), tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="ThereAndBack cannot be written as ONNX"):
        write_onnx(Diffusion(ThereAndBack(branch=True)), tmp_path / "a.onnx")
    assert not [*tmp_path.iterdir()]


def test_parts_of_one_s_own_are_exported(call_main, train_py, tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(PYTHON["my.py"])
    options = ("--network", "my.Small", "--source", "packaged", "--max_steps", 2)
    call_main(*options, "--limit_val_batches", 1, "--steps", 2)
    call_main("export", "a.safetensors", "--ckpt_path", next(tmp_path.rglob("last.ckpt")))
    train_py("predict", "--ckpt_path", "a.safetensors", "--steps", 2, "--num_samples", 1)


def test_training_does_not_go_on_from_weights(call_main, tmp_path: Path, capfd) -> None:
    (tmp_path / "a.safetensors").write_bytes(PRETRAINED.read_bytes()[:5000])
    for words, names in (
        (("fit", "--ckpt_path", PRETRAINED), "fit goes on from a checkpoint only"),
        (
            ("predict", "--ckpt_path", "a.safetensors"),
            "a.safetensors: neither a checkpoint that fit has saved nor exported weights",
        ),
    ):
        code, line = error_of(capfd, lambda words=words: call_main(*words))
        assert code == 2
        assert names in line


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model = small_model()
    model.network.channels = (8, 24)
    write_weights(model, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="no model can be built"):
        load_model(tmp_path / "a.safetensors")
