import math

import pytest
import torch
from test_networks import randomised

from lightning_ddpm import DiffusionLightningModule
from lightning_ddpm.guidance import GuidedNetwork, drop_labels
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


def test_labels_are_dropped_as_often_as_asked() -> None:
    label = torch.arange(20_000) % 10
    dropped = drop_labels(label, 0.1, torch.Generator().manual_seed(0))
    rate = (dropped == -1).double().mean().item()
    assert rate == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 20_000))
    assert dropped[dropped >= 0].equal(label[dropped >= 0])
    assert drop_labels(label, 0.0, torch.Generator()).equal(label)
    assert drop_labels(label, 1.0, torch.Generator()).eq(-1).all()


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
