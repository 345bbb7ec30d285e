import pytest
import torch
from conftest import concrete_classes
from torch import nn

from lightning_ddpm import networks
from lightning_ddpm.networks import MLP, Network, UNet

NETWORKS = concrete_classes(networks, Network)


def randomised(network: nn.Module) -> nn.Module:
    """Layers that start at zero would hide what depends on what."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("cls", NETWORKS)
def test_contract(cls: type[nn.Module]) -> None:
    network = randomised(cls())
    x, t = torch.randn(3, 1, 28, 28), torch.tensor([0, 500, 999])
    output = network(x, t)
    assert output.shape == x.shape
    output.square().mean().backward()
    unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused
    assert not torch.allclose(output, network(x, t.flip(0)), atol=1e-4)
    torch.testing.assert_close(output[1:2], network(x[1:2], t[1:2]), atol=1e-4, rtol=1e-4)


def test_article_mlp_is_784_1000_1000_784_and_does_not_see_t() -> None:
    network = MLP(time_dim=0)
    x = torch.randn(4, 1, 28, 28)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert shapes == [(1000, 784), (1000, 1000), (784, 1000)]
    assert torch.equal(network(x, torch.zeros(4).long()), network(x, torch.full((4,), 999)))


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 32, 32), (1, 64, 32)])
def test_unet_takes_sizes_divisible_by_four(size: tuple[int, int, int]) -> None:
    x = torch.randn(2, *size)
    assert UNet(image_channels=size[0])(x, torch.tensor([1, 2])).shape == x.shape


def test_unet_passes_detail_by_the_lower_levels() -> None:
    network = randomised(UNet())
    with torch.no_grad():
        for parameter in network.up.parameters():
            parameter.zero_()  # nothing comes up from below
    x, t = torch.randn(1, 1, 28, 28), torch.tensor([500])
    assert (network(x, t) - network(x.roll(1, 3), t)).abs().max() > 1e-3
