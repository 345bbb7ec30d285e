"""The denoiser as a classifier, on data where the best answer is known."""

import math
import re
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from conftest import SOURCE

from lightning_ddpm import DiffusionLightningModule
from lightning_ddpm.classify import denoising_errors, detection
from lightning_ddpm.networks import Network
from lightning_ddpm.schedule import LinearSchedule
from lightning_ddpm.shapes import expand_like


class IdealNoise(Network):
    """The noise in x_t, for images that are one grey level all over: that of their class."""

    num_classes = 3

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.tensor([0.0, -0.5, 0.0, 0.5])  # the first for no label
        self.schedule = LinearSchedule()

    def forward(self, x_t, t, label=None) -> torch.Tensor:
        label = torch.full_like(t, -1) if label is None else label
        alpha, sigma = (expand_like(f, x_t) for f in self.schedule.alpha_sigma(t))
        return (x_t - alpha * expand_like(self.level[label + 1], x_t)) / sigma


def test_errors_are_least_under_the_true_label() -> None:
    # Oracle: with the wrong level the noise is wrong by alpha / sigma times the difference.
    model = DiffusionLightningModule(IdealNoise())
    labels = torch.tensor([0, 1, 2, 2, 0])
    x0 = model.network.level[labels + 1].reshape(5, 1, 1, 1).expand(5, 1, 28, 28).contiguous()
    errors = denoising_errors(model, x0, torch.arange(5), [0, 1, 2], draws=4)
    assert torch.equal(errors.argmin(1), labels)
    alpha, sigma = model.schedule.alpha_sigma(torch.tensor([125, 375, 625, 875]))
    ratio = ((alpha / sigma) ** 2).mean()
    difference = model.network.level[1:][None] - model.network.level[labels + 1][:, None]
    torch.testing.assert_close(errors, ratio * difference**2, rtol=1e-3, atol=1e-4)


def test_detection_of_two_gaussians() -> None:
    # Oracle: the AUROC of N(0, 1) against N(d, 1) is Phi(d / sqrt(2)).
    inside, outside = 9 + torch.randn(20_000), 10 + torch.randn(20_000)
    expected = NormalDist().cdf(1 / math.sqrt(2))
    assert detection(inside, outside) == pytest.approx(expected, abs=0.01)


def test_command_line(call_main, tmp_path: Path) -> None:
    options = ("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--source", SOURCE)
    call_main("--config", "conditional", *options, "--max_steps", 2, "--limit_val_batches", 1)
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    command = [sys.executable, "-m", "lightning_ddpm.classify", "--ckpt_path", str(checkpoint)]
    options = ["--num_images", "20", "--draws", "2"]
    missing = ["--fashion_dir", str(tmp_path)]
    result = subprocess.run(
        [*command, *options, *missing], capture_output=True, text=True, check=False
    )
    assert re.search(r"classifier accuracy: \d+\.\d% of 20 test images", result.stdout)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "FashionMNIST" in result.stderr.splitlines()[-1]
