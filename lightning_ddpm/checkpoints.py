"""Trained models on disk: checkpoints of runs, exported weights, and the package's own model."""

import json
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import instantiate_module
from safetensors import safe_open
from safetensors.torch import save

from lightning_ddpm.files import replacing
from lightning_ddpm.module import DiffusionLightningModule
from lightning_ddpm.parts import own_hparams

PRETRAINED = Path(str(files("lightning_ddpm") / "weights" / "default.safetensors"))
"""The package's trained model; ``weights/README.md`` says how it was made."""

BATCH_PROGRESS = "epoch_loop.batch_progress"


def load_model(path: str | Path = PRETRAINED) -> DiffusionLightningModule:
    """The trained model of a checkpoint or of exported weights; the package's own if not given.

    Its weights are the average (EMA), and it is in evaluation mode, on the CPU.

    Raises:
        ValueError: if the file does not hold a model that can be built.
    """
    saved = read_saved(path)
    try:
        model = instantiate_module(DiffusionLightningModule, own_hparams(saved["hyper_parameters"]))
        model.load_state_dict(saved["state_dict"])
    except Exception as error:  # what jsonargparse, a part or torch refuses
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: no model can be built from it: {reason}") from error
    return model.eval()


def read_saved(path: str | Path) -> dict[str, Any]:
    """``state_dict``, ``hyper_parameters`` and, of a checkpoint, all the rest.

    Raises:
        ValueError: if there is no such file, or it is damaged or of another kind.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    saved = (read_weights if is_weights(path) else read_checkpoint)(path)
    if saved is None:
        raise ValueError(f"{path}: neither a checkpoint that fit has saved nor exported weights")
    return saved


def is_weights(path: str | Path) -> bool:
    """Whether a file has the name of exported weights, which no training can go on from."""
    return Path(path).suffix == ".safetensors"


def read_weights(path: str | Path) -> dict[str, Any] | None:
    """The content of a file that ``write_weights`` has written, and None of any other file."""
    try:
        with safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            hparams = json.loads(file.metadata()["hyper_parameters"])
    except Exception:  # what is damaged fails in any way
        return None
    return {"state_dict": state, "hyper_parameters": hparams} if isinstance(hparams, dict) else None


def write_weights(model: DiffusionLightningModule, path: Path) -> None:
    """Write the weights as safetensors, with the hyper-parameters as JSON in its metadata."""
    hparams = own_hparams(model.hparams)
    state = {name: weight.clone().contiguous() for name, weight in model.state_dict().items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, {"hyper_parameters": json.dumps(hparams)}))


def read_checkpoint(path: str | Path) -> dict[str, Any] | None:
    """The content of a checkpoint that fit has saved whole, and None of any other file."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch would not look at the checksums
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        shapes_of(checkpoint["state_dict"])
        whole = (
            {"global_step", "optimizer_states", "lr_schedulers"} <= set(checkpoint)
            and "is_last_batch" in checkpoint["loops"]["fit_loop"][BATCH_PROGRESS]
            and all(isinstance(name, str) for name, _ in checkpoint["hyper_parameters"].items())
        )
    except Exception:  # what is damaged fails in any way
        return None
    return checkpoint if whole and not damaged else None


def shapes_of(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    """The shape of each weight."""
    return {name: weight.shape for name, weight in state_dict.items()}


def last_checkpoints(root: Path) -> list[Path]:
    """Every ``last.ckpt`` of the runs under ``root``, the newest at the end."""
    paths = [*root.glob("lightning_logs/*/checkpoints/last.ckpt"), root / "checkpoints/last.ckpt"]
    return sorted((path for path in paths if path.is_file()), key=lambda p: p.stat().st_mtime)
