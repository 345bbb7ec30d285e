"""What a network is told: any tensor led by the samples, which passes through untouched."""

import re
from itertools import repeat

import pytest
import torch
from fits import SHAPE
from test_diffusion import BATCH, plain_loop, tiny
from torch import nn

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.networks import MLP, Network, UNet
from lightning_ddpm.noise import BatchNoise, SampleNoise
from lightning_ddpm.objective import DataTarget
from lightning_ddpm.samplers import DDIM
from lightning_ddpm.schedule import CosineSchedule

COLOURS = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
"""The embeddings of two kinds of images, all black and all white."""


class Told(Network):
    """Is told an embedding (b, 2) of each image; zeros stand for none."""

    conditional = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.layers = nn.Sequential(nn.Linear(16 + 1 + 2, 32), nn.SiLU(), nn.Linear(32, 16))

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        if condition is None:
            condition = x_t.new_zeros(len(x_t), 2)
        if condition.shape != (len(x_t), 2):
            raise ValueError(f"an embedding must be (b, 2), got {tuple(condition.shape)}")
        self.seen.append(condition)
        inputs = [x_t.flatten(1), t[:, None] / 50, condition]
        return self.layers(torch.cat(inputs, dim=1)).view_as(x_t)

    def unconditional(self, condition) -> torch.Tensor:
        return torch.zeros_like(condition)


def model(**options) -> Diffusion:
    network = Told()
    told = Diffusion(network, CosineSchedule(50), DataTarget(), DDIM(5), shape=SHAPE, **options)
    network.seen.clear()
    return told


def batch(size: int = 200) -> dict[str, torch.Tensor]:
    """Black and white images, each with its embedding."""
    kind = torch.arange(size) % 2
    x0 = (255 * kind).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, *SHAPE)
    return {"x0": x0, "condition": COLOURS[kind]}


@pytest.fixture(scope="module")
def trained() -> Diffusion:
    told = model(condition_dropout=0.5)
    losses = plain_loop(told, repeat(batch(), 300))
    assert losses[-1] < losses[0] / 4
    return told.eval()


def test_an_embedding_says_what_is_drawn(trained: Diffusion) -> None:
    # Oracle: the colour of each kind, -1 for black and 1 for white.
    kind = torch.tensor([0, 1, 1, 0])
    told = trained.sample(4, condition=COLOURS[kind], progress=False)
    expected = (2.0 * kind - 1).reshape(-1, 1, 1, 1).expand_as(told)
    torch.testing.assert_close(told, expected, atol=0.2, rtol=0)


