"""Quality against time, for every sampler and number of steps.

``python tests/benchmarks/sweep.py --ckpt_path best.ckpt --out FOLDER`` writes ``sweep.json`` and
``sweep.png``, and prints a table.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import matplotlib
import torch
from common import BF16, DEVICE, seconds
from tqdm import tqdm

from lightning_ddpm import Diffusion, MNISTDataModule, load_model
from lightning_ddpm.judge import DigitJudge
from lightning_ddpm.media.images import to_uint8
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver, Heun, Sampler

matplotlib.use("agg")
from matplotlib import pyplot as plt

SAMPLERS = {
    "DDIM": (DDIM, (10, 20, 50)),
    "DPMSolver": (DPMSolver, (10, 15, 20, 50)),
    "DPMSolver, eta 1": (partial(DPMSolver, eta=1.0), (10, 15, 20, 25, 50)),
    "Heun": (Heun, (10, 20)),
    "Ancestral": (Ancestral, (15, 25, 50, 250, 1000)),
}


@torch.no_grad()
def measure(model: Diffusion, judge: DigitJudge, sampler: Sampler, size: int) -> dict[str, float]:
    """Seconds to generate ``size`` images, and their figures."""
    images = []

    def generate() -> None:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=BF16):
            images.append(model.sample(size, sampler=sampler, progress=False))

    return {"seconds": seconds(generate), **judge.score(to_uint8(images[0]))}


def plot(rows: list[dict], floor: float, path: Path) -> None:
    """Fréchet distance against seconds, a line for each sampler."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name in dict.fromkeys(row["sampler"] for row in rows):
        part = [row for row in rows if row["sampler"] == name]
        seconds = [row["seconds"] for row in part]
        axes.loglog(seconds, [row["frechet_distance"] for row in part], "o-", label=name)
        for row in part:
            place = (row["seconds"], row["frechet_distance"])
            axes.annotate(row["steps"], place, textcoords="offset points", xytext=(4, 4))
    axes.axhline(floor, color="grey", linestyle="--", label="test images")
    axes.set(xlabel=f"seconds for {rows[0]['samples']} images", ylabel="Fréchet distance")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run every case, and write down each as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num_samples", type=int, default=1000)
    parser.add_argument("--most_steps", type=int, default=1000, help="leave out what has more")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = load_model(options.ckpt_path).to(DEVICE)
    data = MNISTDataModule()
    judge = data.judge()
    assert judge is not None
    floors = judge.to(DEVICE).floors(options.num_samples)
    cases = [
        (name, make(steps))
        for name, (make, all_steps) in SAMPLERS.items()
        for steps in all_steps
        if steps <= options.most_steps
    ]
    rows = []
    for name, sampler in (bar := tqdm(cases)):
        bar.set_description(f"{name} {sampler.steps}")
        figures = measure(model, judge, sampler, options.num_samples)
        case = {"sampler": name, "steps": sampler.steps, "samples": options.num_samples}
        rows.append(case | figures)
        result = {"floors": floors, "rows": rows}
        (options.out / "sweep.json").write_text(json.dumps(result, indent=2) + "\n")
        plot(rows, floors["frechet_distance"], options.out / "sweep.png")
    columns = ("frechet_distance", "kernel_distance", "precision", "recall", "coverage")
    print("".join(f"{title:>17}" for title in ("sampler", "seconds", *columns)))
    for row in rows:
        numbers = "".join(f"{row[name]:17.3f}" for name in ("seconds", *columns))
        print(f"{row['sampler'] + ' ' + str(row['steps']):>17}{numbers}")
    print(f"{'test images':>17}{'':17}" + "".join(f"{floors[name]:17.3f}" for name in columns))


if __name__ == "__main__":
    main()
