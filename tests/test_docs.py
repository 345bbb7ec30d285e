"""The docstrings as pages."""

import subprocess
import sys
from pathlib import Path

import pytest

import lightning_ddpm

PACKAGE = Path(lightning_ddpm.__file__).parent


@pytest.mark.long
def test_docstrings_are_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdoc", "-d", "google", "--math", "-o", tmp_path]
    result = subprocess.run(
        [*map(str, command), "lightning_ddpm"], capture_output=True, text=True, check=True
    )
    assert "Warn" not in result.stderr + result.stdout
    rooms = [path.stem for path in PACKAGE.glob("[a-z]*.py")]
    rooms += [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert len(rooms) > 20
    for name in rooms:
        page = (tmp_path / "lightning_ddpm" / f"{name}.html").read_text()
        assert '<div class="docstring">' in page, name
    front = (tmp_path / "lightning_ddpm.html").read_text()
    assert "owns what the paper speaks of" in front  # the diagram
    assert "training_step" in (tmp_path / "lightning_ddpm" / "training.html").read_text()
    assert "DPMSolver" in (tmp_path / "lightning_ddpm" / "samplers.html").read_text()
