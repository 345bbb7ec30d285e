"""Forecasts that a model was trained for, beside those of a model that is told nothing.

``python tests/benchmarks/series.py --ckpt_path CKPT``. The other's samples are bent towards what is
known while they are drawn, with ``editing.inpaint``. It may be the same model, with nothing known,
or that of ``--unconditional CKPT``, as of ``--config series --condition_dropout 1``. (TSDiff,
Kollovieh et al. 2023, 2307.11494, guides its samples by the gradient of a loss.)
"""

import argparse

import torch
from common import machine

from lightning_ddpm import load_model
from lightning_ddpm.data import SeriesDataModule
from lightning_ddpm.editing import inpaint
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import Ancestral

ROUNDS = ((1, 50), (4, 50))  # and steps


def main() -> None:
    """Print the CRPS of each series, by method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--unconditional")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    data = SeriesDataModule(draws=options.draws, num_windows=options.windows)
    data.setup("test")
    judge, n = data.judge(), data.num_samples
    batch = data.held_out(range(n))
    trained = load_model(options.ckpt_path)
    plain = load_model(options.unconditional or options.ckpt_path)
    assert trained.observation is not None
    x0 = trained.medium.encode(batch["x0"])
    given = trained.observation.draw(x0, SampleNoise(0, range(n)), batch)
    made = {f"trained, {trained.sampler.steps} calls": trained.sample(n, given=given)}
    for rounds, steps in ROUNDS:
        name = f"unconditional, {rounds * (steps - 1) + 1} calls"
        mask = given.known.float()
        made[name] = inpaint(plain.denoiser(), x0, mask, Ancestral(steps), rounds)
    print(f"{n} samples of {options.windows} windows, on {machine()}: CRPS")
    print(f"{'':28}" + "".join(f"{name:>18}" for name in data.table.names[:4]))
    for name, samples in made.items():
        figures = judge.score(trained.medium.decode(samples))
        print(f"{name:28}" + "".join(f"{figures[f'crps/{s}']:18.3f}" for s in data.table.names[:4]))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
