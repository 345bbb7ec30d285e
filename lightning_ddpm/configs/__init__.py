"""Recipes, by name."""

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(str(files("lightning_ddpm") / "configs"))


def recipe_path(name: str) -> str:
    """The file of a recipe in the package, if ``name`` is one, else ``name``."""
    path = CONFIGS / f"{name}.yaml"
    return str(path) if path.is_file() else os.path.expanduser(name)


def read_recipe(name: str) -> Any:
    """What a recipe of the package, a file or a text in YAML says; None if it is none of these."""
    path = Path(recipe_path(name))
    try:
        return yaml.safe_load(path.read_text("utf-8") if path.is_file() else name)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def named(recipes: Iterable[Any], key: str) -> Any:
    """What the last of the recipes that has it says of ``key``, as ``model.sampler``."""
    found = None
    for recipe in recipes:
        for part in key.split("."):
            recipe = recipe.get(part) if isinstance(recipe, dict) else None
        found = found if recipe is None else recipe
    return found
