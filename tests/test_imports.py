"""The rooms of the package: a file imports what stands in its own room or below it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from packaging.requirements import Requirement

import lightning_ddpm

PACKAGE = Path(lightning_ddpm.__file__).parent
CORE = {
    "shapes": set(),
    "files": set(),
    "noise": {"shapes"},
    "schedule": {"shapes"},
    "objective": {"shapes", "noise", "schedule"},
    "denoiser": {"shapes", "schedule", "objective"},
    "networks": {"shapes"},
    "samplers": {"shapes", "noise", "schedule", "denoiser"},
    "condition": {"shapes", "networks"},
    "batch": {"shapes", "condition"},
    "guidance": {"shapes", "denoiser", "networks"},
    "media": {"shapes", "files"},
    "observation": {"shapes", "batch", "noise", "denoiser", "media"},
    "likelihood": {"shapes", "noise", "schedule", "denoiser"},
    "parts": {"noise", "schedule", "objective", "networks", "observation"},
    "diffusion": {"shapes", "batch", "noise", "schedule", "objective", "denoiser", "networks"}
    | {"samplers", "condition", "guidance", "observation", "media", "likelihood", "parts"},
    "longer": {"shapes", "observation", "diffusion"},
    "editing": {"shapes", "noise", "denoiser", "samplers", "observation", "diffusion"},
}
"""The paper, the model, and what is done with it: torch only."""

ROOMS = CORE | {
    "pictures": {"files"},
    "classification": {"shapes", "noise", "objective", "diffusion"},
    "onnx": {"shapes", "files", "parts", "diffusion"},
    "checkpoints": {"files", "parts", "diffusion"},
    "configs": set(),
    "judge": {"shapes", "files", "pictures", "media", "observation", "likelihood"},
    "data": {"shapes", "files", "noise", "pictures", "observation", "judge"},
    "training": {"batch", "files", "noise", "objective", "likelihood", "media", "parts"}
    | {"diffusion", "observation", "shapes", "checkpoints", "judge", "data"},
    "cli": {
        "files",
        "condition",
        "media",
        "parts",
        "diffusion",
        "classification",
        "onnx",
        "checkpoints",
    }
    | {"configs", "judge", "data", "training"},
}
FREE = {"__init__"}
SHARED = {"base", "images", "layers", "order", "tables", "windows"}
SHARED |= {"folder", "mnist", "paired", "unet", "video"}  # in a room
HEAVY = {"lightning", "pytorch_lightning", "torchmetrics", "tensorboard"}
LIGHT = {"torch", "numpy", "jaxtyping", "tqdm", *sys.stdlib_module_names}


def imports_of(path: Path) -> set[str]:
    """What a file imports of the package, relative to the package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            # Only names of modules tell where a name comes from.
            assert node.module != "lightning_ddpm", f"{path} imports from the package itself"
        names |= modules_in(node)
    return {n.removeprefix("lightning_ddpm.") for n in names if n.startswith("lightning_ddpm.")}


def modules_in(node: ast.AST) -> set[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        return {node.module or ""}
    return {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()


def at_once(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs where a file is imported, which what stands in functions does not."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_once(child)


def test_imports_point_down_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        room, *inner = path.relative_to(PACKAGE).with_suffix("").parts
        if room in FREE:
            continue
        for name in imports_of(path):
            imported = name.split(".")[0]
            assert imported == room or imported in ROOMS[room], f"{path} imports {name}"
            shared = name.split(".")[-1] in SHARED or "__init__" in inner
            alone = room in ("networks", "samplers", "data", "media")
            assert imported != room or shared or not alone, f"{path} imports its sibling {name}"


def test_each_room_stands_on_those_before_it() -> None:
    below = set()
    for room, floor in ROOMS.items():
        assert floor <= below, f"{room} stands on {floor - below}"
        below.add(room)
    found = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in PACKAGE.rglob("*.py")}
    assert found - FREE == set(ROOMS), found ^ set(ROOMS)


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        graph[name.removesuffix(".__init__")] = imports_of(path)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the files


def test_the_core_imports_torch_and_no_more() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).with_suffix("").parts[0] in CORE:
            for name in set().union(*map(modules_in, at_once(ast.parse(path.read_text())))):
                package = name.split(".")[0]
                assert package in LIGHT or package == "lightning_ddpm", f"{path} imports {name}"


def test_the_core_knows_nothing_of_lightning() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).with_suffix("").parts[0] in CORE:
            for name in set().union(*map(modules_in, ast.walk(ast.parse(path.read_text())))):
                assert name.split(".")[0] not in HEAVY, f"{path} imports {name}"


def test_private_names_of_lightning_stand_in_one_file() -> None:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        for node in nodes:
            names = set()
            if isinstance(node, ast.Attribute) and node.attr not in own:
                owner = ast.unparse(node.value)
                inherited = owner == "self" and path.name == "ema.py"  # of WeightAveraging
                names = set() if inherited or owner in ("os", "torch.cpu") else {node.attr}
            elif isinstance(node, ast.ImportFrom):
                names = {alias.name for alias in node.names}
            if names := {name for name in names if re.match(r"_[A-Za-z]", name)}:
                found.setdefault(str(path.relative_to(PACKAGE)), set()).update(names)
    assert found.keys() == {"training/progress.py"}, found


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
