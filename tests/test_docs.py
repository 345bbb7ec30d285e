"""The docstrings as pages."""

import subprocess
import sys
from pathlib import Path

import lightning_ddpm

PACKAGE = Path(lightning_ddpm.__file__).parent


def test_docstrings_are_pages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pdoc", "-d", "google", "--math", "-o", tmp_path]
    result = subprocess.run(
        [*map(str, command), "lightning_ddpm"], capture_output=True, text=True, check=True
    )
    assert "Warn" not in result.stderr + result.stdout
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    for path in modules:
        page = tmp_path / path.relative_to(PACKAGE.parent).with_suffix(".html")
        assert "docstring" in page.read_text(), page
    front = (tmp_path / "lightning_ddpm.html").read_text()
    assert "owns what the paper speaks of" in front  # the diagram
    assert "training_step" in (tmp_path / "lightning_ddpm" / "module.html").read_text()
