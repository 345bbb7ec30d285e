"""The cost of a training step against batch, width, resolution and processes, and what explains it.

The model is: a step takes a fixed time, and a time for each operation of the convolutions, and a
time for each byte that passes between the layers. The three are fitted to all cases together.
"""

import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch
from common import (
    DEVICE,
    ROOT,
    Row,
    default_batch_size,
    default_model,
    machine,
    paired,
    report,
    run_process,
)
from scipy.optimize import nnls
from speed import flops_per_image, training_step
from torch import nn

from lightning_ddpm import Diffusion
from lightning_ddpm.networks import UNet

matplotlib.use("agg")
from matplotlib import pyplot as plt


def elements_per_image(model: Diffusion, size: int) -> int:
    """Numbers that the layers without submodules put out for one image."""
    total = 0

    def count(_: nn.Module, __: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel()

    leaves = [m for m in model.network.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(count) for m in leaves]
    x = torch.zeros(1, 1, size, size, device=DEVICE)
    model.network(x, torch.zeros(1, device=DEVICE).long())
    for hook in hooks:
        hook.remove()
    return total


def case(axis: str, batch: int, width: int = 1, size: int = 28) -> Row:
    """One measurement, and the two quantities that shall explain it."""
    model = default_model(channels=[width * c for c in UNet().channels])
    model.shape = (1, size, size)
    x0 = torch.randint(256, (batch, *model.shape), dtype=torch.uint8, device=DEVICE)
    step = training_step(model)
    return {
        "axis": axis,
        "batch": batch,
        "width": width,
        "size": size,
        "ms": 1e3 * paired({"": lambda: step(x0)})[""],
        "GFLOP": batch * flops_per_image(model) / 1e9,
        "Mnumbers": batch * elements_per_image(model, size) / 1e6,
    }


def processes(steps: int = 60) -> list[Row]:
    """Milliseconds a step with the same images a step on one process and on two."""
    rows: list[Row] = []
    for count in (1, 2):
        options = ("--devices", count, "--batch_size", default_batch_size() // count)
        options += ("--limit_val_batches", 0, "--grid_every_n_epochs", 1000, "--steps", 1)
        times = []
        for length in (steps, 3 * steps):
            with tempfile.TemporaryDirectory() as folder:
                limits = ("--max_steps", length, "--trainer.default_root_dir", folder)
                times.append(run_process(ROOT / "train.py", *options, *limits)[0])
        rows.append({"processes": count, "ms": 1e3 * (times[1] - times[0]) / (2 * steps)})
    return rows


def scaling(out: Path) -> None:
    """Measure, fit, plot."""
    base = default_batch_size()
    rows = [case("batch", batch) for batch in (8, 16, 32, 64, 128, 256)]
    rows += [case("width", base, width=width) for width in (1, 2, 4)]
    rows += [case("size", base // 4, size=size) for size in (28, 56, 112)]
    features = np.array([[1.0, row["GFLOP"], row["Mnumbers"]] for row in rows])  # type: ignore
    measured = np.array([row["ms"] for row in rows])
    # Relative errors, so that the small cases count as much as the large ones.
    costs, _ = nnls(features / measured[:, None].astype(float), np.ones(len(rows)))
    for row, fitted in zip(rows, features @ costs, strict=True):
        row["fitted ms"] = float(fitted)
    report("scaling", rows, out)
    names = ("ms a step", "ms a GFLOP", "ms a million numbers")
    report("scaling-model", [dict(zip(names, map(float, costs), strict=True))], out)
    if DEVICE == "cpu":
        report("scaling-processes", processes(), out)
    plot(rows, out / "scaling.png")


def plot(rows: list[Row], path: Path) -> None:
    """Measured and fitted milliseconds along each axis."""
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    for axes, axis in zip(panels, ("batch", "width", "size"), strict=True):
        part = [row for row in rows if row["axis"] == axis]
        values = [row[axis] for row in part]
        axes.loglog(values, [row["ms"] for row in part], "o", label="measured")
        axes.loglog(values, [row["fitted ms"] for row in part], "-", label="model")
        axes.set(xlabel=axis, xticks=values, xticklabels=values)
        axes.minorticks_off()
    panels[0].set(ylabel="ms a training step")
    panels[0].legend()
    figure.suptitle(machine(), fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
