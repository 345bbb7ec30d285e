"""What the Trainer costs a step, beside a bare loop that does the same to the weights."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import BF16, DEVICE, Row, default_batch_size, default_model, report, synchronize
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from speed import training_step
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.training import EMA, DiffusionLightningModule, FiniteWatch, LastCheckpoint

STEPS = 150


class Clock(Callback):
    """Notes when the device is done with the tenth step, and with the last."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        if trainer.global_step in (10, STEPS):
            synchronize()
            self.times.append(time.perf_counter())


def with_trainer(data: MNISTDataModule) -> float:
    """Seconds a step, with logging, progress bar, EMA, data and checkpoints."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=DEVICE if DEVICE == "cpu" else "gpu",
            devices=1,
            precision="bf16-mixed" if BF16 else "32-true",
            max_steps=STEPS,
            limit_val_batches=0,
            log_every_n_steps=10,
            enable_model_summary=False,
            logger=TensorBoardLogger(folder, default_hp_metric=False),
            callbacks=[
                EMA(),
                FiniteWatch(),
                LearningRateMonitor("step"),
                ModelCheckpoint(folder),
                LastCheckpoint(),
                clock,
            ],
        )
        module = DiffusionLightningModule(default_model(), lr=1e-4)
        module.on_train_end = lambda: None  # no grid
        trainer.fit(module, data)
    return (clock.times[1] - clock.times[0]) / (STEPS - 10)


def bare(data: MNISTDataModule) -> float:
    """Seconds a step of a loop that has batches, loss, optimizer and EMA, and nothing else."""
    model, images = default_model(), data.splits["train"].x0.to(DEVICE)
    step, size = training_step(model), default_batch_size()
    weights = list(model.network.parameters())
    averages = [w.detach().clone() for w in weights]
    average = get_ema_multi_avg_fn(0.999)
    order = torch.randperm(len(images), device=DEVICE)
    start = time.perf_counter()
    for i in range(STEPS):
        step(images[order[i * size : (i + 1) * size]])
        average(averages, [w.detach() for w in weights], i)
        if i == 9:
            synchronize()
            start = time.perf_counter()
    synchronize()
    return (time.perf_counter() - start) / (STEPS - 10)


def overhead(out: Path) -> None:
    """Both in turn, A B A B."""
    data = MNISTDataModule(batch_size=default_batch_size())
    data.prepare_data()
    data.setup("fit")
    times = [(bare(data), with_trainer(data)) for _ in range(4)][1:]
    rows: list[Row] = [
        {"bare ms": 1e3 * a, "Trainer ms": 1e3 * b, "ratio": b / a} for a, b in times
    ]
    rows.append({name: statistics.median(float(r[name]) for r in rows) for name in rows[0]})
    report("overhead", rows, out)
