"""One of two gloo processes that judge the same images together (run by test_ddp.py)."""

import json
import sys
from pathlib import Path

import torch
from torch import distributed

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.metrics import Judge

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.set_num_threads(1)
    data = MNISTDataModule(source="packaged")
    test = data.load_splits("test")["test"]
    judge = Judge(data.load_splits("fit")["train"])
    figures = judge.score(test.images[:101], test.labels[:101], rank, processes=2)
    (folder / f"rank{rank}.json").write_text(json.dumps(figures))
    distributed.destroy_process_group()
