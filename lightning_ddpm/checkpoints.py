"""Trained models on disk: checkpoints of runs, exported weights, and the package's own model."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.files import path_of, replacing
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
        class_names: what the classes of the data were called, in the order of their labels.
    """

    path: Path
    weights: Mapping[str, Tensor]
    recipe: dict[str, Any]
    state: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(weight, Tensor) for weight in self.weights.values()):
            raise TypeError("weights are tensors")
        if not all(isinstance(part, dict) for part in self.recipe.values()):
            raise TypeError("a recipe has arguments by name")
        if not all(isinstance(name, str) for name in self.class_names):
            raise TypeError("class names are text")


def load_model(path: str | Path = PRETRAINED) -> Diffusion:
    """The trained model of a checkpoint or of exported weights; the package's own if not given.

    Its weights are the average (EMA), and it is in evaluation mode, on the CPU.

    Raises:
        ValueError: if the file does not hold a model that can be built.
    """
    return model_of(read_saved(path))


def model_of(saved: Saved) -> Diffusion:
    """The model itself, as ``load_model`` gives it; raises ValueError if it cannot be built."""
    try:
        model = built(Diffusion, saved.recipe["model"])
        load_weights(model, saved)
    except Exception as error:  # what jsonargparse, a part or torch refuses
        reason = " ".join(str(error).split())
        raise ValueError(f"{saved.path}: no model can be built from it: {reason}") from error
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
    """Raise ValueError if the weights were trained as something else: they would mean nothing."""
    now, before = config_of(model)["init_args"], saved.recipe["model"]
    for part in ("network", "target", "schedule", "medium", "observation"):
        if part in before and not same_part(now[part], before[part]):
            raise ValueError(f"--{part}: the weights were trained with {before.get(part)}")


def same_part(now: Mapping[str, Any] | None, before: Mapping[str, Any] | None) -> bool:
    """Whether two recipes make the same part, where None may stand for what a model fills in."""
    if now is None or before is None:
        return now is before
    pairs = [(now["init_args"].get(name), value) for name, value in before["init_args"].items()]
    same = all(json.dumps(a) == json.dumps(b) for a, b in pairs if None not in (a, b))
    return same and now["class_path"] == before["class_path"]


def read_saved(path: str | Path) -> Saved:
    """Read a checkpoint that fit has saved, or weights, without running code in them.

    Raises:
        ValueError: if there is no such file, or it is damaged or of another kind.
    """
    path = path_of(path)
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
        told = {name: json.loads(text) for name, text in file.metadata().items()}
        return Saved(path, weights, told["recipe"], class_names=told.get("class_names", ()))


def write_weights(
    model: Diffusion,
    path: Path,
    data: Mapping[str, Any] | None = None,
    class_names: Sequence[str] = (),
) -> None:
    """Write the weights as safetensors, with what builds the model as JSON in its metadata.

    ``data``, if given, is the class and the arguments of the data module it was trained on, and
    ``class_names`` is what that calls the labels.
    """
    from safetensors.torch import save

    recipe = {"model": config_of(model)["init_args"]} | ({"data": data} if data else {})
    weights = {name: weight.clone().contiguous() for name, weight in model.state_dict().items()}
    told = {"recipe": json.dumps(recipe)}
    if class_names:
        told["class_names"] = json.dumps(list(class_names))
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights, told))


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
    return Saved(path, weights, recipe, state, state.get("class_names", ()))
