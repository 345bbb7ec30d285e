"""Trained models on disk: checkpoints of runs, exported weights, and the package's own model."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.files import replacing
from lightning_ddpm.parts import built, config_of

PRETRAINED = Path(str(files("lightning_ddpm") / "weights" / "default.safetensors"))
"""The package's trained model; ``weights/README.md`` says how it was made."""


@dataclass
class Saved:
    """What a model on disk has.

    Args:
        path: the file.
        weights: those of the model, which are the average (EMA) of a checkpoint.
        recipe: the arguments of the ``model``, of its ``training`` and, if they are known, the
            class and the arguments of its ``data``.
        state: of a checkpoint, all that a run goes on with.
    """

    path: Path
    weights: Mapping[str, Tensor]
    recipe: dict[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(isinstance(weight, Tensor) for weight in self.weights.values()):
            raise TypeError("weights are tensors")
        if not all(isinstance(part, dict) for part in self.recipe.values()):
            raise TypeError("a recipe has arguments by name")


def load_model(path: str | Path = PRETRAINED) -> Diffusion:
    """The trained model of a checkpoint or of exported weights; the package's own if not given.

    Its weights are the average (EMA), and it is in evaluation mode, on the CPU.

    Raises:
        ValueError: if the file does not hold a model that can be built.
    """
    saved = read_saved(path)
    try:
        model = built(Diffusion, saved.recipe["model"])
        load_weights(model, saved)
    except Exception as error:  # what jsonargparse, a part or torch refuses
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: no model can be built from it: {reason}") from error
    return model.eval()


def load_weights(model: Diffusion, saved: Saved) -> None:
    """Take the weights that were saved.

    Raises:
        ValueError: if they are of another network.
    """
    shapes = [{n: w.shape for n, w in w.items()} for w in (saved.weights, model.state_dict())]
    if shapes[0] != shapes[1]:
        network = type(model.network).__name__
        raise ValueError(f"the checkpoint does not hold the weights of this {network}")
    model.load_state_dict(saved.weights)


def check_trained(model: Diffusion, saved: Saved) -> None:
    """Raise ValueError if the weights were trained with another target or schedule."""
    now, before = config_of(model)["init_args"], saved.recipe["model"]
    for part in ("target", "schedule"):
        if json.dumps(now[part]) != json.dumps(before.get(part)):
            raise ValueError(f"--{part}: the weights were trained with {before.get(part)}")


def read_saved(path: str | Path) -> Saved:
    """Read a checkpoint that fit has saved, or weights, without running code in them.

    Raises:
        ValueError: if there is no such file, or it is damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return (read_weights if is_weights(path) else read_checkpoint)(path)
    except Exception as error:  # what is damaged fails in any way
        kinds = "neither a checkpoint that fit has saved nor exported weights"
        raise ValueError(f"{path}: {kinds}") from error


def is_weights(path: Path) -> bool:
    """Whether a file has the name of exported weights, which no training can go on from."""
    return path.suffix == ".safetensors"


def read_weights(path: Path) -> Saved:
    """Read what ``write_weights`` has written; raises what safetensors or JSON do."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Saved(path, weights, json.loads(file.metadata()["recipe"]))


def write_weights(model: Diffusion, path: Path, data: Mapping[str, Any] | None = None) -> None:
    """Write the weights as safetensors, with what builds the model as JSON in its metadata.

    ``data``, if given, is the class and the arguments of the data module it was trained on.
    """
    from safetensors.torch import save

    recipe = {"model": config_of(model)["init_args"]} | ({"data": data} if data else {})
    weights = {name: weight.clone().contiguous() for name, weight in model.state_dict().items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights, {"recipe": json.dumps(recipe)}))


def read_checkpoint(path: Path) -> Saved:
    """Read what Lightning has written; raises what zipfile or torch do."""
    with zipfile.ZipFile(path) as file:
        if file.testzip():  # torch would not look at the checksums
            raise ValueError("damaged")
    state = torch.load(path, map_location="cpu", weights_only=True)
    training = {name: v for name, v in state["hyper_parameters"].items() if name[0] != "_"}
    recipe = {"model": training.pop("model")["init_args"], "training": training}
    if "data" in state:
        recipe["data"] = state["data"]
    weights = {name.removeprefix("model."): w for name, w in state["state_dict"].items()}
    return Saved(path, weights, recipe, state)
