import pytest
import torch
from conftest import concrete_classes
from torch import nn

from lightning_ddpm import networks
from lightning_ddpm.networks import MLP, Network, UNet
from lightning_ddpm.networks.layers import TimeEmbedding

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


def test_unet_sees_the_label() -> None:
    network = randomised(UNet(num_classes=10))
    x, t, label = torch.randn(3, 1, 28, 28), torch.tensor([0, 500, 999]), torch.tensor([0, 9, -1])
    output, unlabelled = network(x, t, label), network(x, t)
    assert (output - unlabelled)[:2].abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(output[2], unlabelled[2])
    output.square().mean().backward()
    unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused


def test_unet_gives_a_second_output_for_the_variance() -> None:
    assert UNet(3, out_channels=6)(torch.randn(1, 3, 8, 8), torch.tensor([0])).shape[1] == 6


def test_time_steps_keep_their_precision_under_autocast() -> None:
    # In half precision 998 and 999 would be the same number: bfloat16 has 8 bits.
    embedding, t = TimeEmbedding(64), torch.arange(1000)
    seen = []
    embedding.mlp[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.autocast("cpu", torch.bfloat16):
        embedding(t)
    assert seen[0].dtype == torch.float32
    distance = torch.cdist(seen[0].double(), seen[0].double()) + torch.eye(1000)
    assert distance.min() > 0.1


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
