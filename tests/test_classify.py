"""The denoiser as a classifier, on data where the best answer is known."""

import math
import re
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from conftest import SOURCE
from test_mnist_files import write_idx_files
from tiny import call, error_of

from lightning_ddpm import Diffusion
from lightning_ddpm.checkpoints import write_weights
from lightning_ddpm.classification import denoising_errors, detection
from lightning_ddpm.networks import Network, UNet
from lightning_ddpm.schedule import LinearSchedule
from lightning_ddpm.shapes import expand_like


class IdealNoise(Network):
    """The noise in x_t, for images that are one grey level all over: that of their class."""

    conditional, num_classes = True, 3

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.tensor([0.0, -0.5, 0.0, 0.5])  # the first for no label
        self.schedule = LinearSchedule()

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        label = torch.full_like(t, -1) if condition is None else condition
        alpha, sigma = (expand_like(f, x_t) for f in self.schedule.alpha_sigma(t))
        return (x_t - alpha * expand_like(self.level[label + 1], x_t)) / sigma


def test_errors_are_least_under_the_true_label() -> None:
    # Oracle: with the wrong level the noise is wrong by alpha / sigma times the difference.
    model = Diffusion(IdealNoise())
    labels = torch.tensor([0, 1, 2, 2, 0])
    x0 = model.network.level[labels + 1].reshape(5, 1, 1, 1).expand(5, 1, 28, 28).contiguous()
    errors = denoising_errors(model, x0, torch.arange(5), [0, 1, 2], draws=4)
    assert torch.equal(errors.argmin(1), labels)
    alpha, sigma = model.schedule.alpha_sigma(torch.tensor([125, 375, 625, 875]))
    ratio = ((alpha / sigma) ** 2).mean()
    difference = model.network.level[1:][None] - model.network.level[labels + 1][:, None]
    torch.testing.assert_close(errors, ratio * difference**2, rtol=1e-3, atol=1e-4)


class Doubled(IdealNoise):
    """The same with a learned variance, which says anything."""

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        noise = super().forward(x_t, t, condition)
        return torch.cat([noise, torch.full_like(noise, 0.9)], dim=1)


def test_a_learned_variance_does_not_count() -> None:
    labels = torch.tensor([0, 1, 2])
    x0 = IdealNoise().level[labels + 1].reshape(3, 1, 1, 1).expand(3, 1, 28, 28).contiguous()
    found = [
        denoising_errors(Diffusion(network, variance=variance), x0, labels, [0, 1, 2], draws=4)
        for network, variance in ((IdealNoise(), "small"), (Doubled(), "learned"))
    ]
    assert torch.equal(*found)


def test_detection_of_two_gaussians() -> None:
    # Oracle: the AUROC of N(0, 1) against N(d, 1) is Phi(d / sqrt(2)).
    inside, outside = 9 + torch.randn(20_000), 10 + torch.randn(20_000)
    expected = NormalDist().cdf(1 / math.sqrt(2))
    assert detection(inside, outside) == pytest.approx(expected, abs=0.01)


def test_command_line(call_main, tmp_path: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_ddpm.data.mnist.download", lambda *_: "there is no network")
    options = ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--source", SOURCE)
    call_main("--config", "conditional", *options, "--max_steps", 2, "--limit_val_batches", 1)
    words = ("classify", "--ckpt_path", next(tmp_path.rglob("last.ckpt")), "--fashion_dir", ".")
    words += ("--num_images", 20, "--draws", 2)
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_:
        call_main(*words)
    assert re.match(r"classifier accuracy: \d+\.\d% of 20 test images\n", capfd.readouterr().out)
    assert re.match(r"error: .*FashionMNIST.*there is no network", exit_.value.code)
    write_idx_files(tmp_path / "FashionMNIST" / "raw")  # blank images
    call_main(*words)
    assert re.search(r"\nMNIST against FashionMNIST: AUROC [01]\.\d{4}\n", capfd.readouterr().out)


def test_a_model_is_tried_on_its_own_images(call_main, tmp_path: Path, capfd) -> None:
    for dataset in ("FashionMNIST", "MNIST"):
        write_idx_files(tmp_path / dataset / "raw")
    options = ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--data_dir", ".")
    brief = ("--max_steps", 1, "--limit_val_batches", 1, "--config", "conditional")
    call_main(*brief, *options, "--dataset", "FashionMNIST")
    capfd.readouterr()
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    images = ("--num_images", 20, "--draws", 2, "--data_dir", ".")
    call_main("classify", "--ckpt_path", checkpoint, *images)
    assert "\nFashionMNIST against MNIST: AUROC " in capfd.readouterr().out


def test_a_model_of_other_classes_is_refused(tmp_path: Path, capfd) -> None:
    model = Diffusion(UNet(channels=(8, 8), num_classes=5))
    write_weights(model, tmp_path / "a.safetensors")
    words = ("classify", "--ckpt_path", tmp_path / "a.safetensors")
    code, line = error_of(capfd, lambda: call(*words))
    assert code == 1
    assert line.endswith("not a model of MNIST or its drop-in replacements")


def test_other_images_are_refused(call_main, tmp_path: Path, capfd) -> None:
    model = Diffusion(UNet(in_channels=3, channels=(8, 8)), shape=(3, 8, 8))
    write_weights(model, tmp_path / "a.safetensors")
    words = ("classify", "--ckpt_path", "a.safetensors")
    code, line = error_of(capfd, lambda: call_main(*words))
    assert (code, line) == (1, "error: a.safetensors is of samples of shape (3, 8, 8)")
    code, line = error_of(capfd, lambda: call_main(*words, "--draws", 0))
    assert (code, line) == (2, "error: --num_images and --draws must be at least 1")
