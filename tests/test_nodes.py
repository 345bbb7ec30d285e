"""Two "nodes" on one machine: torchrun is started twice, as on two machines."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from runs import differences, outcome
from test_resume import RUN

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 1, "--nnodes", 2)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def torchrun(folder: Path, *options: object) -> list[int]:
    """Train on two nodes; their exit codes."""
    address, nodes = ("--master_addr", "127.0.0.1", "--master_port", free_port()), []
    for rank in (0, 1):
        command = [*TORCHRUN, "--node_rank", rank, *address, ROOT / "train.py", *RUN, *options]
        command += ["--trainer.default_root_dir", folder, "--trainer.num_nodes", 2, "--devices", 1]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
        with (folder / f"node{rank}.txt").open("a") as log:
            nodes.append(
                subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment)
            )
    return [node.wait(timeout=120) for node in nodes]


def test_two_nodes_train_as_two_processes_and_resume(tmp_path: Path, train_py) -> None:
    for name in ("node", "nodes"):
        (tmp_path / name).mkdir()
    root = ("--trainer.default_root_dir", tmp_path / "node")
    train_py(*RUN, *root, "--devices", 2)
    stop = ("--trainer.callbacks", "toys.StopInValidation")
    codes = torchrun(tmp_path / "nodes", "--resume", *stop)
    assert 0 not in codes[:1]
    assert "starting anew" in (tmp_path / "nodes" / "node0.txt").read_text()
    assert torchrun(tmp_path / "nodes", "--resume") == [0, 0]
    assert "resume: " in (tmp_path / "nodes" / "node0.txt").read_text()
    whole, cut = outcome(tmp_path / "node"), outcome(tmp_path / "nodes")
    assert differences(whole, cut) == []
