import math

import pytest
import torch
from gaussian import SHAPES, Known, each_shape, ideal_denoiser, probability_flow

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.editing import image_to_image, inpaint, interpolate, invert
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver, Sampler
from lightning_ddpm.schedule import CosineSchedule, LinearSchedule, NoiseSchedule, RectifiedFlow

SCHEDULE = LinearSchedule()
MEAN, STD = 0.2, 0.4
DENOISE = ideal_denoiser(SCHEDULE, MEAN, STD)
IMAGES = MEAN + STD * torch.randn(50, 1, 4, 4)


def drawn(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Samples of the data that ``DENOISE`` knows."""
    return MEAN + STD * torch.randn(n, *shape)


def pairs(correlation: float) -> Denoise:
    """The ideal denoiser of pairs of values, of unit variance, that are correlated."""
    covariance = torch.tensor([[1, correlation], [correlation, 1]])

    def x0(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        gain = alpha * covariance @ torch.inverse(alpha**2 * covariance + sigma**2 * torch.eye(2))
        return (x_t.reshape(-1, 2) @ gain.T).reshape(x_t.shape)

    return Known(SCHEDULE, x0)


@pytest.mark.parametrize(
    ("sampler", "shape"),
    [*zip([Ancestral(20), DDIM(20), DPMSolver(10), Ancestral(20)], SHAPES, strict=True)],
)
def test_inpainting_keeps_what_is_known(sampler: Sampler, shape: tuple[int, ...]) -> None:
    samples = drawn(50, shape)
    mask = torch.zeros_like(samples)
    mask[..., :2] = 1
    filled = inpaint(DENOISE, samples, mask, sampler, rounds=2)
    assert filled[..., :2].equal(samples[..., :2])
    assert (filled - samples)[..., 2:].abs().mean() > 0.1
    everything = torch.ones_like(samples)
    assert inpaint(DENOISE, samples, everything, sampler, rounds=1).equal(samples)


@each_shape
def test_inpainting_shows_what_is_known_as_noisy_as_the_rest(shape: tuple[int, ...]) -> None:
    # Oracle: q(x_t | x_0), whatever the round: what is known, less its signal, is noise alone.
    samples, seen = drawn(4000 // math.prod(shape), shape), []

    def x0(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = SCHEDULE.alpha_sigma(t)
        seen.append(((x_t - alpha * samples) / sigma).flatten())
        return samples

    known = Known(SCHEDULE, x0)
    inpaint(known, samples, torch.ones_like(samples), Ancestral(6), rounds=3)
    assert len(seen) == 5 * 3 + 1
    for noise in seen[3:]:  # the first are from pure noise
        error = 5 / math.sqrt(len(noise))
        assert noise.mean().item() == pytest.approx(0, abs=error)
        assert noise.std().item() == pytest.approx(1, abs=error)


def test_inpainting_fits_what_is_known_the_better_the_more_rounds() -> None:
    # Oracle: of two values with correlation r, the unknown one is N(r known, 1 - r^2).
    known = torch.randn(4, 1000)
    samples = torch.stack([known, torch.zeros_like(known)], 2)  # (b, pairs, 2)
    mask = torch.tensor([1.0, 0.0]).expand_as(samples)
    slopes = []
    for rounds in (1, 10):
        filled = inpaint(pairs(0.8), samples, mask, Ancestral(150), rounds)[..., 1]
        slopes.append(((filled * known).mean() / known.square().mean()).item())
    residual = (filled - 0.8 * known).std().item()
    assert slopes[1] == pytest.approx(0.8, abs=0.05)
    assert abs(slopes[0] - 0.8) > 2 * abs(slopes[1] - 0.8)
    assert residual == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("shape", "strength"), [*zip(SHAPES, (0.1, 0.3, 0.6, 1.0), strict=True)], ids=str
)
def test_image_to_image_goes_from_the_sample_to_a_new_one(
    shape: tuple[int, ...], strength: float
) -> None:
    # Oracle: on Gaussian data, with values of variance s^2, a sample that was noised to alpha and
    # sigma and drawn anew from its posterior has correlation alpha^2 s^2 / (alpha^2 s^2 + sigma^2).
    samples = drawn(16_000 // math.prod(shape), shape)
    edited = image_to_image(DENOISE, samples, Ancestral(250), strength)
    t = torch.tensor(round(strength * 250) * 4 - 1)
    alpha, sigma = (value.item() for value in SCHEDULE.alpha_sigma(t))
    expected = alpha**2 * STD**2 / (alpha**2 * STD**2 + sigma**2)
    stacked = torch.stack([edited.flatten(), samples.flatten()])
    assert torch.corrcoef(stacked)[0, 1].item() == pytest.approx(expected, abs=0.03)
    assert image_to_image(DENOISE, samples, Ancestral(250), 0.0).equal(samples)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_impossible_strength_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be from 0 to 1"):
        image_to_image(DENOISE, IMAGES, DDIM(10), strength)


def test_impossible_rounds_are_refused() -> None:
    for edit in (
        lambda: inpaint(DENOISE, IMAGES, IMAGES, DDIM(10), rounds=0),
        lambda: invert(DENOISE, IMAGES, rounds=0),
    ):
        with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
            edit()


@each_shape
def test_inversion_finds_the_noise_and_reconstructs(shape: tuple[int, ...]) -> None:
    # Oracle: the probability flow, which DDIM approximates, and the samples themselves.
    samples, noise = drawn(50, shape), SampleNoise(0, range(50))
    x_T = invert(DENOISE, samples, steps=50)
    exact = probability_flow(SCHEDULE, samples, -1, 999, MEAN, STD)
    assert (x_T - exact).abs().mean() < 0.1
    again = DDIM(50).sample(DENOISE, x_T, noise)
    assert (again - samples).abs().max() < 1e-3
    usual = invert(DENOISE, samples, steps=50, rounds=1)
    worse = DDIM(50).sample(DENOISE, usual, noise)
    assert (worse - samples).abs().max() > 10 * (again - samples).abs().max()


@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(), RectifiedFlow()])
def test_inversion_undoes_ddim(schedule: NoiseSchedule) -> None:
    noise, denoise = SampleNoise(3, range(20)), ideal_denoiser(schedule, MEAN, STD)
    x_T = noise.draw((2, 4, 4))
    samples = DDIM(50).sample(denoise, x_T, noise)
    assert (invert(denoise, samples, steps=50) - x_T).abs().max() < 1e-2


@each_shape
def test_interpolation_goes_from_one_to_the_other(shape: tuple[int, ...]) -> None:
    samples = drawn(50, shape)
    start, end = samples[:25], samples[25:]
    first, middle, last = interpolate(DENOISE, start, end, [0.0, 0.5, 1.0], steps=50)
    assert (first - start).abs().max() < 1e-2
    assert (last - end).abs().max() < 1e-2
    # Halfway between two draws a straight mixture would lose a factor of sqrt(2) in spread.
    assert middle.std().item() == pytest.approx(STD, rel=0.15)
    assert (middle - start).abs().mean() > 0.1


def test_interpolation_of_an_image_with_itself_stays() -> None:
    (middle,) = interpolate(DENOISE, IMAGES, IMAGES, [0.5], steps=50)
    assert (middle - IMAGES).abs().max() < 1e-2


@each_shape
def test_edits_are_samples_seed_by_seed(shape: tuple[int, ...]) -> None:
    samples = drawn(5, shape)
    mask = torch.zeros_like(samples)
    for edit in (
        lambda x, seed: inpaint(DENOISE, x, mask[: len(x)], Ancestral(5), 2, seed),
        lambda x, seed: image_to_image(DENOISE, x, Ancestral(10), 0.5, seed),
    ):
        torch.testing.assert_close(edit(samples, 1)[:3], edit(samples[:3], 1))
        assert not torch.allclose(edit(samples, 1), edit(samples, 2))


def test_inpainting_of_a_flow_starts_from_pure_noise() -> None:
    # Its first time step has no signal, from which no forward step could be undone.
    denoise, mask = ideal_denoiser(RectifiedFlow(), MEAN, STD), torch.zeros_like(IMAGES)
    mask[..., :2] = 1
    filled = inpaint(denoise, IMAGES, mask, Ancestral(20), rounds=2)
    assert filled[..., :2].equal(IMAGES[..., :2])
    assert filled.isfinite().all()


@pytest.mark.parametrize(
    ("sampler", "shape"),
    [*zip([DPMSolver(12), DDIM(12), DPMSolver(40), DPMSolver(12)], SHAPES, strict=True)],
)
def test_inpainting_nothing_known_is_sampling(sampler: Sampler, shape: tuple[int, ...]) -> None:
    # Oracle: the sampler, which keeps what it knows of the steps before.
    noise = SampleNoise(3, range(20))
    x_T = noise.draw(shape)
    expected = sampler.sample(DENOISE, x_T, noise)
    nothing = torch.zeros(20, *shape)
    found = inpaint(DENOISE, nothing, nothing, sampler, rounds=1, seed=3)
    torch.testing.assert_close(found, expected)


def test_a_step_after_new_noise_knows_nothing_of_those_before() -> None:
    seen = []

    class Watched(DPMSolver):
        def step(self, denoise, x_t, t, s, state, noise):
            seen.append((int(t), state is not None))
            return super().step(denoise, x_t, t, s, state, noise)

    nothing = torch.zeros(2, 1, 4, 4)
    inpaint(DENOISE, nothing, nothing, Watched(3), rounds=2)
    first, second, third = Watched(3).timesteps(SCHEDULE)[:3]
    assert seen == [(first, False), (first, False), (second, True), (second, False), (third, True)]


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.57, 0.58, 1.0])
def test_image_to_image_starts_at_its_strength(strength: float) -> None:
    # Oracle: q(x_t | x_0) at t = strength T - 1, the time steps being 0 to T - 1.
    images, seen = torch.full((4000, 1), 0.7), []

    def x0(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((int(t), x_t.mean().item(), x_t.std().item()))
        return x_t

    image_to_image(Known(SCHEDULE, x0), images, DDIM(12), strength)
    t, mean, std = seen[0]
    assert t == round(strength * 1000) - 1
    alpha, sigma = (value.item() for value in SCHEDULE.alpha_sigma(torch.tensor(t)))
    assert mean == pytest.approx(alpha * 0.7, abs=4 * sigma / 4000**0.5)
    assert std == pytest.approx(sigma, rel=4 / (2 * 4000) ** 0.5)
