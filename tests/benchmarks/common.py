"""What the benchmarks share: the default recipe, fair timing, and tables."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from lightning_ddpm import Diffusion, MNISTDataModule
from lightning_ddpm.configs import CONFIGS
from lightning_ddpm.parts import built
from lightning_ddpm.training.precision import multiplies_bf16

ROOT = Path(__file__).parents[2]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BF16 = multiplies_bf16(DEVICE)
Row = dict[str, object]


def default_model(**network: object) -> Diffusion:
    """The model of the default recipe, with other arguments of its network if given."""
    recipe = yaml.safe_load((CONFIGS / "default.yaml").read_text())["model"]
    recipe["network"].setdefault("init_args", {}).update(network)
    return built(Diffusion, recipe).to(DEVICE)


def default_batch_size() -> int:
    """The batch size of the default recipe."""
    return yaml.safe_load((CONFIGS / "default.yaml").read_text())["data"]["init_args"]["batch_size"]


def training_images() -> torch.Tensor:
    """The training images (n, 1, 28, 28) as bytes."""
    data = MNISTDataModule()
    data.prepare_data()
    return data.load_splits("fit")["train"].x0.to(DEVICE)


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes, until the device is done with it."""
    synchronize()
    start = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - start


def synchronize() -> None:
    """Wait for a GPU."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def paired(functions: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, float]:
    """The median time of each function, called in turn (A B A B), after one call to warm up."""
    for function in functions.values():
        function()
    times = [{name: seconds(f) for name, f in functions.items()} for _ in range(rounds)]
    return {name: statistics.median(t[name] for t in times) for name in functions}


def run_process(*arguments: object, cwd: Path = ROOT) -> tuple[float, float, str]:
    """Run Python in a process of its own: its seconds, its peak memory in GB, what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise RuntimeError(f"{arguments} failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1e6, output


def machine() -> str:
    """What the figures were measured on."""
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    precision = "bfloat16 in hardware" if BF16 else "no bfloat16"
    return f"{torch.get_num_threads()} cores of {(names or [platform.machine()])[0]}, {precision}"


def report(title: str, rows: list[Row], out: Path) -> None:
    """Print a table and write it as ``title.json``."""
    result = {"machine": machine(), "torch": torch.__version__, "rows": rows}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{title}.json").write_text(json.dumps(result, indent=2) + "\n")
    columns = list(rows[0])
    cells = [columns] + [[show(row[column]) for column in columns] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}, on {machine()}, torch {torch.__version__}")
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def show(value: object) -> str:
    """A number with three digits, or a text."""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
