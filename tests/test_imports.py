"""The rooms of the package: a file imports what stands in its own room or below it."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

import lightning_ddpm

PACKAGE = Path(lightning_ddpm.__file__).parent
CORE = {
    "shapes": set(),
    "batch": set(),
    "files": set(),
    "noise": {"shapes"},
    "schedule": {"shapes"},
    "objective": {"shapes", "noise", "schedule"},
    "denoiser": {"shapes", "schedule", "objective"},
    "networks": {"shapes"},
    "samplers": {"shapes", "noise", "schedule", "denoiser"},
    "condition": {"shapes", "networks"},
    "guidance": {"shapes", "denoiser", "networks"},
    "media": {"shapes", "files"},
    "likelihood": {"shapes", "noise", "schedule", "denoiser"},
    "parts": {"schedule", "objective", "networks"},
    "diffusion": {"shapes", "batch", "noise", "schedule", "objective", "denoiser", "networks"}
    | {"samplers", "condition", "guidance", "media", "likelihood", "parts"},
    "editing": {"shapes", "noise", "denoiser", "samplers"},
}
"""The paper, the model, and what is done with it: torch only."""

ROOMS = CORE | {
    "classification": {"shapes", "noise", "diffusion"},
    "onnx": {"shapes", "files", "parts", "diffusion"},
    "checkpoints": {"files", "parts", "diffusion"},
    "configs": set(),
    "judge": {"shapes", "media", "likelihood"},
    "data": {"judge"},
    "training": {"batch", "files", "noise", "objective", "likelihood", "media", "parts"}
    | {"diffusion", "checkpoints", "judge", "data"},
    "cli": {"files", "media", "parts", "diffusion", "classification", "onnx", "checkpoints"}
    | {"configs", "judge", "data", "training"},
}
FREE = {"__init__"}
LIGHT = {"torch", "numpy", "jaxtyping", "tqdm", *sys.stdlib_module_names}
PRIVATE_IN = {"training/progress.py", "training/ema.py"}  # the latter of its own base class


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


def test_imports_point_down_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        room, *inner = path.relative_to(PACKAGE).with_suffix("").parts
        if room in FREE:
            continue
        for name in imports_of(path):
            imported = name.split(".")[0]
            assert imported == room or imported in ROOMS[room], f"{path} imports {name}"
            shared = name.split(".")[-1] in ("base", "layers") or "__init__" in inner
            alone = room in ("networks", "samplers", "data", "media")
            assert imported != room or shared or not alone, f"{path} imports its sibling {name}"


def test_the_core_imports_torch_and_no_more() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).with_suffix("").parts[0] not in CORE:
            continue
        for node in ast.parse(
            path.read_text()
        ).body:  # what functions import, only their users need
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                package = name.split(".")[0]
                assert package in LIGHT or package == "lightning_ddpm", f"{path} imports {name}"


def test_private_names_of_lightning_stand_in_one_file() -> None:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        own = {node.name for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "name")}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                of_os_or_torch = ast.unparse(node.value) in ("os", "torch.cpu")
                if node.attr not in own and not of_os_or_torch:
                    found.setdefault(str(path.relative_to(PACKAGE)), set()).add(node.attr)
    assert found.keys() == PRIVATE_IN, found


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
