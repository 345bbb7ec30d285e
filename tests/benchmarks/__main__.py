"""All benchmarks, or those that are named: ``python tests/benchmarks --out FOLDER [PART ...]``."""

import argparse
from functools import partial
from pathlib import Path

from overhead import overhead
from scaling import scaling
from speed import sampling, training
from sprint import peer_sprint, sprint
from start import start


def main() -> None:
    """Run them one after the other; each prints a table and writes JSON."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON and plots")
    parser.add_argument("--seeds", type=int, default=3, help="of the sprints")
    parser.add_argument("--num_samples", type=int, default=10_000, help="of the sprints")
    parser.add_argument("--budget", type=float, default=300, help="seconds of the peer's sprint")
    parser.add_argument("parts", nargs="*", metavar="PART")
    options = parser.parse_args()
    parts = {
        "start": start,
        "training": training,
        "sampling": sampling,
        "overhead": overhead,
        "scaling": scaling,
        "peer": partial(peer_sprint, budget=options.budget),
    } | {
        f"sprint-{recipe}": partial(
            sprint, recipe=recipe, seeds=options.seeds, size=options.num_samples
        )
        for recipe in ("default", "full")
    }
    if unknown := set(options.parts) - set(parts):
        parser.error(f"no part named {', '.join(unknown)}; there are {', '.join(parts)}")
    for name in options.parts or parts:
        parts[name](options.out)


if __name__ == "__main__":
    main()
