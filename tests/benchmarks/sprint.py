"""Quality after a fixed budget: whole runs of ``train.py``, and of another project's network."""

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import DEVICE, ROOT, Row, machine, report, run_process, training_images
from peers import PEERS

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.media.images import from_uint8, to_uint8

FIGURES = ("frechet_distance", "frechet_floor", "precision", "recall", "coverage")


def ours(recipe: str, seed: int, size: int) -> Row:
    """Train by a recipe, generate ``size`` images, judge them, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        quiet = ("--enable_progress_bar", "false", "--trainer.default_root_dir", folder)
        options = ("--config", recipe, "--seed", seed, *quiet)
        training, memory, _ = run_process(ROOT / "train.py", *options)
        (checkpoint,) = Path(folder).rglob("last.ckpt")
        options = ("--ckpt_path", checkpoint, "--num_samples", size, "--seed", seed, *quiet)
        sampling, _, _ = run_process(ROOT / "train.py", "predict", *options)
        samples = Path(folder) / "samples" / "samples.npz"
        _, _, text = run_process(ROOT / "train.py", "score", samples, "--json")
    figures = json.loads(text)
    return {
        "run": f"{recipe}, seed {seed}",
        "training s": training,
        "peak memory GB": memory,
        "images": size,
        "sampling s": sampling,
        **{name: figures[name] for name in FIGURES},
        "ratio": figures["frechet_distance"] / figures["frechet_floor"],
    }


def theirs(name: str, budget: float, size: int) -> Row:
    """Train another network as long, and sample by DDIM in 50 steps."""
    torch.manual_seed(0)
    peer, images, steps = PEERS[name](), training_images(), 0
    half = DEVICE == "cuda"  # on a CPU this network is faster in float32
    start = time.perf_counter()
    while time.perf_counter() - start < budget:
        batch = from_uint8(images[torch.randint(len(images), (128,), device=DEVICE)])
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            peer.step(batch)
        steps += 1
    training, peer.network = time.perf_counter() - start, peer.network.eval()
    start, parts = time.perf_counter(), []
    for _ in range(0, size, 100):
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            parts.append(to_uint8(peer.sample(100, 50).float()).cpu())
    sampling = time.perf_counter() - start
    data = MNISTDataModule()
    judge = data.judge()
    assert judge is not None
    figures = judge.score(torch.cat(parts))
    floor = judge.floors(size)["frechet_distance"]
    return {
        "run": f"{name}, {steps} steps",
        "training s": training,
        "peak memory GB": "",
        "images": size,
        "sampling s": sampling,
        "frechet_distance": figures["frechet_distance"],
        "frechet_floor": floor,
        **{figure: figures[figure] for figure in FIGURES[2:]},
        "ratio": figures["frechet_distance"] / floor,
    }


def sprint(out: Path, recipe: str, seeds: int, size: int) -> None:
    """The recipe with several seeds, and their median."""
    rows = []
    for seed in range(seeds):
        rows.append(ours(recipe, seed, size))
        report(f"sprint-{recipe}", rows, out)
    median = {n: statistics.median(r[n] for r in rows) for n in rows[0] if n != "run"}
    report(f"sprint-{recipe}", [*rows, {"run": "median", **median}], out)


def peer_sprint(out: Path, budget: float, size: int = 1000) -> None:
    """The network of diffusers' course after the same time."""
    print(f"training a peer for {budget:.0f} s on {machine()}")
    report("sprint-peer", [theirs("diffusers UNet2DModel", budget, size)], out)
