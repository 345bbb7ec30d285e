"""The README's commands for more than one machine: with two nodes on this one, without SLURM."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from runs import differences, outcome
from test_resume import RUN as EXACT

README = (ROOT / "README.md").read_text()
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
RUN = (*EXACT, "--max_epochs", 3, "--last_checkpoint.every_n_seconds", 30)
STOP = ("--trainer.callbacks", "toys.StopInValidation")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def torchrun(folder: Path, *options: object) -> list[int]:
    """Train on two nodes, as the README says; their exit codes."""
    (command,) = re.findall(r"^torchrun (.*train.py) (.*)$", README, re.MULTILINE)
    first, rest = (part.replace(" 8", " 1").replace("gpu", "cpu") for part in command)
    first = first.replace("HOST", "127.0.0.1").replace("29500", str(free_port()))
    nodes = []
    for rank in (0, 1):
        words = first.replace("--node_rank 0", f"--node_rank {rank}").split()
        words[-1] = str(ROOT / "train.py")
        words += [*map(str, RUN), *rest.split(), *map(str, options)]
        with (folder / f"node{rank}.txt").open("a") as log:
            nodes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "torch.distributed.run", *words],
                    cwd=folder,
                    stdout=log,
                    stderr=log,
                    env=ENVIRONMENT,
                )
            )
    return [node.wait(timeout=120) for node in nodes]


@pytest.mark.long
def test_two_nodes_train_as_two_processes_and_resume(tmp_path: Path, train_py_in) -> None:
    node, nodes = tmp_path / "node", tmp_path / "nodes"
    node.mkdir()
    nodes.mkdir()
    train_py_in(node, *RUN, "--devices", 2)
    assert torchrun(nodes, *STOP)[0] != 0
    assert "starting anew" in (nodes / "node0.txt").read_text()
    assert torchrun(nodes) == [0, 0]
    assert (
        f"resume:      {next(nodes.rglob('last.ckpt')).relative_to(nodes)}"
        in (nodes / "node0.txt").read_text()
    )
    assert differences(outcome(node), outcome(nodes)) == []


@pytest.mark.long
def test_a_job_of_slurm_is_queued_again_if_it_was_stopped(tmp_path: Path) -> None:
    (script,) = re.findall(r"^#!/bin/bash\n#SBATCH.*?(?=^```)", README, re.MULTILINE | re.DOTALL)
    script = script.replace("--accelerator gpu --devices 8 --trainer.num_nodes 2", '"$@"')
    script = script.replace("python train.py", f"{sys.executable} {ROOT / 'train.py'}")
    (tmp_path / "job").write_text(script)
    (tmp_path / "srun").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> queue\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    def job(*options: object) -> int:
        command = ["bash", "job", *map(str, (*RUN, *options))]
        environment = ENVIRONMENT | {"PATH": path, "SLURM_JOB_ID": "7"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=False, timeout=120
        ).returncode

    assert job(*STOP) == 143
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    assert job() == 0
    assert (tmp_path / "queue").read_text() == "requeue 7\n"  # it has ended
    assert outcome(tmp_path)["step"] == 180
