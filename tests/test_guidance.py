import copy
import math
from pathlib import Path

import pytest
import torch
from test_module import trainer
from test_networks import randomised

from lightning_ddpm import DiffusionLightningModule, MNISTDataModule
from lightning_ddpm.guidance import GuidedNetwork, chosen
from lightning_ddpm.networks import MLP, UNet
from lightning_ddpm.samplers import DDIM

X, T = torch.randn(4, 1, 28, 28), torch.tensor([0, 300, 600, 999])
LABEL = torch.tensor([0, 3, 9, -1])


@pytest.fixture(scope="module")
def network() -> UNet:
    network = UNet(channels=(8, 16), num_classes=10, out_channels=2)
    randomised(network)
    return network


@torch.no_grad()
def test_scale_1_is_conditional_and_0_unconditional(network: UNet) -> None:
    conditional, unconditional = network(X, T, LABEL), network(X, T)
    assert (conditional - unconditional)[:3].abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(conditional[3], unconditional[3])  # -1 is no label

    def guided(scale: float) -> torch.Tensor:
        return GuidedNetwork(network, LABEL, scale, (0, 1000))(X, T)

    torch.testing.assert_close(guided(1)[:, :1], conditional[:, :1])
    torch.testing.assert_close(guided(0)[:, :1], unconditional[:, :1], atol=1e-5, rtol=1e-4)
    # Oracle: eq. 6 of Ho and Salimans 2022, with their w = 2.
    expected = 3 * conditional[:, :1] - 2 * unconditional[:, :1]
    torch.testing.assert_close(guided(3)[:, :1], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(guided(3)[:, 1:], conditional[:, 1:])  # v is not guided


@torch.no_grad()
def test_guidance_keeps_to_its_interval(network: UNet) -> None:
    output = GuidedNetwork(network, LABEL, 5, (300, 600))(X, T)
    everywhere = GuidedNetwork(network, LABEL, 5, (0, 1000))(X, T)
    torch.testing.assert_close(output[1], everywhere[1])
    conditional = network(X, T, LABEL)
    torch.testing.assert_close(output[[0, 2, 3]], conditional[[0, 2, 3]], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(output[1], conditional[1], atol=1e-2)


def test_outside_the_interval_the_network_is_called_once(network: UNet) -> None:
    sizes = []
    handle = network.register_forward_hook(lambda *args: sizes.append(len(args[1][0])))
    GuidedNetwork(network, LABEL, 5, (100, 200))(X, T)
    GuidedNetwork(network, LABEL, 5, (100, 301))(X, T)
    handle.remove()
    assert sizes == [4, 8]


def test_images_are_chosen_as_often_as_asked() -> None:
    rate = chosen(20_000, 0.1, torch.Generator().manual_seed(0)).double().mean().item()
    assert rate == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 20_000))
    assert not chosen(100, 0.0, torch.Generator()).any()
    assert chosen(100, 1.0, torch.Generator()).all()


@pytest.fixture(scope="module")
def two_selves() -> UNet:
    network = UNet(channels=(8, 16), weak_dropout=0.5)
    randomised(network)
    return network


@torch.no_grad()
def test_the_weaker_self_goes_without_the_coarsest_blocks(two_selves: UNet) -> None:
    # Oracle: the same network, with those blocks' last layers at zero.
    without = copy.deepcopy(two_selves)
    for block in (without.middle, without.decoder[0]):
        for parameter in block.conv2.parameters():
            parameter.zero_()
    weak = torch.tensor([True, False, True, False])
    output = two_selves(X, T, None, weak)
    torch.testing.assert_close(output[weak], without(X, T)[weak])
    torch.testing.assert_close(output[~weak], two_selves(X, T)[~weak])
    assert (without(X, T) - two_selves(X, T)).abs().amax((1, 2, 3)).min() > 1e-3


