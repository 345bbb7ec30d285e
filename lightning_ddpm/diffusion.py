"""What a diffusion model is: its parts, its loss and its samples, without a Trainer."""

from collections.abc import Sequence
from itertools import chain
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lightning_ddpm.batch import Batch, clean
from lightning_ddpm.condition import condition_of
from lightning_ddpm.denoiser import Denoiser, Variance
from lightning_ddpm.guidance import Guided, Strong, Weak, guidance_scale
from lightning_ddpm.likelihood import bound_term
from lightning_ddpm.media import Images, Medium
from lightning_ddpm.networks import Network, UNet
from lightning_ddpm.noise import Noise, SampleNoise
from lightning_ddpm.objective import (
    NoiseTarget,
    Target,
    TimeSampler,
    UniformTimes,
    UniformWeighting,
    Weighting,
    weighted_error,
)
from lightning_ddpm.observation import Given, Observation, observed
from lightning_ddpm.parts import check
from lightning_ddpm.samplers import Ancestral, Sampler
from lightning_ddpm.samplers.parts import batch_size, in_parts
from lightning_ddpm.schedule import LinearSchedule, NoiseSchedule
from lightning_ddpm.shapes import MNIST_SHAPE, Condition, PerSample, Samples, TimeSteps, expand_like

HYBRID_WEIGHT = 0.001  # of the bound beside the squared error, where the variance is learned


