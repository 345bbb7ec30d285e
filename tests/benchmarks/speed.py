"""Throughput of training and sampling beside two other projects, and beside this machine's own."""

from collections.abc import Callable
from pathlib import Path

import torch
from common import (
    BF16,
    DEVICE,
    Row,
    default_batch_size,
    default_model,
    paired,
    report,
    training_images,
)
from peers import PEERS
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_ddpm import Diffusion
from lightning_ddpm.media.images import from_uint8
from lightning_ddpm.noise import BatchNoise
from lightning_ddpm.training.muon import Muon

DDIM_STEPS = 50
Half = torch.bfloat16


def training_step(model: Diffusion) -> Callable[[Tensor], None]:
    """A bare step of the default recipe, on images as bytes."""
    optimizer = Muon(model.network, 1e-4)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def step(x0: Tensor) -> None:
        with torch.autocast(DEVICE, Half, enabled=BF16):
            loss = model.loss({"x0": x0}, BatchNoise(generator, len(x0))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@torch.no_grad()
def sample(model: Diffusion, size: int) -> None:
    """As many samples as asked for, by the default sampler."""
    with torch.autocast(DEVICE, Half, enabled=BF16):
        model.sample(size, progress=False)


def flops_per_image(model: Diffusion) -> float:
    """Floating-point operations of a training step's network, forward and backward."""
    x, t = torch.zeros(1, *model.shape, device=DEVICE), torch.zeros(1, device=DEVICE).long()
    with FlopCounterMode(display=False) as counter:
        model.network(x, t).sum().backward()
    return counter.get_total_flops()


def matrix_rates() -> dict[str, float]:
    """GFLOP/s of this machine: matrix products, and 3x3 convolutions forward and backward."""
    size, rates = (8192 if DEVICE == "cuda" else 2048), {}
    for name, dtype in (("float32", torch.float32), ("bf16", Half)):
        a = torch.randn(size, size, device=DEVICE, dtype=dtype)
        rates[f"matrix product, {name}"] = 2 * size**3 / paired({"": lambda a=a: a @ a})[""] / 1e9
        batch, width = (1024 if DEVICE == "cuda" else 128), 128
        conv = nn.Conv2d(width, width, 3, padding=1, device=DEVICE, dtype=dtype)
        conv = conv.to(memory_format=torch.channels_last)
        x = torch.randn(batch, width, 14, 14, device=DEVICE, dtype=dtype)
        x = x.to(memory_format=torch.channels_last).requires_grad_()

        def both_ways(conv: nn.Module = conv, x: Tensor = x) -> None:
            y = conv(x)
            y.backward(y.detach())

        work = 3 * 2 * 9 * width**2 * 14**2 * batch
        rates[f"convolution 128 at 14x14, {name}"] = work / paired({"": both_ways})[""] / 1e9
    return rates


def own_convolutions(model: Diffusion, x0: Tensor) -> Callable[[], None]:
    """Nothing but the network's convolutions, each with the input that it has there."""
    calls: list[tuple[nn.Module, Tensor]] = []
    layers = [m for m in model.network.modules() if isinstance(m, nn.Conv2d)]
    hooks = [
        m.register_forward_pre_hook(lambda m, x: calls.append((m, x[0].detach()))) for m in layers
    ]
    with torch.autocast(DEVICE, Half, enabled=BF16):
        model.network(x0, torch.zeros(len(x0), device=DEVICE).long())
    for hook in hooks:
        hook.remove()
    inputs = [
        x.to(Half if BF16 else x.dtype).requires_grad_(x is not calls[0][1]) for _, x in calls
    ]

    def run() -> None:
        for (layer, _), x in zip(calls, inputs, strict=True):
            with torch.autocast(DEVICE, Half, enabled=BF16):
                y = layer(x)
            y.backward(y.detach())

    return run


def training(out: Path) -> None:
    """Images a second in training, and the operations a second that this makes."""
    size = default_batch_size()
    images = training_images()[:size]
    x0, model = from_uint8(images), default_model()
    ours = training_step(model)
    steps: dict[str, Callable[[], object]] = {"lightning_ddpm": lambda: ours(images)}
    for name, make in PEERS.items():
        peer = make()
        steps[name] = lambda peer=peer: peer.step(x0)

        def half(peer=peer) -> None:
            with torch.autocast(DEVICE, Half):
                peer.step(x0)

        if BF16:
            steps[f"{name}, bf16 autocast"] = half
    times = paired(steps)
    rows: list[Row] = [
        {
            "training step": name,
            "batch": size,
            "images/s": size / time,
            "ours/theirs": time / times["lightning_ddpm"],
        }
        for name, time in times.items()
    ]
    report("training", rows, out)
    flops = flops_per_image(model) * size / 1e9
    alone = paired({"": own_convolutions(model, x0)})[""]
    rows = [{"rate": name, "GFLOP/s": rate} for name, rate in matrix_rates().items()]
    rows.append({"rate": "the network's convolutions alone", "GFLOP/s": flops / alone})
    rows.append({"rate": "a whole step of training", "GFLOP/s": flops / times["lightning_ddpm"]})
    report("rates", rows, out)


def sampling(out: Path, size: int = 100) -> None:
    """Images a second from pure noise."""
    model = default_model()
    runs: dict[str, Callable[[], object]] = {}
    runs[f"{type(model.sampler).__name__} {model.sampler.steps}"] = lambda: sample(model, size)
    for name, make in PEERS.items():
        peer = make()
        runs[f"{name}, DDIM {DDIM_STEPS}"] = lambda peer=peer: peer.sample(size, DDIM_STEPS)
    times = paired(runs, rounds=3)
    ours = next(iter(times.values()))
    rows: list[Row] = [
        {"sampler": name, "images/s": size / time, "ours/theirs": time / ours}
        for name, time in times.items()
    ]
    report("sampling", rows, out)
