"""What is known stays, and the rest is drawn given it."""

import itertools

import numpy as np
import pytest
import torch
from test_networks import randomised
from torch.nn import functional as F
from toys import Waves

from lightning_ddpm import Diffusion
from lightning_ddpm.editing import cascade
from lightning_ddpm.networks import Network, UNet
from lightning_ddpm.noise import BatchNoise, SampleNoise
from lightning_ddpm.observation import Given, Holes, LowResolution, Observation
from lightning_ddpm.samplers import DDIM, Ancestral, Sampler
from lightning_ddpm.schedule import LinearSchedule

LENGTH, KNOWN, CORRELATION = 6, 4, 0.8
IMAGES = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Beginning(Observation):
    """The first values of a series are known."""

    def draw(self, x0, noise, batch=None) -> Given:
        return Given(x0, (torch.arange(x0.shape[2]) < KNOWN).expand_as(x0))

    def naive(self, given, train) -> torch.Tensor:
        return given.values


class Bayes(Network):
    """The noise in an autoregressive series, of which what is seen as known has none."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = LinearSchedule()
        place = torch.arange(LENGTH)
        prior = CORRELATION ** (place - place[:, None]).abs()
        self.gain = prior[KNOWN:, :KNOWN] @ prior[:KNOWN, :KNOWN].inverse()
        self.left = prior[KNOWN:, KNOWN:] - self.gain @ prior[:KNOWN, KNOWN:]

    def forward(self, x_t, t, condition=None) -> torch.Tensor:
        seen, known = x_t.unbind(1)
        assert known.equal((torch.arange(LENGTH) < KNOWN) * known.any(1, keepdim=True))
        alpha, sigma = (value[0] for value in self.schedule.alpha_sigma(t))
        mean = seen[:, :KNOWN] @ self.gain.T
        cov = alpha**2 * self.left + sigma**2 * torch.eye(LENGTH - KNOWN)
        x0 = mean + (seen[:, KNOWN:] - alpha * mean) @ (alpha * self.left @ cov.inverse()).T
        return F.pad((seen[:, KNOWN:] - alpha * x0) / sigma, (KNOWN, 0))[:, None]


VALUES = torch.tensor([1.0, -0.5, 0.3, 2.0, 0.0, 0.0])


def drawn_given_what_is_known(sampler: Sampler, **options: float) -> tuple[Bayes, torch.Tensor]:
    """The network, and what it makes of the end of 4,000 series with the same beginning."""
    network, n = Bayes(), 4000
    model = Diffusion(
        network,
        network.schedule,
        medium=Waves(),
        observation=Beginning(),
        shape=(1, LENGTH),
        **options,
    )
    values = VALUES.expand(n, 1, LENGTH)
    given = Beginning().draw(values, SampleNoise(0, range(n)))
    x0 = model.sample(n, given=given, sampler=sampler, progress=False)
    assert x0[:, :, :KNOWN].equal(values[:, :, :KNOWN])
    return network, x0[:, 0, KNOWN:]


def test_samples_follow_bayes_rule_given_what_is_known() -> None:
    network, rest = drawn_given_what_is_known(Ancestral(250))
    mean = network.gain @ VALUES[:KNOWN]
    torch.testing.assert_close(mean[0], torch.tensor(2.0 * CORRELATION))  # Markov
    torch.testing.assert_close(rest.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(rest.T.cov(), network.left, atol=0.03, rtol=0)


def test_temperature_scales_how_far_samples_are_from_their_mean() -> None:
    network, rest = drawn_given_what_is_known(DDIM(400), temperature=1.5)
    torch.testing.assert_close(rest.mean(0), network.gain @ VALUES[:KNOWN], atol=0.04, rtol=0)
    torch.testing.assert_close(rest.T.cov(), 1.5**2 * network.left, atol=0.06, rtol=0)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        Diffusion(UNet(channels=(8, 16)), temperature=0.0)


def test_what_is_known_costs_nothing_and_the_rest_its_squared_error() -> None:
    model = Diffusion(UNet(2, (8, 16), out_channels=1), observation=Holes())
    given = Holes().draw(IMAGES, SampleNoise(0, range(8)))
    t, noise, outputs = torch.arange(8) * 100, torch.randn_like(IMAGES), []
    model.network.register_forward_hook(lambda *call: outputs.append(call[2]))
    loss = model.denoising_loss(IMAGES, t, noise, None, given)
    (output,) = outputs
    for i in range(8):
        asked = ~given.known[i]
        expected = (output[i] - noise[i])[asked].square().sum() / 784
        torch.testing.assert_close(loss[i], expected)


def test_where_nothing_is_known_the_model_is_unconditional() -> None:
    model = Diffusion(UNet(2, (8, 16), out_channels=1), observation=Holes(), condition_dropout=1.0)
    torch.nn.init.normal_(model.network.head.weight)
    batch, noise = {"x0": (IMAGES + 1) / 2}, [SampleNoise(0, range(8)) for _ in range(2)]
    dropped = model.loss(batch, noise[0])
    t = (noise[1].uniform() * 1000).long()
    with torch.no_grad():
        alone = model.denoising_loss(IMAGES, t, noise[1].like(IMAGES))
        given = Holes().draw(IMAGES, noise[1])
        told = model.denoising_loss(IMAGES, t, SampleNoise(0, range(8)).like(IMAGES), None, given)
    torch.testing.assert_close(dropped, alone)
    assert not torch.allclose(told, alone)


def test_holes_are_boxes_halves_and_strokes_of_each_image_s_own() -> None:
    n = 3000
    holes = ~Holes().draw(torch.zeros(n, 1, 28, 28), SampleNoise(0, range(n))).known[:, 0]
    quarters = torch.stack([holes[:, :14, :14], holes[:, :14, 14:], holes[:, 14:, :14]])
    full = (quarters.flatten(2).float().mean(2) == quarters.flatten(2)[..., 0]).all(0)
    halves = full & (holes.flatten(1).sum(1) == 392)
    rows, columns = holes.any(2).sum(1), holes.any(1).sum(1)
    boxes = (rows * columns == holes.flatten(1).sum(1)) & ~halves
    assert halves.float().mean().item() == pytest.approx(1 / 3, abs=0.03)
    assert boxes.float().mean().item() == pytest.approx(1 / 3, abs=0.04)
    assert rows[boxes].min() >= 8
    assert rows[boxes].max() <= 20
    share = holes.flatten(1).float().mean(1)
    assert share.min() > 0
    assert share.max() < 0.7
    again = Holes().draw(torch.zeros(2, 1, 28, 28), SampleNoise(0, [1, 2999]))
    assert again.known[:, 0].equal(~holes[[1, 2999]])


def test_strokes_are_what_is_near_a_segment() -> None:
    noise = SampleNoise(0, range(300))
    u = torch.special.ndtr(SampleNoise(0, range(300)).draw((17,)))
    known = Holes().draw(torch.zeros(300, 1, 28, 28), noise).known[:, 0]
    places = torch.stack(torch.meshgrid(*[(torch.arange(28) + 0.5) / 28] * 2, indexing="ij"), -1)
    along = torch.linspace(0, 1, 500)[:, None, None, None]
    for i in (u[:, 16] > 2 / 3).nonzero()[:5, 0].tolist():
        ends = u[i, 4:16].reshape(3, 2, 2)
        on = ends[:, 0] * (1 - along[..., 0]) + ends[:, 1] * along[..., 0]  # (500, 3, 2)
        distance = (places[:, :, None] - on.reshape(-1, 2)).norm(dim=-1).amin(-1)
        clear = (distance - 0.09).abs() > 1e-3
        assert ((distance < 0.09) == ~known[i])[clear].all()


def test_small_images_are_means_of_squares_as_bytes() -> None:
    observation = LowResolution(4)
    given = observation.draw(IMAGES, SampleNoise(0, range(8)))
    small = observation.shown(given)["given"]
    for i, y, x in itertools.product(range(8), range(7), range(7)):
        square = IMAGES[i, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        level = round((square.double().mean().item() + 1) * 127.5)
        assert small[i, 0, y, x].item() == pytest.approx(level / 127.5 - 1, abs=1 / 127)
        assert given.extra is not None
        assert (given.extra[i, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] == small[i, 0, y, x]).all()
    assert ((small + 1) * 127.5 - ((small + 1) * 127.5).round()).abs().max() < 1e-4
    assert not given.known.any()


@pytest.mark.parametrize("observation", [Holes(), LowResolution(4)])
def test_images_are_learned_as_they_are(observation: Observation) -> None:
    assert observation.draw(IMAGES, SampleNoise(0, range(8))).values.equal(IMAGES)


def test_a_hole_s_baseline_is_the_nearest_training_image() -> None:
    train = torch.rand(50, 1, 28, 28) * 2 - 1
    given = Holes().draw(IMAGES, SampleNoise(0, range(8)))
    naive = Holes().naive(given, train)
    for i in range(8):
        known = given.known[i]
        nearest = min(train, key=lambda image: (image - IMAGES[i])[known].square().sum().item())
        assert naive[i].equal(torch.where(known, IMAGES[i], nearest))


def test_processes_draw_the_holes_of_one() -> None:
    def holes(size: int, *process: int) -> torch.Tensor:
        noise = BatchNoise(torch.Generator().manual_seed(0), size, *process)
        return Holes().draw(torch.zeros(size, 1, 28, 28), noise).known

    assert torch.stack([holes(4, rank, 2) for rank in (0, 1)], dim=1).flatten(0, 1).equal(holes(8))


def test_labels_and_guidance_work_beside_what_is_known() -> None:
    network = UNet(2, (8, 16), out_channels=1, num_classes=10)
    randomised(network)
    model = Diffusion(network, observation=Holes())
    given = Holes().draw(IMAGES, SampleNoise(0, range(8)))
    label, x_t, t = torch.arange(8), torch.randn_like(IMAGES), torch.full((8,), 400)
    with torch.no_grad():
        seen = torch.cat([torch.where(given.known, IMAGES, x_t), given.known.float()], dim=1)
        strong, weak = network(seen, t, label), network(seen, t)
        assert (strong - weak).abs().max() > 1e-3
        denoise = model.denoiser(label, 2.0, given)
        torch.testing.assert_close(denoise.predict(x_t, t), 2 * strong - weak)
        assert given.paste(denoise(x_t, t).x0).equal(denoise(x_t, t).x0)


def test_a_cascade_makes_larger_images_of_smaller_ones() -> None:
    small = Diffusion(UNet(1, (8, 16)), sampler=DDIM(2), shape=(1, 14, 14))
    large = Diffusion(
        UNet(3, (8, 16), out_channels=1), sampler=DDIM(2), observation=LowResolution(2)
    )
    torch.nn.init.normal_(large.network.head.weight, std=0.1)
    made = cascade(small, large, n=3, seed=5)
    base = small.medium.encode(small.medium.decode(small.sample(3, seed=5)))
    expected = large.sample(3, given=LowResolution(2).of(base), seed=5)
    torch.testing.assert_close(made, expected)
    assert made.shape == (3, 1, 28, 28)
    with pytest.raises(ValueError, match=r"\(1, 56, 56\) are not the images"):
        cascade(large, large)
    with pytest.raises(ValueError, match="LowResolution"):
        cascade(small, small)


def test_stages_have_noise_of_their_own() -> None:
    first, second = (SampleNoise(3, [7], stage).draw((1, 14, 14)) for stage in (0, 784))
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]) < 0.3
    philox = np.random.Generator(np.random.Philox(key=[3, 7]))
    assert (first[0].numpy() == philox.standard_normal((1, 14, 14), dtype=np.float32)).all()


def test_what_does_not_fit_is_refused() -> None:
    given = Holes().draw(IMAGES, SampleNoise(0, range(8)))
    model = Diffusion(UNet(2, (8, 16), out_channels=1), observation=Holes())
    for observation in (Holes(), LowResolution()):
        with pytest.raises(ValueError, match=r"is for images \(c, h, w\)"):
            Diffusion(UNet(2, (8, 16), out_channels=1), observation=observation, shape=(1, 16))
    with pytest.raises(ValueError, match="without observation"):
        Diffusion(UNet(channels=(8, 16))).sample(8, given=given)
    with pytest.raises(ValueError, match="2 are known of, and 3 asked for"):
        model.sample(3, given=given[:2])
    assert model.sample(given=given[:2], sampler=DDIM(2), progress=False).shape[0] == 2
    with pytest.raises(ValueError, match=r"Holes makes 2 channels \(in_channels\)"):
        Diffusion(UNet(channels=(8, 16)), observation=Holes())
    with pytest.raises(ValueError, match="take a fixed one"):
        Diffusion(UNet(2, (8, 16), out_channels=2), variance="learned", observation=Holes())
    with pytest.raises(ValueError, match="at least 2"):
        LowResolution(1)
    with pytest.raises(ValueError, match="do not divide by factor 5"):
        LowResolution(5).draw(IMAGES, SampleNoise(0, range(8)))
