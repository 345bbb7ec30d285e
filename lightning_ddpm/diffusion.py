"""What a diffusion model is: its parts, its loss and its samples, without a Trainer."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_ddpm.denoiser import Denoiser, Variance
from lightning_ddpm.guidance import GuidedNetwork
from lightning_ddpm.hardware import sampling_batch
from lightning_ddpm.likelihood import bound_term
from lightning_ddpm.networks import Network
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import Target, Weighting, squared_error
from lightning_ddpm.samplers import Sampler
from lightning_ddpm.schedule import NoiseSchedule
from lightning_ddpm.shapes import Images, Labels, Mask, PerSample, TimeSteps, expand_like

GRID_IMAGES = 16
GUIDANCE = 2.0  # the scale, where the model has none of its own
HYBRID_WEIGHT = 0.001  # of the bound beside the squared error, where the variance is learned


class Diffusion(nn.Module):
    """The mathematics of ``DiffusionLightningModule``, which owns and documents the parts."""

    network: Network
    schedule: NoiseSchedule
    target: Target
    sampler: Sampler
    weighting: Weighting
    variance: Variance
    labels: Sequence[int] | None
    guidance: float | None
    guidance_interval: tuple[float, float]
    image_shape: tuple[int, ...]

    def loss(
        self,
        x0: Images,
        t: TimeSteps,
        noise: Images,
        label: Labels | None = None,
        weak: Mask | None = None,
    ) -> PerSample:
        """The loss (b) of each image, noised to ``t`` (b) with ``noise`` (b, c, h, w).

        ``weak`` (b) are the images for the network's weaker self, if it has one.
        """
        x_t = self.schedule.add_noise(x0, noise, t)
        output = self.network(x_t, t, label, *([] if weak is None else [weak]))
        alpha, sigma = self.schedule.alpha_sigma(t)
        target = self.target.target(x0, noise, expand_like(alpha, x0), expand_like(sigma, x0))
        c = x0.shape[1]
        error = squared_error(output[:, :c], target)
        loss = self.weighting.weight(self.target, alpha, sigma) * error
        if self.variance == "learned":
            # Only the variance learns from the bound (Nichol and Dhariwal 2021, eq. 16).
            output = torch.cat([output[:, :c].detach(), output[:, c:]], dim=1)
            prediction = self.denoiser().read(output, x_t, t)
            term = bound_term(prediction, self.schedule, x0, x_t, t)
            loss = loss + HYBRID_WEIGHT * self.schedule.T * term
        return loss

    def labels_of(
        self, indices: Sequence[int], labels: Sequence[int] | None = None
    ) -> Labels | None:
        """The class (b) of each sample, on the model's device; None if the model knows none.

        Raises:
            ValueError: if ``labels`` are not the model's.
        """
        labels, classes = self.labels if labels is None else labels, self.network.num_classes
        if labels is None and classes == 0:
            return None
        if classes == 0:
            raise ValueError("labels cannot be asked of a model that was trained without them")
        labels = list(range(classes)) if labels is None else labels
        if not labels or not all(0 <= label < classes for label in labels):
            raise ValueError(f"labels must be from 0 to {classes - 1}, got {labels}")
        label = torch.tensor([labels[index % len(labels)] for index in indices])
        return label.to(self.schedule.alpha.device)

    def denoiser(self, label: Labels | None = None, guidance: float | None = None) -> Denoiser:
        """What samplers and editing see of the model: ``denoise(x_t, t)``, in float32.

        Args:
            label: the class of each image (b); -1, or None, is unknown.
            guidance: scale of guidance; the model's if not given.

        Raises:
            ValueError: if ``guidance`` is asked of a model that was not trained for it.
        """
        network = self.network
        prepared = network.num_classes > 0 or network.weak_dropout > 0
        scale = self.guidance if guidance is None else guidance
        if scale is None:
            scale = GUIDANCE if prepared else 1.0
        if scale != 1 and not prepared:
            raise ValueError(
                "guidance cannot be asked of a model that was trained without labels and without "
                "weak_dropout"
            )
        if network.num_classes == 0 or label is not None:
            low, high = (part * self.schedule.T for part in self.guidance_interval)
            network = GuidedNetwork(network, label, scale, (low, high))
        return Denoiser(network, self.schedule, self.target, self.variance)

    @torch.no_grad()
    def sample(
        self,
        samples: int | Sequence[int] = GRID_IMAGES,
        *,
        labels: int | Sequence[int] | None = None,
        guidance: float | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
        progress: bool = True,
        frames: int | None = None,
    ) -> Images | Float[Tensor, "b frames c h w"]:
        """Generate images (b, c, h, w) in [-1, 1] (Algorithm 2 of Ho et al. 2020).

        As many at once as suit the device, and fewer where its memory is too small.

        Args:
            samples: how many, or the index of each. Image ``index`` of ``seed`` gets the same noise
                in any batch and on any device.
            labels: a class for all of them, or classes that image 0, 1, 2... get in turn; the
                model's if not given.
            guidance: scale of guidance; the model's if not given.
            sampler: the way from noise to images; the model's if not given.
            seed: the seed of all noise, not negative.
            generator: draws a new seed, if given.
            progress: whether to show a progress bar.
            frames: how many images to return of the way from noise to each image, as (b, frames, c,
                h, w), evenly spaced; the image alone if not given.

        Raises:
            ValueError: if labels or guidance are asked of a model that was not trained for them, a
                label is not one of the model's, the sampler has more steps than the schedule,
                ``frames`` is below 2, or no samples are asked for.
        """
        indices = range(samples) if isinstance(samples, int) else samples
        if len(indices) == 0:
            raise ValueError("at least one sample must be asked for")
        device = self.schedule.alpha.device
        label = self.labels_of(indices, [labels] if isinstance(labels, int) else labels)
        if generator is not None:
            draw = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
            seed = int(draw)
        sampler = sampler or self.sampler
        size = min(len(indices), sampling_batch(device.type, self.image_shape))
        was_training, images = self.network.training, []
        self.network.eval()
        try:
            i = 0
            while i < len(indices):
                part = slice(i, i + size)
                noise = SampleNoise(seed, indices[part])
                denoise = self.denoiser(None if label is None else label[part], guidance)
                try:
                    x = noise.draw(self.image_shape).to(device)
                    x = sampler.sample(
                        denoise, self.schedule, x, noise, progress=progress, frames=frames
                    )
                except torch.OutOfMemoryError:
                    if size == 1:
                        raise
                    size //= 2
                    warnings.warn(f"out of memory: sampling {size} images at once", stacklevel=2)
                    continue
                images.append(x)
                i += size
        finally:
            self.network.train(was_training)
        return torch.cat(images)
