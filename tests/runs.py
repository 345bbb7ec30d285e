"""What a run leaves behind, so that two runs can be compared bit by bit."""

from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def outcome(root: Path) -> dict[str, Any]:
    """All that the one finished run under ``root`` has come to: state, grids and curves."""
    (last,) = root.glob("lightning_logs/*/checkpoints/last.ckpt")
    run = last.parent.parent
    state = torch.load(last, weights_only=True)
    found = flat(
        {
            name: state[name]
            for name in ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
        }
    )
    # Steps and epochs may end a run at the same time.
    found = {name: value for name, value in found.items() if "/passed/" not in name}
    found |= {"step": state["global_step"], "epoch": state["epoch"]}
    for png in run.glob("grids/*.png"):
        found[f"grid {png.name}"] = png.read_bytes()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        # A step may be told twice, before and after a stop: the same must be told.
        curve = {(event.step, repr(event.value)) for event in events.Scalars(tag)}
        assert len(curve) == len({step for step, _ in curve}), f"two curves of {tag}"
        found[f"curve {tag}"] = sorted(curve)
    return found


def flat(tree: Any, name: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries and lists, by their paths."""
    if isinstance(tree, dict):
        return {k: v for key, part in tree.items() for k, v in flat(part, f"{name}/{key}").items()}
    if isinstance(tree, list):
        return {k: v for i, part in enumerate(tree) for k, v in flat(part, f"{name}/{i}").items()}
    return {name: tree.numpy().tobytes() if isinstance(tree, torch.Tensor) else repr(tree)}


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The names of what is not the same in both."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
