"""Files that are written whole or not at all, and never over another's."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

NOTE = ".written"


class DataError(ValueError):
    """The data cannot be read or fetched; the message names the file and says what to do."""


def path_of(name: str | Path) -> Path:
    """A path as a person writes it, in which ~ is the home.

    Raises:
        ValueError: if it is an address, of which nothing here can be read or written.
    """
    if "://" in str(name):
        raise ValueError(f"{name}: only folders and files of this machine can be read and written")
    return Path(name).expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new temporary path to write to, which becomes ``path`` if no error is raised."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Make ``folder``, and raise OSError if nothing can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"the folder {folder} cannot be written: {error.strerror}") from error


def noted(folder: Path) -> set[Path]:
    """The files in ``folder`` that an earlier call has written, by its note of them."""
    note = folder / NOTE
    return {folder / name for name in note.read_text().splitlines()} if note.is_file() else set()


def note(folder: Path, written: set[Path]) -> None:
    """Leave a note of what was written in ``folder``."""
    with replacing(folder / NOTE) as temporary:
        temporary.write_text("".join(f"{path.relative_to(folder)}\n" for path in sorted(written)))


def refuse_others(folder: Path, names: list[str]) -> None:
    """Raise OSError if ``folder`` has files that match ``names`` and that no call has written."""
    others = {path for name in names for path in folder.glob(name)} - noted(folder)
    if others:
        raise OSError(f"{min(others)} would be written over: move it, or take another folder")
