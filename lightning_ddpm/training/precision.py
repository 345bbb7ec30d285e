"""What suits the machine and the model: the precision, and how many processes there are."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator


def multiplies_bf16(device_type: str, devices: Sequence[int] = (0,)) -> bool:
    """Whether devices of this type multiply bfloat16 in hardware, and not by converting it."""
    if device_type == "cuda":
        found = []
        for index in devices:
            with torch.cuda.device(index):
                found.append(torch.cuda.is_bf16_supported(including_emulation=False))
        return all(found)
    return device_type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def fastest_precision(accelerator: str, devices: Any = "auto", strategy: Any = "auto") -> str:
    """The ``precision`` for a Trainer with these arguments: mixed where bfloat16 is native.

    Where processes are forked no GPU may be asked before: CUDA could not start in them.
    """
    gpu = accelerator in ("auto", "gpu", "cuda") and CUDAAccelerator.is_available()
    cpu = accelerator == "cpu" or (accelerator == "auto" and not gpu)
    if gpu and str(strategy).startswith(("ddp_fork", "ddp_notebook")):
        return "32-true"
    device_type = "cuda" if gpu else "cpu" if cpu else accelerator
    chosen = CUDAAccelerator.parse_devices(-1 if devices == "auto" else devices) if gpu else None
    return "bf16-mixed" if multiplies_bf16(device_type, chosen or (0,)) else "32-true"


def measuring_device(device: torch.device) -> torch.device:
    """Where to measure what a model on ``device`` has made: on the CPU if that has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


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

    It has more processes than a CPU has cores, or than there are samples, or does something every 0
    batches or epochs.
    """
    known: Any = trainer
    cores = os.cpu_count() or 1
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
        raise ValueError(f"devices {trainer.num_devices} exceeds the {cores} cores of this CPU")
    if samples is not None and trainer.world_size > samples:
        raise ValueError(f"num_samples {samples} is below the {trainer.world_size} processes")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"):
        if (value := getattr(known, name)) == 0:
            raise ValueError(f"{name} must be above 0, got {value}")
