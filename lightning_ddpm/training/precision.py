"""What suits the machine and the model: the precision, and how many processes there are."""

import os
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy


def multiplies_bf16(device_type: str) -> bool:
    """Whether devices of this type multiply bfloat16 in hardware, and not by converting it."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def fastest_precision(accelerator: str) -> str:
    """The ``precision`` for a Trainer with this ``accelerator``: mixed where bfloat16 is native."""
    gpu = accelerator in ("auto", "gpu", "cuda") and CUDAAccelerator.is_available()
    cpu = accelerator == "cpu" or (accelerator == "auto" and not gpu)
    device_type = "cuda" if gpu else "cpu" if cpu else accelerator
    return "bf16-mixed" if multiplies_bf16(device_type) else "32-true"


def check_precision(precision: str | None) -> None:
    """Raise ValueError if ``precision`` would not keep schedule and weights in float32.

    In half precision the schedule's first steps would vanish.
    """
    if precision and precision.endswith("-true") and precision != "32-true":
        raise ValueError(
            f"precision {precision} does not keep the noise schedule and the weights in float32; "
            "use 16-mixed, bf16-mixed or 32-true"
        )


def check_trainer(trainer: Trainer, samples: int | None = None) -> None:
    """Raise ValueError if a Trainer cannot do what it is told to, before it begins.

    It has more processes than a CPU has cores, or than there are samples; does something every 0
    batches or epochs; or shares the weights out, which the average of the weights does not know.
    """
    known: Any = trainer
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise ValueError(f"devices {trainer.num_devices} exceeds the {cores} cores of this CPU")
    if samples is not None and trainer.world_size > samples:
        raise ValueError(f"num_samples {samples} is below the {trainer.world_size} processes")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"):
        if (value := getattr(known, name)) in (0, 0.0):
            raise ValueError(f"{name} must be above 0, got {value}")
    if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
        name = type(trainer.strategy).__name__
        raise ValueError(f"strategy {name}: the average needs whole weights; ddp keeps them whole")
