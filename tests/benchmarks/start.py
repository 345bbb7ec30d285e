"""How long it takes to start, and how much memory a run takes."""

import tempfile
from pathlib import Path

from common import ROOT, Row, report, run_process

TRAIN = ROOT / "train.py"
SHORT = ("--max_steps", 100, "--limit_val_batches", 20, "--enable_progress_bar", "false")


def start(out: Path) -> None:
    """Import, ``--help``, and 100 steps with a validation and a grid, in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "import torch, lightning, torchvision, torchmetrics": (
                *("-c", "import torch, lightning.pytorch.cli, torchvision, torchmetrics"),
            ),
            "import torch": ("-c", "import torch"),
            "import lightning_ddpm.diffusion": ("-c", "import lightning_ddpm.diffusion"),
            "import lightning.pytorch.cli": ("-c", "import lightning.pytorch.cli"),
            "import lightning_ddpm.cli": ("-c", "import lightning_ddpm.cli"),
            "train.py --help": (TRAIN, "--help"),
            "train.py --max_steps 100": (TRAIN, *SHORT, "--trainer.default_root_dir", folder),
        }
        rows: list[Row] = []
        for name, command in commands.items():
            run_process(*command)  # so that the files are in the system's cache
            seconds, memory, _ = run_process(*command)
            rows.append({"command": name, "seconds": seconds, "peak memory GB": memory})
    report("start", rows, out)
