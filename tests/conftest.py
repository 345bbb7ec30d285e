"""What all tests share.

With ``CHECK_SHAPES`` in the environment, shapes and types in signatures are checked while they
run, which takes a fifth longer; ``.ci/run`` does so.
"""

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch: each of two processes has a core

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
if "CHECK_SHAPES" in os.environ:
    install_import_hook("lightning_ddpm", "conftest.checked")

import pytest  # noqa: E402
import torch  # noqa: E402

from lightning_ddpm import MNISTDataModule  # noqa: E402
from lightning_ddpm.cli import main  # noqa: E402
from lightning_ddpm.judge import DigitJudge  # noqa: E402

ROOT = Path(__file__).parent.parent
FULL_MNIST = os.environ.get("LIGHTNING_DDPM_DATA")
SOURCE = "mnist" if FULL_MNIST else "packaged"
"""Full MNIST where its folder is named by the environment, else the packaged digits."""


def concrete_classes(package: ModuleType, base: type) -> list[type]:
    """All subclasses of ``base`` that the package's modules define, for its contract tests."""
    names = [f"{package.__name__}.{module.name}" for module in iter_modules(package.__path__)]
    return [
        cls
        for name in names
        for cls in vars(import_module(name)).values()
        if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
        if cls.__module__ == name
    ]


LONGEST = ("test_conditional", "test_readme", "test_notebooks", "test_resume", "test_faults")
LONGEST += ("test_fuzz", "test_nodes", "test_ddp", "test_browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that two workers end together."""
    first = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))


@pytest.fixture(scope="session")
def digits() -> MNISTDataModule:
    """Real digits, ready to fit."""
    data = MNISTDataModule(source=SOURCE, batch_size=32)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="session")
def train_py_in() -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``train.py`` in a process of its own, in a folder that is given."""

    def run(folder: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        result = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
            cwd=folder,
            env=os.environ | {"TQDM_MININTERVAL": "60"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == code, result.stdout + result.stderr
        return result

    return run


@pytest.fixture
def train_py(train_py_in, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``train.py`` in a process of its own, in an empty folder."""
    return partial(train_py_in, tmp_path)


@pytest.fixture
def call_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the command line in this process, which is quicker, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
        main()

    return call


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder of a test is empty."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A short run of ``fit`` that tests share: what it printed, and its ``folder``."""
    from tiny import tiny_run

    return tiny_run(tmp_path_factory.getbasetemp())


EXTRACTED: dict[bytes, torch.Tensor] = {}


@pytest.fixture(scope="module")
def features_once() -> Iterator[None]:
    """Judges share the features of the same training digits, which take seconds."""
    extract = DigitJudge.extract

    def shared(judge: DigitJudge, images: torch.Tensor) -> torch.Tensor:
        if images is not judge.train_images:
            return extract(judge, images)
        key = images.cpu().numpy().tobytes()
        if key not in EXTRACTED:
            EXTRACTED[key] = extract(judge, images)
        return EXTRACTED[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitJudge, "extract", shared)
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