@torch.no_grad()
def test_guidance_goes_away_from_what_stands_for_no_condition(trained: Diffusion) -> None:
    # Oracle: eq. 6 of Ho and Salimans 2022, with their w = 2, of the network's own outputs.
    x_t, t, condition = torch.randn(2, *SHAPE), torch.tensor([49, 49]), COLOURS
    strong, weak = trained.network(x_t, t, condition), trained.network(x_t, t, 0 * condition)
    guided = trained.denoiser(condition, guidance=3.0).predict(x_t, t)
    torch.testing.assert_close(guided, 3 * strong - 2 * weak, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(trained.denoiser(condition, guidance=1.0).predict(x_t, t), strong)
    samples = [
        trained.sample(2, condition=condition, guidance=w, progress=False) for w in (None, 2.0, 1.0)
    ]
    assert samples[0].equal(samples[1])  # guided by 2 if not told otherwise
    assert not samples[0].equal(samples[2])


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_embeddings_are_dropped_as_often_as_asked(dropout: float) -> None:
    told, size = model(condition_dropout=dropout), 4000
    told.loss(batch(size), BatchNoise(torch.Generator().manual_seed(0), size))
    seen = told.network.seen[0]
    assert len(told.network.seen) == 1
    dropped = (seen == 0).all(1)
    error = 4 * (dropout * (1 - dropout) / size) ** 0.5
    assert dropped.double().mean().item() == pytest.approx(dropout, abs=error)
    assert seen[~dropped].equal(batch(size)["condition"][~dropped])


def test_labels_are_learned_and_at_times_dropped() -> None:
    network, seen = UNet(channels=(8,), num_classes=3), []
    diffusion = tiny(network, condition_dropout=0.3)
    network.label.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        diffusion.loss(BATCH, BatchNoise(generator, 60))
    trained_on = torch.cat(seen)
    assert (trained_on == -1).double().mean().item() == pytest.approx(0.3, abs=4 * 0.0084)
    assert set(trained_on.tolist()) == {-1, 0, 1, 2}


@pytest.mark.parametrize("shape", [(3,), (3, 7), (3, 2, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_a_condition_passes_through_untouched(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    seen = []

    class Listening(MLP):
        conditional = True

        def forward(self, x_t, t, condition=None) -> torch.Tensor:
            seen.append(condition)
            return super().forward(x_t, t)

    diffusion = tiny(Listening(shape=SHAPE, hidden=8, time_dim=4)).eval()
    condition = torch.randint(5, shape).to(dtype)
    seen.clear()
    diffusion.loss({"x0": BATCH["x0"][:3], "condition": condition}, SampleNoise(0, range(3)))
    diffusion.sample(3, condition=condition, guidance=1.0, progress=False)
    assert len(seen) == 3
    assert all(told.equal(condition) and told.dtype == dtype for told in seen)


@pytest.mark.parametrize(
    "condition",
    [torch.zeros(3, 2), torch.zeros(1, 2), torch.zeros(0, 2), torch.zeros(1)],
    ids=lambda condition: str(tuple(condition.shape)),
)
def test_a_condition_of_other_samples_is_refused(condition: torch.Tensor) -> None:
    told, shape = model(), re.escape(str(tuple(condition.shape)))
    with pytest.raises(ValueError, match=f"^a condition of 2 samples cannot be of shape {shape}$"):
        told.sample(2, condition=condition, progress=False)
    message = f"^Told is told a condition of each of 2 samples, got one of shape {shape}$"
    with pytest.raises(ValueError, match=message):
        told.loss({"x0": batch(2)["x0"], "condition": condition}, SampleNoise(0, [0, 1]))


def test_what_the_network_refuses_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^an embedding must be \(b, 2\), got \(4, 3\)$"):
        model().sample(4, condition=torch.zeros(4, 3), progress=False)
    labels = torch.zeros(2, 3).long()
    with pytest.raises(ValueError, match=r"must be labels, integers of shape \(b\), got"):
        tiny(UNet(channels=(4,), num_classes=3)).sample(2, condition=labels, progress=False)


@torch.no_grad()
def test_dicts_and_pairs_are_the_same_batch() -> None:
    told, data = model().eval(), batch(6)
    x0, condition = data["x0"], data["condition"]
    forms = (
        data,
        {"index": torch.arange(6), **data},
        (x0, condition),
        [x0, condition],
        (x0 / 255, condition),  # floats from 0 to 1, as torchvision's ToTensor gives them
    )
    expected = told.loss(data, SampleNoise(0, range(6)))
    for form in forms:
        torch.testing.assert_close(told.loss(form, SampleNoise(0, range(6))), expected)
    unconditional = tiny().eval()  # is told none, whether the batch has one or not
    expected = unconditional.loss(data, SampleNoise(0, range(6)))
    for form in ({"x0": x0}, (x0, condition), (x0, None)):
        torch.testing.assert_close(unconditional.loss(form, SampleNoise(0, range(6))), expected)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (BATCH["x0"], "a Tensor"),
        ((BATCH["x0"],), "a tuple"),
        ((BATCH["x0"], BATCH["condition"], BATCH["index"]), "a tuple"),
        ({"image": BATCH["x0"], "label": BATCH["condition"]}, "a dict with image, label"),
        ({"x0": BATCH["x0"].numpy()}, "a dict with x0"),
        ((BATCH["x0"], [1] * 60), "a tuple"),
        ("x0", "a str"),
        (None, "a NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_batch_of_another_form_is_refused(wrong, found: str) -> None:
    contract = "a batch must be a dict of tensors x0 and, if any, condition and index, or a pair"
    with pytest.raises(ValueError, match=f"^{contract} .*; got {found}$"):
        tiny().loss(wrong, SampleNoise(0, range(60)))


def test_data_of_another_shape_and_a_missing_condition_are_refused() -> None:
    noise = SampleNoise(0, range(2))
    wide = torch.zeros(2, 1, 4, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\) of the model .* \(1, 4, 8\)"):
        tiny().loss({"x0": wide}, noise)
    with pytest.raises(ValueError, match="Told is told a condition of each of 2 samples, got none"):
        model().loss({"x0": batch(2)["x0"]}, noise)
