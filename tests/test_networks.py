from itertools import product

import pytest
import torch
from conftest import concrete_classes
from torch import nn

from lightning_ddpm import networks
from lightning_ddpm.networks import MLP, Network, StackedUNet, UNet, VideoUNet
from lightning_ddpm.networks.layers import Shuffle, TimeEmbedding, Upsample

NETWORKS = concrete_classes(networks, Network)
SHAPES = {1: (1, 16), 2: (2, 8, 8), 3: (1, 4, 8, 4)}
"""By the number of spatial axes."""


def randomised(network: nn.Module) -> nn.Module:
    """Layers that start at zero would hide what depends on what."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def check_contract(network: nn.Module, shape: tuple[int, ...]) -> None:
    """A prediction of the sample's shape, of its own samples and times, by all its parameters."""
    x, t = torch.randn(3, *shape), torch.tensor([0, 500, 999])
    output = network(x, t)
    assert output.shape == x.shape
    output.square().mean().backward()
    unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused
    assert not torch.allclose(output, network(x, t.flip(0)), atol=1e-4)
    torch.testing.assert_close(output[1:2], network(x[1:2], t[1:2]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cls", NETWORKS)
def test_contract(cls: type[nn.Module]) -> None:
    shape = {VideoUNet: (1, 3, 16, 16), StackedUNet: (1, 16, 16, 16)}.get(cls, (1, 28, 28))
    check_contract(randomised(cls()).eval(), shape)  # some have dropout


@pytest.mark.parametrize("shape", [(8,), *SHAPES.values()], ids=str)
def test_mlp_keeps_the_contract_for_any_shape(shape: tuple[int, ...]) -> None:
    check_contract(randomised(MLP(shape=shape, hidden=16, time_dim=8)), shape)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_unet_keeps_the_contract_for_any_spatial_axes(dims: int) -> None:
    shape = SHAPES[dims]
    check_contract(randomised(UNet(shape[0], channels=(8, 12, 16), dims=dims)), shape)


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        *((1, (1, 14)), (2, (1, 8, 6)), (3, (1, 4, 4, 2))),  # not to be halved twice
        *((1, (1, 8, 8)), (2, (1, 16)), (2, (1, 4, 4, 4)), (3, (1, 8, 8)), (1, (8,))),  # other axes
    ],
)
def test_samples_that_unet_cannot_halve_are_refused(dims: int, shape: tuple[int, ...]) -> None:
    network = UNet(channels=(4, 4, 4), dims=dims)
    message = f"needs {dims} spatial axes \\(dims\\), each divisible by 4, got \\("
    with pytest.raises(ValueError, match=message):
        network(torch.randn(2, *shape), torch.tensor([1, 2]))


@pytest.mark.parametrize("dims", [0, 4])
def test_other_numbers_of_axes_are_refused(dims: int) -> None:
    with pytest.raises(ValueError, match="dims must be from 1 to 3"):
        UNet(dims=dims)


def test_shuffle_of_two_axes_is_pixel_shuffle() -> None:
    x = torch.randn(2, 12, 3, 5)  # Oracle: torch's own
    assert Shuffle(2)(x).equal(nn.PixelShuffle(2)(x))


@pytest.mark.parametrize("dims", [1, 3])
def test_shuffle_takes_neighbours_from_channels(dims: int) -> None:
    # Oracle: one value at a time. Channel c * 2^n + k goes to channel c, to the place whose
    # remainders by 2, as binary digits, are k.
    spatial = (2, 3, 2)[:dims]
    x = torch.randn(2, 3 * 2**dims, *spatial)
    shuffled = Shuffle(dims)(x)
    assert shuffled.shape == (2, 3, *(2 * size for size in spatial))
    for c, *place in product(range(3), *(range(2 * size) for size in spatial)):
        k = int("".join(str(p % 2) for p in place), 2)
        source = (slice(None), c * 2**dims + k, *(p // 2 for p in place))
        assert shuffled[(slice(None), c, *place)].equal(x[source])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_upsample_makes_each_position_from_one(dims: int) -> None:
    # Oracle: the linear map of that position's channels.
    upsample = Upsample(4, 3, dims)
    x = torch.randn(2, 4, *(2, 3, 2)[:dims])
    up = upsample(x)
    assert up.shape == (2, 3, *(2 * size for size in x.shape[2:]))
    corner = up[(..., *[slice(2)] * dims)].flatten(1)  # (b, c * 2^n): of the first position
    weight, bias = (upsample[0].get_parameter(name) for name in ("weight", "bias"))
    expected = x[(..., *[0] * dims)] @ weight.flatten(1).T + bias
    torch.testing.assert_close(corner, expected)


def test_unet_sees_the_label() -> None:
    network = randomised(UNet(num_classes=10))
    x, t, label = torch.randn(3, 1, 28, 28), torch.tensor([0, 500, 999]), torch.tensor([0, 9, -1])
    output, unlabelled = network(x, t, label), network(x, t)
    assert (output - unlabelled)[:2].abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(output[2], unlabelled[2])
    output.square().mean().backward()
    unused = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not unused


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_unet_gives_a_second_output_for_the_variance(dims: int) -> None:
    network = UNet(3, channels=(8, 8), out_channels=6, dims=dims)
    assert network(torch.randn(1, 3, *[8] * dims), torch.tensor([0])).shape[1] == 6


@pytest.mark.parametrize(
    "condition", [torch.zeros(2, 3).long(), torch.zeros(2), torch.zeros(2, 1).long()]
)
def test_labels_of_another_kind_are_refused(condition: torch.Tensor) -> None:
    network = UNet(channels=(4,), num_classes=10)
    with pytest.raises(ValueError, match="must be labels, integers of shape \\(b\\), got"):
        network(torch.randn(2, 1, 4, 4), torch.tensor([0, 1]), condition)


@pytest.mark.parametrize(
    "options",
    [
        *({"channels": ()}, {"channels": (8, 0)}, {"num_classes": -1}),
        *({"num_classes": None}, {"weak_dropout": 1.5}),
    ],
)
def test_bad_arguments_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        UNet(**options)


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
    assert UNet(in_channels=size[0])(x, torch.tensor([1, 2])).shape == x.shape


def test_unet_passes_detail_by_the_lower_levels() -> None:
    network = randomised(UNet())
    with torch.no_grad():
        for parameter in network.up.parameters():
            parameter.zero_()  # nothing comes up from below
    x, t = torch.randn(1, 1, 28, 28), torch.tensor([500])
    assert (network(x, t) - network(x.roll(1, 3), t)).abs().max() > 1e-3
