"""Images changed rather than made: inpainting, image-to-image, and interpolation.

Images are (b, c, *spatial) in [-1, 1]; ``denoise`` is ``model.denoiser()`` and ``schedule``
``model.schedule``. Image number i of the batch gets the noise of sample i of ``seed``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch.nn import functional as F

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.samplers import DDIM, Sampler
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, expand_like


@torch.no_grad()
def inpaint(
    denoise: Denoise,
    schedule: NoiseSchedule,
    sampler: Sampler,
    images: Images,
    mask: Images,
    rounds: int = 10,
    seed: int = 0,
) -> Images:
    """Make up what the mask leaves open (RePaint, Lugmayr et al. 2022, 2201.09865, algorithm 1).

    Args:
        denoise: the model.
        schedule: its forward process.
        sampler: the way from noise to images; stochastic ones fit in better.
        images: what is known.
        mask: 1 where ``images`` are known and stay, 0 where they are made up; in their shape.
        rounds: how often each step is taken, the paper's U; more make a better fit.
        seed: the seed of all noise.

    Raises:
        ValueError: if ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    noise = SampleNoise(seed, range(len(images)))

    def draw() -> Images:
        return noise.draw(images.shape[1:]).to(images)

    x = draw()
    for time, next_time in pairwise(sampler.timesteps(schedule)):
        t, s = (torch.full((len(x),), i, device=x.device) for i in (time, next_time))
        for repeat in reversed(range(rounds)):
            unknown, _ = sampler.step(denoise, schedule, x, t, s, None, noise)
            known = schedule.add_noise(images, draw(), s)
            x = mask * known + (1 - mask) * unknown
            if repeat > 0 and next_time >= 0:
                alpha, variance = (expand_like(f, x) for f in schedule.transition(t, s))
                x = alpha * x + variance.sqrt() * draw()
            else:
                break
    return x


@torch.no_grad()
def image_to_image(
    denoise: Denoise,
    schedule: NoiseSchedule,
    sampler: Sampler,
    images: Images,
    strength: float = 0.5,
    seed: int = 0,
) -> Images:
    """Noise the images part of the way, and denoise them (SDEdit, Meng et al. 2021, 2108.01073).

    Args:
        denoise: the model.
        schedule: its forward process.
        sampler: the way from noise to images, of which the last steps are taken.
        images: what to start from: sketches, strokes, other digits.
        strength: how far towards pure noise, from 0, which changes nothing, to 1.
        seed: the seed of all noise.

    Raises:
        ValueError: if ``strength`` is out of range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be from 0 to 1, got {strength}")
    times = [t for t in sampler.timesteps(schedule) if t + 1 <= strength * schedule.T]
    if len(times) < 2:
        return images
    noise = SampleNoise(seed, range(len(images)))
    t = torch.full((len(images),), times[0], device=images.device)
    x = schedule.add_noise(images, noise.draw(images.shape[1:]).to(images), t)
    return sampler.sample(denoise, schedule, x, noise, times)


@torch.no_grad()
def invert(
    denoise: Denoise, schedule: NoiseSchedule, images: Images, steps: int = 100, rounds: int = 5
) -> Images:
    """The noise x_T from which ``DDIM(steps)`` makes these images (Song et al. 2020, section 4.3).

    Each step is turned round by fixed-point iteration: x_t is found from x_s and what the model
    sees in x_t itself. With one round it is seen in x_s, the usual approximation. Where noise
    prevails the image is taken, and elsewhere the noise: what depends less on x_t converges faster.

    Args:
        denoise: the model.
        schedule: its forward process.
        images: to be inverted.
        steps: number of steps of DDIM.
        rounds: iterations for each step.

    Raises:
        ValueError: if ``rounds`` is below 1, or ``steps`` is not between 1 and T.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    x = images
    for time, next_time in pairwise(reversed(DDIM(steps).timesteps(schedule))):
        s, t = (torch.full((len(x),), i, device=x.device) for i in (time, next_time))
        alpha_s, sigma_s = (expand_like(factor, x) for factor in schedule.alpha_sigma(s))
        x_s = x
        for _ in range(rounds):
            x0, noise, _ = denoise(x, t)
            x0 = torch.where(sigma_s > alpha_s, x0, (x_s - sigma_s * noise) / alpha_s)
            noise = torch.where(sigma_s > alpha_s, (x_s - alpha_s * x0) / sigma_s, noise)
            x = schedule.add_noise(x0, noise, t)
    return x


@torch.no_grad()
def interpolate(
    denoise: Denoise,
    schedule: NoiseSchedule,
    start: Images,
    end: Images,
    fractions: Sequence[float],
    steps: int = 100,
) -> list[Images]:
    """Images on the way from ``start`` to ``end``, through the noise that DDIM makes them from.

    Both are inverted, and the noise is interpolated on the sphere (Song et al. 2020, section 5.3).

    Args:
        denoise: the model.
        schedule: its forward process.
        start: images at fraction 0, up to the error of the inversion.
        end: images at fraction 1, in the shape of ``start``.
        fractions: how far to go, each from 0 to 1.
        steps: number of steps of DDIM.

    Returns:
        Images of the shape of ``start`` for each fraction.
    """
    a, b = (invert(denoise, schedule, images, steps) for images in (start, end))
    cosine = F.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = expand_like(cosine.acos().clamp(min=1e-4), a)
    mixtures = [
        (((1 - f) * angle).sin() * a + (f * angle).sin() * b) / angle.sin() for f in fractions
    ]
    sampler, noise = DDIM(steps), SampleNoise(0, range(len(a)))
    return [sampler.sample(denoise, schedule, x_T, noise) for x_T in mixtures]
