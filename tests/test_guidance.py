import copy
import math

import pytest
import torch
from test_networks import randomised

from lightning_ddpm import Diffusion
from lightning_ddpm.guidance import Guided, Strong, Weak
from lightning_ddpm.networks import MLP, UNet
from lightning_ddpm.noise import BatchNoise
from lightning_ddpm.samplers import DDIM

X, T = torch.randn(4, 1, 28, 28), torch.tensor([0, 300, 600, 999])
LABEL = torch.tensor([0, 3, 9, -1])


@pytest.fixture(scope="module")
def network() -> UNet:
    network = UNet(channels=(8, 16), num_classes=10, out_channels=2)
    randomised(network)
    return network


def guided(
    network: UNet, scale: float, interval: tuple[float, float] = (0, 1000), t: torch.Tensor = T
) -> torch.Tensor:
    """The output of a network that is pushed away from itself without labels."""
    return Guided(Strong(network, LABEL), Weak(network, LABEL), scale, interval)(X, t)


@torch.no_grad()
def test_scale_1_is_conditional_and_0_unconditional(network: UNet) -> None:
    conditional, unconditional = network(X, T, LABEL), network(X, T)
    assert (conditional - unconditional)[:3].abs().amax((1, 2, 3)).min() > 1e-3
    torch.testing.assert_close(conditional[3], unconditional[3])  # -1 is no label

    torch.testing.assert_close(guided(network, 1)[:, :1], conditional[:, :1])
    zero = guided(network, 0)[:, :1]
    torch.testing.assert_close(zero, unconditional[:, :1], atol=1e-5, rtol=1e-4)
    # Oracle: eq. 6 of Ho and Salimans 2022, with their w = 2.
    expected = 3 * conditional[:, :1] - 2 * unconditional[:, :1]
    three = guided(network, 3)
    torch.testing.assert_close(three[:, :1], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(three[:, 1:], conditional[:, 1:])  # the variance is not guided


@torch.no_grad()
def test_guidance_keeps_to_its_interval(network: UNet) -> None:
    output, everywhere = guided(network, 5, (300, 600)), guided(network, 5)
    torch.testing.assert_close(output[1], everywhere[1])
    conditional = network(X, T, LABEL)
    torch.testing.assert_close(output[[0, 2, 3]], conditional[[0, 2, 3]], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(output[1], conditional[1], atol=1e-2)


@torch.no_grad()
def test_one_time_for_all_is_guided_as_a_time_for_each(network: UNet) -> None:
    for time in (299, 300, 599, 600):
        one, each = (
            guided(network, 5, (300, 600), t) for t in (torch.tensor(time), torch.full((4,), time))
        )
        torch.testing.assert_close(one, each, atol=1e-5, rtol=1e-4)


def test_outside_the_interval_the_network_is_called_once(network: UNet) -> None:
    calls = []
    handle = network.register_forward_hook(lambda *args: calls.append(1))
    for interval in ((100, 300), (100, 301)):
        guided(network, 5, interval, torch.tensor(300))
    handle.remove()
    assert len(calls) == 1 + 2


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
    model = Diffusion(two_selves, guidance=3.0, guidance_interval=(0.3, 1.0))
    torch.testing.assert_close(model.denoiser().predict(X, T), expected, atol=1e-5, rtol=1e-4)
    output = model.denoiser(guidance=1.0).predict(X, T)
    torch.testing.assert_close(output, strong, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"num_classes": 10}, {"weak_dropout": 0.1}, {}])
def test_a_model_is_guided_by_2_if_it_was_trained_for_it(options: dict) -> None:
    network = randomised(UNet(channels=(8,), **options))
    model = Diffusion(network, sampler=DDIM(2))
    samples = [model.sample(2, guidance=w, progress=False) for w in (None, 2.0 if options else 1.0)]
    assert samples[0].equal(samples[1])
    if options:
        assert not samples[0].equal(model.sample(2, guidance=1.0, progress=False))


def test_the_weaker_self_is_trained_on_its_part_of_the_samples() -> None:
    seen = []

    class Watched(UNet):
        def forward(self, x_t, t, condition=None, weak=None) -> torch.Tensor:
            seen.append(weak)
            return super().forward(x_t, t, condition, weak)

    model = Diffusion(Watched(channels=(8,), weak_dropout=0.25), sampler=DDIM(2), shape=(1, 2, 2))
    batch, noise = {"x0": torch.zeros(2000, 1, 2, 2)}, BatchNoise(torch.Generator(), 2000)
    seen.clear()
    model.loss(batch, noise)
    (weak,) = seen
    assert weak.double().mean().item() == pytest.approx(0.25, abs=4 * math.sqrt(0.19 / 2000))
    model.eval().loss(batch, noise)
    assert seen[1] is None  # the strong one is judged


@pytest.mark.parametrize("interval", [(0.5, 0.5), (-0.1, 1.0), (0.0, 1.1), (400, 1000)])
def test_intervals_that_are_none_are_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="guidance_interval must rise"):
        Diffusion(MLP(hidden=8), guidance_interval=interval)


def test_a_part_of_the_images_is_at_most_all() -> None:
    with pytest.raises(ValueError, match="weak_dropout must be from 0 to 1"):
        UNet(weak_dropout=1.5)


def test_labels_go_round(network: UNet) -> None:
    model = Diffusion(network, variance="learned", sampler=DDIM(2))
    assert torch.equal(model.condition_of(range(12)), torch.tensor([*range(10), 0, 1]))
    assert torch.equal(model.condition_of([5, 3, 4], [7, 8]), torch.tensor([8, 8, 7]))
    assert Diffusion(MLP(hidden=8)).condition_of(range(3)) is None
    one = model.sample(3, condition=7, progress=False)
    many = model.sample(3, condition=torch.tensor([7, 7, 7]), progress=False)
    other = model.sample(3, condition=[7, 8, 7], progress=False)
    assert one.equal(many)
    assert [not o.equal(m) for o, m in zip(other, many, strict=True)] == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition": 10}, "from 0 to 9, got \\[10\\]"),
        ({"condition": [-1]}, "from 0 to 9"),
        ({"condition": []}, "from 0 to 9"),
        ({"condition": torch.tensor([1, 2, 3])}, "2 samples cannot be of shape \\(3,\\)"),
    ],
)
def test_wrong_labels_are_refused(network: UNet, options: dict, message: str) -> None:
    model = Diffusion(network, variance="learned", sampler=DDIM(2))
    with pytest.raises(ValueError, match=message):
        model.sample(2, **options)


@pytest.mark.parametrize("options", [{"condition": 3}, {"guidance": 2.0}])
def test_an_unconditional_model_takes_no_labels(options: dict) -> None:
    model = Diffusion(MLP(hidden=8))
    with pytest.raises(ValueError, match="trained without"):
        model.sample(2, **options)


@pytest.mark.parametrize("options", [{"labels": [3]}, {"guidance": 2.0}])
def test_an_unconditional_model_is_not_built_with_labels(options: dict) -> None:
    with pytest.raises(ValueError, match="trained without"):
        Diffusion(MLP(hidden=8), **options)


def test_guidance_without_a_condition_is_refused() -> None:
    model = Diffusion(UNet(channels=(8, 16), num_classes=10))
    with pytest.raises(ValueError, match="guidance 3 needs a condition to guide to, as labels"):
        model.denoiser(guidance=3)
    model.denoiser(guidance=1)
    model.denoiser(torch.tensor([4]), guidance=3)