@torch.no_grad()
def test_autoguidance_pushes_away_from_the_weaker_self(two_selves: UNet) -> None:
    strong, weaker = two_selves(X, T), two_selves(X, T, None, torch.ones(4, dtype=torch.bool))
    # Oracle: the weighted sum of Karras et al. 2024, from t = 300 on.
    expected = strong.clone()
    expected[1:] = 3 * strong[1:] - 2 * weaker[1:]
    model = DiffusionLightningModule(two_selves, guidance=3.0, guidance_interval=(0.3, 1.0))
    torch.testing.assert_close(model.denoiser().network(X, T), expected, atol=1e-5, rtol=1e-4)
    output = model.denoiser(guidance=1.0).network(X, T)
    torch.testing.assert_close(output, strong, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"num_classes": 10}, {"weak_dropout": 0.1}, {}])
def test_a_model_is_guided_by_2_if_it_was_trained_for_it(options: dict) -> None:
    network = randomised(UNet(channels=(8,), **options))
    model = DiffusionLightningModule(network, sampler=DDIM(2))
    samples = [model.sample(2, guidance=w, progress=False) for w in (None, 2.0 if options else 1.0)]
    assert samples[0].equal(samples[1])
    if options:
        assert not samples[0].equal(model.sample(2, guidance=1.0, progress=False))


def test_the_weaker_self_is_trained_on_its_part_of_the_images(tmp_path: Path) -> None:
    network = UNet(channels=(8,), weak_dropout=0.25)
    seen = []
    network.register_forward_pre_hook(lambda _, args: seen.append(args[3:]))
    model = DiffusionLightningModule(network, sampler=DDIM(2))
    data = MNISTDataModule(source="packaged", batch_size=500)
    trainer(tmp_path, max_steps=4, limit_val_batches=0).fit(model, data)
    weak = torch.cat([args[0] for args in seen if args][:4])  # and then the grid
    assert len(weak) == 2000
    assert weak.double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.19 / 2000))


@pytest.mark.parametrize("interval", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (400, 1000)])
def test_intervals_that_are_none_are_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="guidance_interval must rise"):
        DiffusionLightningModule(MLP(hidden=8), guidance_interval=interval)


def test_a_part_of_the_images_is_at_most_all() -> None:
    with pytest.raises(ValueError, match="weak_dropout must be from 0 to 1"):
        UNet(weak_dropout=1.5)


def test_labels_go_round(network: UNet) -> None:
    model = DiffusionLightningModule(network, variance="learned", sampler=DDIM(2))
    assert torch.equal(model.labels_of(range(12)), torch.tensor([*range(10), 0, 1]))
    assert torch.equal(model.labels_of([5, 3, 4], [7, 8]), torch.tensor([8, 8, 7]))
    assert DiffusionLightningModule(MLP(hidden=8)).labels_of(range(3)) is None
    one = model.sample(3, labels=7, progress=False)
    many = model.sample(3, labels=[7, 7, 7], progress=False)
    other = model.sample(3, labels=[7, 8, 7], progress=False)
    assert one.equal(many)
    assert [not o.equal(m) for o, m in zip(other, many, strict=True)] == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 10}, "from 0 to 9, got \\[10\\]"),
        ({"labels": [-1]}, "from 0 to 9"),
        ({"labels": []}, "from 0 to 9"),
    ],
)
def test_wrong_labels_are_refused(network: UNet, options: dict, message: str) -> None:
    model = DiffusionLightningModule(network, variance="learned", sampler=DDIM(2))
    with pytest.raises(ValueError, match=message):
        model.sample(2, **options)


@pytest.mark.parametrize("options", [{"labels": 3}, {"guidance": 2.0}])
def test_an_unconditional_model_takes_no_labels(options: dict) -> None:
    model = DiffusionLightningModule(MLP(hidden=8))
    with pytest.raises(ValueError, match="trained without"):
        model.sample(2, **options)


@pytest.mark.parametrize("options", [{"labels": [3]}, {"guidance": 2.0}])
def test_an_unconditional_model_is_not_built_with_labels(options: dict) -> None:
    with pytest.raises(ValueError, match="trained without"):
        DiffusionLightningModule(MLP(hidden=8), **options)
