"""The rooms of the package: imports point up the table only."""

import ast
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

import lightning_ddpm

PACKAGE = Path(lightning_ddpm.__file__).parent
ROOMS = {
    "shapes": set(),
    "files": set(),
    "images": {"shapes", "files"},
    "noise": {"shapes"},
    "hardware": set(),
    "muon": set(),
    "schedule": {"shapes"},
    "objective": {"shapes", "schedule"},
    "denoiser": {"shapes", "schedule", "objective"},
    "likelihood": {"shapes", "noise", "schedule", "denoiser"},
    "networks": {"shapes"},
    "guidance": {"shapes", "networks"},
    "samplers": {"shapes", "noise", "schedule", "denoiser"},
    "editing": {"shapes", "noise", "schedule", "denoiser", "samplers"},
    "parts": {"networks", "objective", "schedule"},
    "data": {"shapes", "files"},
    "diffusion": {"shapes", "hardware", "noise", "schedule", "objective", "denoiser", "likelihood"}
    | {"networks", "guidance", "samplers"},
    "module": {"shapes", "images", "noise", "schedule", "objective", "denoiser", "likelihood"}
    | {"networks", "guidance", "samplers", "diffusion", "parts", "hardware", "muon"},
    "metrics": {"data", "files"},
    "callbacks": {"shapes", "module", "files", "images", "data", "metrics", "samplers"},
    "parser": set(),
    "flags": {"callbacks", "data", "module"},
    "checkpoints": {"files", "module", "parts"},
    "export": {"checkpoints", "module", "files", "parts", "shapes"},
    "score": {"data", "metrics"},
    "classify": {"shapes", "noise", "module", "data", "checkpoints"},
}
FREE = {"__init__", "cli"}


def imports_of(path: Path) -> set[str]:
    """What a file imports of the package, relative to the package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            # Only names of modules tell where a name comes from.
            assert node.module != "lightning_ddpm", f"{path} imports from the package itself"
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {n.removeprefix("lightning_ddpm.") for n in names if n.startswith("lightning_ddpm.")}


def test_imports_point_up_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        room, *inner = path.relative_to(PACKAGE).with_suffix("").parts
        if room in FREE:
            continue
        for name in imports_of(path):
            imported = name.split(".")[0]
            assert imported == room or imported in ROOMS[room], f"{path} imports {name}"
            shared = name.split(".")[-1] in ("base", "layers") or "__init__" in inner
            alone = room in ("networks", "samplers", "data", "callbacks")
            assert imported != room or shared or not alone, f"{path} imports its sibling {name}"


def test_lock_file_is_what_the_project_asks_for() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(name for extra in extras for name in extra)]
    asked = [name for name in asked if not name.startswith("lightning-ddpm[")]  # other extras
    lock = (PACKAGE.parent / ".github" / "requirements.lock").read_text()
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE)
    assert lock.count("--hash=sha256:") >= len(locked) > len(asked)
    for requirement in map(Requirement, asked):
        versions = [version for name, version in locked if name == requirement.name.lower()]
        assert versions, f"requirements.lock has no {requirement.name}"
        assert all(requirement.specifier.contains(version) for version in versions)