class Diffusion(nn.Module):
    """A denoising diffusion probabilistic model (Ho et al. 2020, arXiv 2006.11239).

    Each part keeps its constructor's arguments as attributes of the same names, so that the model
    can be built again from what is saved with its weights.

    Args:
        network: called as ``network(x_t, t, condition)``; ``UNet()`` if not given.
        schedule: the forward process; ``LinearSchedule()`` if not given.
        target: what the network predicts; ``NoiseTarget()`` if not given.
        sampler: draws the samples; ``Ancestral()`` if not given.
        weighting: what the network's errors cost; ``UniformWeighting()`` if not given.
        time_sampler: which time steps it is trained at; ``UniformTimes()`` if not given.
        variance: of the reverse process: ``small``, ``large`` or ``learned``, see ``Variance``.
        medium: what the data are; ``Images()`` if not given.
        observation: what may be known of samples; nothing if not given.
        shape: of a sample x0, channels first; the data's in a recipe, and MNIST's in Python.
        labels: the classes that samples show in turn; all of them if not given.
        condition_dropout: the part of training samples without condition, or with nothing known.
        guidance: scale of guidance, away from the network without condition or, if it has none,
            from its weaker self; 1 is none. If not given, 2 where the network has either, else 1.
        guidance_interval: the time steps that are guided, from low to below high, as parts of T.
        temperature: scale of the noise that samples start from; above 1 they vary more.

    Raises:
        ValueError: if an argument is out of range, or the parts do not fit together.
        TypeError: if a part could not be built again from its attributes.
    """

    def __init__(
        self,
        network: Network | None = None,
        schedule: NoiseSchedule | None = None,
        target: Target | None = None,
        sampler: Sampler | None = None,
        weighting: Weighting | None = None,
        time_sampler: TimeSampler | None = None,
        variance: Variance = "small",
        medium: Medium | None = None,
        observation: Observation | None = None,
        shape: Sequence[int] | None = None,
        labels: Sequence[int] | None = None,
        condition_dropout: float = 0.1,
        guidance: float | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network or UNet()
        self.schedule = schedule or LinearSchedule()
        self.target = target or NoiseTarget()
        self.sampler = sampler or Ancestral()
        self.weighting = weighting or UniformWeighting()
        self.time_sampler = time_sampler or UniformTimes()
        self.variance: Variance = variance
        self.medium = medium or Images()
        self.observation = observation
        self.shape = tuple(MNIST_SHAPE if shape is None else shape)
        self.labels = labels
        self.condition_dropout = condition_dropout
        self.guidance = guidance
        self.guidance_interval = guidance_interval
        self.temperature = temperature
        check(self)
        self.denoiser(self.condition_of([0]))  # raises now rather than after training

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(chain(self.parameters(), self.buffers(), [torch.empty(0)])).device

    def loss(self, batch: Batch, noise: Noise) -> PerSample:
        """The loss (b) of each sample x0 of a batch: lines 2 to 5 of Algorithm 1.

        All that is random is drawn from ``noise``. In evaluation mode nothing is left out, and all
        time steps count alike.

        Raises:
            ValueError: if the batch has another form, or its data are not the model's.
        """
        x0, condition = clean(self, batch)
        times = self.time_sampler if self.training else UniformTimes()
        t = times.draw(self.schedule, noise).to(x0.device)
        epsilon, extra, given = noise.draw(self.shape).to(x0), {}, None
        if self.training and condition is not None:
            dropped = expand_like(noise.uniform() < self.condition_dropout, condition)
            condition = torch.where(dropped, self.network.unconditional(condition), condition)
        if self.training and self.network.weak_dropout > 0:
            extra = {"weak": noise.uniform() < self.network.weak_dropout}
        if self.observation is not None:
            given = self.observation.draw(x0, noise, batch)
            if self.training:
                given = given.without(noise.uniform() < self.condition_dropout)
            x0, extra = given.values, extra | given.told
        return self.denoising_loss(x0, t, epsilon, condition, given, **extra)

    def denoising_loss(
        self,
        x0: Samples,
        t: TimeSteps,
        noise: Samples,
        condition: Condition | None = None,
        given: Given | None = None,
        **extra: Tensor,
    ) -> PerSample:
        """The loss (b) of each sample, noised to ``t`` (b) with ``noise`` (b, c, *spatial).

        What is ``given``, or was not measured, costs nothing. ``extra`` is what else the network
        is told: ``weak`` (b).
        """
        x_t, c = self.schedule.add_noise(x0, noise, t), x0.shape[1]
        seen = x_t if self.observation is None else self.observation.seen(x_t, given)
        output = self.network(seen, t, condition, **extra)
        parts = (self.weighting, self.target, output, x0, noise, *self.schedule.alpha_sigma(t))
        loss = weighted_error(*parts, None if given is None else given.unknown)
        if self.variance == "learned":
            # Only the variance learns from the bound (Nichol and Dhariwal 2021, eq. 16).
            output = torch.cat([output[:, :c].detach(), output[:, c:]], dim=1)
            prediction = self.denoiser(guidance=1.0).read(output, x_t, t)
            decoder = self.medium.log_likelihood
            term = bound_term(prediction, self.schedule, x0, x_t, t, decoder)
            loss = loss + HYBRID_WEIGHT * self.schedule.T * term
        return loss

    def condition_of(
        self, indices: Sequence[int], condition: int | Sequence[int] | Condition | None = None
    ) -> Condition | None:
        """The ``condition.condition_of`` samples: what is asked for, or ``labels`` in turn."""
        asked = self.labels if condition is None else condition
        return condition_of(self.network, indices, asked, self.device)

    def denoiser(
        self,
        condition: Condition | None = None,
        guidance: float | None = None,
        given: Given | None = None,
    ) -> Denoiser:
        """What samplers and editing see of the model: ``denoise(x_t, t)``, in float32.

        Args:
            condition: of each sample (b, ...); if not given, predictions are unconditional.
            guidance: scale of guidance; the model's if not given.
            given: what is known of the samples; nothing if not given.

        Raises:
            ValueError: if the model was not trained for ``guidance``, or to see what is ``given``,
                or there is no condition to guide to.
        """
        scale = guidance_scale(self.network, self.guidance, guidance, condition)
        told = {} if given is None else given.told
        selves = (part(self.network, condition, told) for part in (Strong, Weak))
        strong, weak = (observed(predict, self.observation, given) for predict in selves)
        low, high = (part * self.schedule.T for part in self.guidance_interval)
        predict = strong if scale == 1 else Guided(strong, weak, scale, (low, high))
        parts = (self.schedule, self.target, self.variance, self.medium.value_range)
        return Denoiser(predict, *parts, None if given is None else given.paste)

    @torch.no_grad()
    def sample(
        self,
        n: int | None = None,
        *,
        indices: Sequence[int] | None = None,
        condition: int | Sequence[int] | Condition | None = None,
        guidance: float | None = None,
        given: Given | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        stage: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = True,
        frames: int | None = None,
    ) -> Samples | Float[Tensor, "b frames c *spatial"]:
        """Generate samples x0 (b, c, *spatial), as images in [-1, 1] (Ho et al. 2020, Algorithm 2).

        Args:
            n: how many; 16 if not given, or as many as something is known of.
            indices: which ones of the seed, each with noise of its own; 0 to n - 1 if not given.
            condition: as ``condition_of`` takes it; ``labels`` in turn if not given.
            guidance: scale of guidance; the model's if not given.
            given: what is known of each of them; nothing if not given.
            sampler: the way from noise to samples; the model's if not given.
            seed: the seed of all noise, not negative.
            stage: of the samples' making, each with noise of its own; of the size of a sample if
                not given, so that those of a cascade differ.
            generator: draws a new seed, if given.
            progress: whether to show a progress bar.
            frames: how many of the way from noise to each; the samples alone if not given.

        Raises:
            ValueError: if the model was not trained for what is asked of it, the sampler has more
                steps than the schedule, or numbers of samples or frames do not fit.
        """
        n = n if n is not None else 16 if given is None else len(given.values)
        indices = range(n) if indices is None else indices
        if len(indices) == 0:
            raise ValueError("at least one sample must be asked for")
        if given is not None and len(given.values) != len(indices):
            raise ValueError(f"{len(given.values)} are known of, and {len(indices)} asked for")
        told = self.condition_of(indices, condition)
        if generator is not None:
            seed = int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
        sampler, was_training = sampler or self.sampler, self.network.training
        if stage is None:
            stage = 0 if self.observation is None else prod(self.shape)

        def generate(part: slice) -> Tensor:
            noise = SampleNoise(seed, indices[part], stage)
            known = None if given is None else given[part].to(self.device)
            denoise = self.denoiser(None if told is None else told[part], guidance, known)
            shape = self.shape if known is None else known.values.shape[1:]
            x_T = self.temperature * noise.draw(shape).to(self.device)
            x0 = sampler.sample(denoise, x_T, noise, progress=progress, frames=frames)
            return x0 if known is None else known.whole(x0)

        self.network.eval()
        try:
            return in_parts(generate, len(indices), batch_size(self.device.type, self.shape))
        finally:
            self.network.train(was_training)
