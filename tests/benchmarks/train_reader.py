"""Trains the frozen classifiers: ``python tests/benchmarks/train_reader.py convolutions FILE``."""

import argparse
import hashlib
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange

from lightning_ddpm.data import MNISTDataModule
from lightning_ddpm.files import replacing
from lightning_ddpm.judge.networks import ARCHITECTURES, FEATURES


def distorted(x: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b 1 28 28"]:
    """Turn, scale, shear and shift each image a little, at random."""
    size = len(x)
    angle = (torch.rand(size) - 0.5) * 0.4  # radians
    scale = 1 + (torch.rand(2, size) - 0.5) * 0.3
    shear = (torch.rand(size) - 0.5) * 0.4
    shift = (torch.rand(2, size) - 0.5) * 0.3  # of half the width
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack(
        [
            torch.stack([cos * scale[0], shear - sin, shift[0]], dim=1),
            torch.stack([sin, cos * scale[1], shift[1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def train(name: str, data: MNISTDataModule, epochs: int, seed: int = 0) -> nn.ModuleDict:
    """The network and its last layer, trained on the training split with distortions."""
    torch.manual_seed(seed)
    data.setup("fit")
    split = data.splits["train"]
    model = nn.ModuleDict({"network": ARCHITECTURES[name](), "head": nn.Linear(FEATURES, 10)})
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    batches = len(split) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * batches)
    for _ in trange(epochs, unit="epoch"):
        for index in torch.randperm(len(split))[: batches * 128].split(128):
            logits = model["head"](model["network"](distorted(split.x0[index] / 255)))
            loss = F.cross_entropy(logits, split.condition[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.ModuleDict, data: MNISTDataModule) -> float:
    """The part of the test images that are read as their label."""
    data.setup("test")
    test = data.splits["test"]
    right = [
        model["head"](model["network"](test.x0[index] / 255)).argmax(1) == test.condition[index]
        for index in torch.arange(len(test)).split(1000)
    ]
    return torch.cat(right).double().mean().item()


def main() -> None:
    """Train, test and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(ARCHITECTURES))
    parser.add_argument("file", type=Path, help="where the weights go")
    parser.add_argument("--data_dir", help="folder of MNIST, as for train.py")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    data = MNISTDataModule(options.data_dir, source="mnist")
    data.prepare_data()
    model = train(options.name, data, options.epochs)
    weights = save({name: tensor.contiguous() for name, tensor in model.state_dict().items()})
    with replacing(options.file) as temporary:
        temporary.write_bytes(weights)
    print(f"{accuracy(model, data):.2%} of the test images, {len(weights)} bytes in {options.file}")
    print(f"sha256 {hashlib.sha256(weights).hexdigest()}")


if __name__ == "__main__":
    main()
