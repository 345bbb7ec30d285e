"""What is done with a model: inpainting, image-to-image, interpolation, and cascades.

Samples are x0 (b, c, *spatial), as images in [-1, 1]; ``denoise`` is ``model.denoiser()``. Sample
number i of the batch gets the noise of sample i of ``seed``.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch.nn import functional as F

from lightning_ddpm.denoiser import Denoise
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.observation import LowResolution
from lightning_ddpm.samplers import DDIM, Sampler
from lightning_ddpm.shapes import Samples, expand_like


@torch.no_grad()
def inpaint(
    denoise: Denoise,
    images: Samples,
    mask: Samples,
    sampler: Sampler,
    rounds: int = 10,
    seed: int = 0,
) -> Samples:
    """Make up what the mask leaves open (RePaint, Lugmayr et al. 2022, 2201.09865, algorithm 1).

    Args:
        denoise: the model.
        images: what is known.
        mask: 1 where ``images`` are known and stay, 0 where they are made up; in their shape.
        sampler: the way from noise to images; stochastic ones fit in better.
        rounds: how often each step is taken, the paper's U; more make a better fit.
        seed: the seed of all noise.

    Raises:
        ValueError: if ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    schedule, noise = denoise.schedule, SampleNoise(seed, range(len(images)))
    x, state = noise.like(images), None
    for t, s in pairwise(map(torch.tensor, sampler.timesteps(schedule))):
        for repeat in reversed(range(rounds)):
            unknown, state = sampler.step(denoise, x, t, s, state, noise)
            known = schedule.add_noise(images, noise.like(images), s)
            x = mask * known + (1 - mask) * unknown
            if repeat == 0 or s < 0:
                break
            alpha, variance = schedule.transition(t, s)
            x, state = alpha * x + variance.sqrt() * noise.like(x), None  # no way from before
    return x


@torch.no_grad()
def image_to_image(
    denoise: Denoise,
    images: Samples,
    sampler: Sampler,
    strength: float = 0.5,
    seed: int = 0,
) -> Samples:
    """Noise the images part of the way, and denoise them (SDEdit, Meng et al. 2021, 2108.01073).

    Args:
        denoise: the model.
        images: what to start from: sketches, strokes, other digits.
        sampler: the way from noise to images, of which the last steps are taken, from the time
            step that ``strength`` names on.
        strength: how far towards pure noise, from 0, which changes nothing, to 1.
        seed: the seed of all noise.

    Raises:
        ValueError: if ``strength`` is out of range.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be from 0 to 1, got {strength}")
    schedule, noise = denoise.schedule, SampleNoise(seed, range(len(images)))
    start = round(strength * schedule.T) - 1
    if start < 0:
        return images
    times = [start, *(t for t in sampler.timesteps(schedule) if t < start)]
    x = schedule.add_noise(images, noise.like(images), torch.tensor(start))
    return sampler.sample(denoise, x, noise, times)


@torch.no_grad()
def invert(denoise: Denoise, images: Samples, steps: int = 100, rounds: int = 5) -> Samples:
    """The noise x_T from which ``DDIM(steps)`` makes these images (Song et al. 2020, section 4.3).

    Each step is turned round by fixed-point iteration: x_t is found from x_s and what the model
    sees in x_t itself. With one round it is seen in x_s, the usual approximation. Where noise
    prevails the image is taken, and elsewhere the noise: what depends less on x_t converges faster.

    Args:
        denoise: the model.
        images: to be inverted.
        steps: number of steps of DDIM.
        rounds: iterations for each step.

    Raises:
        ValueError: if ``rounds`` is below 1, or ``steps`` is not between 1 and T.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    x, schedule = images, denoise.schedule
    for s, t in pairwise(map(torch.tensor, reversed(DDIM(steps).timesteps(schedule)))):
        x_s, (alpha_s, sigma_s) = x, schedule.alpha_sigma(s)
        for _ in range(rounds):
            x0, noise, _ = denoise(x, t)
            if sigma_s > alpha_s:
                noise = (x_s - alpha_s * x0) / sigma_s
            else:
                x0 = (x_s - sigma_s * noise) / alpha_s
            x = schedule.add_noise(x0, noise, t)
    return x


@torch.no_grad()
def interpolate(
    denoise: Denoise,
    start: Samples,
    end: Samples,
    fractions: Sequence[float],
    steps: int = 100,
) -> list[Samples]:
    """Images on the way from ``start`` to ``end``, through the noise that DDIM makes them from.

    Both are inverted, and the noise is interpolated on the sphere (Song et al. 2020, section 5.3).

    Args:
        denoise: the model.
        start: images at fraction 0, up to the error of the inversion.
        end: images at fraction 1, in the shape of ``start``.
        fractions: how far to go, each from 0 to 1.
        steps: number of steps of DDIM.

    Returns:
        Images of the shape of ``start`` for each fraction.
    """
    a, b = (invert(denoise, images, steps) for images in (start, end))
    cosine = F.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1)
    angle = expand_like(cosine.acos().clamp(min=1e-4), a)
    mixtures = [
        (((1 - f) * angle).sin() * a + (f * angle).sin() * b) / angle.sin() for f in fractions
    ]
    sampler, noise = DDIM(steps), SampleNoise(0, range(len(a)))
    return [sampler.sample(denoise, x_T, noise) for x_T in mixtures]


def cascade(base: Diffusion, *larger: Diffusion, n: int = 16, seed: int = 0) -> Samples:
    """Samples of ``base``, made larger by one model after the other (Ho et al. 2021, 2106.15282).

    Args:
        base: a model of small images.
        larger: models of larger images, each with the ``LowResolution`` that the one before gives.
        n: how many.
        seed: the seed of all noise.

    Raises:
        ValueError: if a model does not make larger images of those before it.
    """
    shape, stages = base.shape, []
    for model in larger:
        observation = model.observation
        if not isinstance(observation, LowResolution):
            raise ValueError("a cascade needs models that were trained with LowResolution")
        c, *spatial = shape
        made, shape = (c, *(size * observation.factor for size in spatial)), model.shape
        if made != shape:
            raise ValueError(f"{made} are not the images that the next model makes, {shape}")
        stages.append((model, observation))
    x0, before = base.sample(n, seed=seed), base
    for model, observation in stages:
        small = model.medium.encode(before.medium.decode(x0))
        x0, before = model.sample(given=observation.of(small), seed=seed), model
    return x0
