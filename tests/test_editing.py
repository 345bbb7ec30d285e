import pytest
import torch
from gaussian import ideal_denoiser, probability_flow

from lightning_ddpm.denoiser import Prediction
from lightning_ddpm.editing import image_to_image, inpaint, interpolate, invert
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM, Ancestral, DPMSolver
from lightning_ddpm.schedule import LinearSchedule

SCHEDULE = LinearSchedule()
MEAN, STD = 0.2, 0.4
DENOISE = ideal_denoiser(SCHEDULE, MEAN, STD)
IMAGES = MEAN + STD * torch.randn(50, 1, 4, 4)


def pairs(correlation: float):
    """The ideal denoiser of pairs of pixels, of unit variance, that are correlated."""
    covariance = torch.tensor([[1, correlation], [correlation, 1]])

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> Prediction:
        alpha, sigma = (value[0] for value in SCHEDULE.alpha_sigma(t))
        gain = alpha * covariance @ torch.inverse(alpha**2 * covariance + sigma**2 * torch.eye(2))
        x0 = (x_t.reshape(-1, 2) @ gain.T).reshape(x_t.shape)
        v = torch.zeros(len(x_t), 1, 1, 1)
        return Prediction(x0, (x_t - alpha * x0) / sigma, v)

    return denoise


@pytest.mark.parametrize("sampler", [Ancestral(20), DDIM(20), DPMSolver(10)])
def test_inpainting_keeps_what_is_known(sampler) -> None:
    mask = torch.zeros_like(IMAGES)
    mask[..., :2] = 1
    filled = inpaint(DENOISE, SCHEDULE, sampler, IMAGES, mask, rounds=2)
    assert filled[..., :2].equal(IMAGES[..., :2])
    assert (filled - IMAGES)[..., 2:].abs().mean() > 0.1
    everything = torch.ones_like(IMAGES)
    assert inpaint(DENOISE, SCHEDULE, sampler, IMAGES, everything, rounds=1).equal(IMAGES)


def test_inpainting_fits_what_is_known_the_better_the_more_rounds() -> None:
    # Oracle: of two pixels with correlation r, the unknown one is N(r known, 1 - r^2).
    known = torch.randn(20, 1, 200)
    images = torch.stack([known, torch.zeros_like(known)], 3)  # (b, c, pairs, 2)
    mask = torch.tensor([1.0, 0.0]).expand_as(images)
    slopes = []
    for rounds in (1, 10):
        filled = inpaint(pairs(0.8), SCHEDULE, Ancestral(200), images, mask, rounds)[..., 1]
        slopes.append(((filled * known).mean() / known.square().mean()).item())
    residual = (filled - 0.8 * known).std().item()
    assert slopes[1] == pytest.approx(0.8, abs=0.05)
    assert abs(slopes[0] - 0.8) > 2 * abs(slopes[1] - 0.8)
    assert residual == pytest.approx(0.6, abs=0.05)


def test_image_to_image_goes_from_the_image_to_a_new_one() -> None:
    # Oracle: on Gaussian data, with pixels of variance s^2, an image that was noised to alpha and
    # sigma and drawn anew from its posterior has correlation alpha^2 s^2 / (alpha^2 s^2 + sigma^2).
    images = MEAN + STD * torch.randn(10, 1, 60, 60)
    for strength in (0.0, 0.1, 0.3, 0.6, 1.0):
        edited = image_to_image(DENOISE, SCHEDULE, Ancestral(500), images, strength)
        t = round(strength * 500) * 2 - 1
        alpha, sigma = (value.item() for value in SCHEDULE.alpha_sigma(torch.tensor([t])))
        expected = alpha**2 * STD**2 / (alpha**2 * STD**2 + sigma**2)
        stacked = torch.stack([edited.flatten(), images.flatten()])
        assert torch.corrcoef(stacked)[0, 1].item() == pytest.approx(expected, abs=0.03)
    assert image_to_image(DENOISE, SCHEDULE, Ancestral(500), images, 0.0).equal(images)


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_impossible_strength_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be from 0 to 1"):
        image_to_image(DENOISE, SCHEDULE, DDIM(10), IMAGES, strength)


def test_impossible_rounds_are_refused() -> None:
    for edit in (
        lambda: inpaint(DENOISE, SCHEDULE, DDIM(10), IMAGES, IMAGES, rounds=0),
        lambda: invert(DENOISE, SCHEDULE, IMAGES, rounds=0),
    ):
        with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
            edit()


def test_inversion_finds_the_noise_and_reconstructs() -> None:
    # Oracle: the probability flow, which DDIM approximates, and the images themselves.
    x_T = invert(DENOISE, SCHEDULE, IMAGES, steps=50)
    exact = probability_flow(SCHEDULE, IMAGES, -1, 999, MEAN, STD)
    assert (x_T - exact).abs().mean() < 0.1
    again = DDIM(50).sample(DENOISE, SCHEDULE, x_T, SampleNoise(0, range(50)))
    assert (again - IMAGES).abs().max() < 1e-3
    usual = invert(DENOISE, SCHEDULE, IMAGES, steps=50, rounds=1)
    worse = DDIM(50).sample(DENOISE, SCHEDULE, usual, SampleNoise(0, range(50)))
    assert (worse - IMAGES).abs().max() > 10 * (again - IMAGES).abs().max()


def test_inversion_undoes_ddim() -> None:
    noise = SampleNoise(3, range(20))
    x_T = noise.draw((1, 4, 4))
    images = DDIM(50).sample(DENOISE, SCHEDULE, x_T, noise)
    assert (invert(DENOISE, SCHEDULE, images, steps=50) - x_T).abs().max() < 1e-2


def test_interpolation_goes_from_one_to_the_other() -> None:
    start, end = IMAGES[:25], IMAGES[25:]
    fractions = [0.0, 0.5, 1.0]
    first, middle, last = interpolate(DENOISE, SCHEDULE, start, end, fractions, steps=50)
    assert (first - start).abs().max() < 1e-2
    assert (last - end).abs().max() < 1e-2
    # Halfway between two draws a straight mixture would lose a factor of sqrt(2) in spread.
    assert middle.std().item() == pytest.approx(STD, rel=0.15)
    assert (middle - start).abs().mean() > 0.1


def test_interpolation_of_an_image_with_itself_stays() -> None:
    (middle,) = interpolate(DENOISE, SCHEDULE, IMAGES, IMAGES, [0.5], steps=50)
    assert (middle - IMAGES).abs().max() < 1e-2


def test_edits_are_images_seed_by_seed() -> None:
    mask = torch.zeros_like(IMAGES)
    for edit in (
        lambda x, seed: inpaint(DENOISE, SCHEDULE, Ancestral(5), x, mask[: len(x)], 2, seed),
        lambda x, seed: image_to_image(DENOISE, SCHEDULE, Ancestral(10), x, 0.5, seed),
    ):
        torch.testing.assert_close(edit(IMAGES, 1)[:3], edit(IMAGES[:3], 1))
        assert not torch.allclose(edit(IMAGES, 1), edit(IMAGES, 2))
