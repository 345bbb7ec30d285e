"""The model without a Trainer: its loss."""

from collections.abc import Iterable

import pytest
import torch
from fits import SHAPE, few_images
from gaussian import SHAPES
from test_networks import randomised
from torch.nn import functional as F

from lightning_ddpm.batch import Batch
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.likelihood import bound_term
from lightning_ddpm.networks import MLP, Network, UNet
from lightning_ddpm.noise import BatchNoise, SampleNoise
from lightning_ddpm.objective import (
    LogitNormalTimes,
    MinSNRWeighting,
)
from lightning_ddpm.samplers import DDIM
from lightning_ddpm.schedule import CosineSchedule
from lightning_ddpm.shapes import expand_like

BATCH = few_images(60).__getitems__(list(range(60)))
"""Random images, labels and indices."""


def tiny(network: Network | None = None, **options) -> Diffusion:
    """A model of these images."""
    network = network or MLP(shape=SHAPE, hidden=16, time_dim=8)
    schedule = options.pop("schedule", CosineSchedule(50))
    return Diffusion(network, schedule, sampler=DDIM(2), shape=SHAPE, **options)


def plain_loop(model: Diffusion, batches: Iterable[Batch], lr: float = 0.01) -> list[float]:
    """Train without a Trainer; return the loss of each step."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr), []
    generator = torch.Generator().manual_seed(0)
    for batch in batches:
        loss = model.loss(batch, BatchNoise(generator, len(batch["x0"]))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def part(indices: range) -> Batch:
    """Some of the images."""
    return {name: values[indices.start : indices.stop] for name, values in BATCH.items()}


@pytest.mark.parametrize("shape", [(1, 28, 28), *SHAPES], ids=str)
@torch.no_grad()
def test_loss_is_algorithm_1(shape: tuple[int, ...]) -> None:
    # Oracle: Algorithm 1, line 5 of Ho et al. written out, with alpha_bar from scratch.
    network = None if shape == (1, 28, 28) else MLP(shape=shape, hidden=16, time_dim=8)
    model = Diffusion(network, shape=shape)
    randomised(model.network)  # layers that start at zero would hide t
    x0, noise = torch.rand(4, *shape) * 2 - 1, torch.randn(4, *shape)
    t = torch.tensor([0, 9, 499, 999])
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    a = expand_like(alpha_bar[t].float(), x0)
    predicted = model.network(a.sqrt() * x0 + (1 - a).sqrt() * noise, t)
    expected = torch.stack([F.mse_loss(p, n) for p, n in zip(predicted, noise, strict=True)])
    torch.testing.assert_close(model.denoising_loss(x0, t, noise), expected)


@torch.no_grad()
def test_training_draws_a_time_and_noise_for_each_sample() -> None:
    # Oracle: lines 2 to 4 of Algorithm 1, drawn by hand from the same generator.
    model = tiny()
    draw = torch.Generator().manual_seed(5)
    t, noise = (torch.rand(60, generator=draw) * 50).long(), torch.randn(60, *SHAPE, generator=draw)
    x0 = BATCH["x0"].float() / 255 * 2 - 1
    loss = model.loss(BATCH, BatchNoise(torch.Generator().manual_seed(5), 60))
    torch.testing.assert_close(loss, model.denoising_loss(x0, t, noise))


def test_loss_in_evaluation_depends_on_the_weights_alone() -> None:
    model = tiny(time_sampler=LogitNormalTimes(3.0)).eval()

    def loss(size: int) -> torch.Tensor:
        torch.manual_seed(size)
        parts = [range(start, min(start + size, 60)) for start in range(0, 60, size)]
        with torch.no_grad():
            return torch.cat([model.loss(part(p), SampleNoise(0, p)) for p in parts])

    for size in (20, 7):
        torch.testing.assert_close(loss(size), loss(60))


def test_evaluation_spreads_times_evenly_and_drops_nothing() -> None:
    network = UNet(channels=(8,), num_classes=3, weak_dropout=1.0)
    model = tiny(network, time_sampler=LogitNormalTimes(3.0), condition_dropout=1.0).eval()
    times = []

    def spy(x0, t, noise, condition=None, weak=None) -> torch.Tensor:
        times.append(t)
        assert condition.equal(BATCH["condition"])
        assert weak is None
        return t.float()

    model.denoising_loss = spy
    for start in range(0, 600, 60):
        model.loss(BATCH, SampleNoise(0, range(start, start + 60)))
    strata = torch.bincount(torch.cat(times), minlength=50)
    assert strata.sum() == 600
    assert (strata.min() >= 11) & (strata.max() <= 13)


def test_weighting_and_times_are_those_of_training() -> None:
    model = tiny(weighting=MinSNRWeighting(0.5), time_sampler=LogitNormalTimes(3.0, 0.1))
    plain, noise = tiny(model.network), BatchNoise(torch.Generator().manual_seed(0), 60)
    assert model.time_sampler.draw(model.schedule, noise).min() >= 45
    seen, loss = [], model.denoising_loss
    model.denoising_loss = lambda x0, t, *rest: seen.append(t) or loss(x0, t, *rest)
    model.loss(BATCH, noise)
    assert seen[0].min() >= 45
    x0, t = torch.zeros(2, *SHAPE), torch.tensor([10, 40])
    noise = torch.randn_like(x0)
    alpha, sigma = model.schedule.alpha_sigma(t)
    snr = (alpha / sigma) ** 2
    expected = snr.clamp(max=0.5) / snr * plain.denoising_loss(x0, t, noise)
    torch.testing.assert_close(loss(x0, t, noise), expected)


def test_hybrid_loss_trains_the_variance_by_the_bound_and_the_rest_by_the_error() -> None:
    # Oracle: the gradients of the two parts, each of its own.
    network = randomised(UNet(channels=(8, 16), out_channels=2))
    model = tiny(network, variance="learned")
    x0 = model.medium.encode(BATCH["x0"][:4])
    t, noise = torch.tensor([0, 1, 20, 49]), torch.randn_like(x0)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(loss.sum(), network.head.weight)
        return gradient  # (2, c, 3, 3): of the noise and of the variance

    x_t = model.schedule.add_noise(x0, noise, t)
    of_error = gradient((network(x_t, t)[:, :1] - noise).square().flatten(1).mean(1))
    prediction, decoder = model.denoiser()(x_t, t), model.medium.log_likelihood
    of_bound = gradient(0.001 * 50 * bound_term(prediction, model.schedule, x0, x_t, t, decoder))
    of_both = gradient(model.denoising_loss(x0, t, noise))
    torch.testing.assert_close(of_both[0], of_error[0])
    torch.testing.assert_close(of_both[1], of_bound[1])
    assert of_bound[0].abs().max() > 0  # and would have changed the noise
    assert of_error[1].abs().max() == 0


def test_twenty_steps_in_plain_torch_train_a_model() -> None:
    # Oracle: images of one grey level each, which are learned at once.
    grey = torch.tensor([0, 255], dtype=torch.uint8)[torch.arange(200) % 2]
    batch = {"x0": grey.reshape(-1, 1, 1, 1).expand(-1, *SHAPE)}
    model = tiny(MLP(shape=SHAPE, hidden=64, time_dim=16))
    losses = plain_loop(model, [batch] * 20, lr=0.02)
    assert losses[0] > 0.8
    assert losses[-1] < 0.5
    assert model.sample(3, progress=False).shape == (3, *SHAPE)


@pytest.mark.parametrize("labels", [[0, 1, 10], [-1, 0, 1]])
def test_labels_of_a_batch_that_are_none_are_refused(labels: list[int]) -> None:
    model = Diffusion(UNet(channels=(8, 8), num_classes=10))
    batch = (torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor(labels))
    with pytest.raises(ValueError, match=f"labels must be from 0 to 9, got {min(labels)} to"):
        model.loss(batch, SampleNoise(0, range(3)))
