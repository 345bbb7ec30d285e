"""The diffusion model as a classifier and as a detector of samples of another kind."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import weighted_error
from lightning_ddpm.shapes import Samples


@torch.no_grad()
def denoising_errors(
    model: Diffusion,
    x0: Samples,
    index: Int[Tensor, " b"],
    labels: list[int],
    draws: int,
) -> Float[Tensor, "b labels"]:
    """How badly the model denoises each image under each label (2303.16203, algorithm 1).

    The error of the prediction is averaged over ``draws`` evenly spaced time steps. Time steps and
    noise are the same for all labels, so that they differ by the label alone.

    Args:
        model: the model.
        x0: samples (b, c, *spatial).
        index: each image's place in its split, which its noise belongs to.
        labels: the classes to try, -1 for none.
        draws: how many time steps.
    """
    noise, errors = SampleNoise(0, index.tolist()), torch.zeros(len(x0), len(labels))
    for draw in range(draws):
        time = int((draw + 0.5) / draws * model.schedule.T)
        t = torch.full((len(x0),), time, device=x0.device)
        epsilon = noise.like(x0)
        x_t = model.schedule.add_noise(x0, epsilon, t)
        for i, label in enumerate(labels):
            condition = torch.full_like(t, label) if model.network.conditional else None
            output = model.denoiser(condition, guidance=1.0).predict(x_t, t)
            parts = (model.weighting, model.target, output, x0, epsilon)
            errors[:, i] += weighted_error(*parts, *model.schedule.alpha_sigma(t)).cpu() / draws
    return errors


def errors_of(
    model: Diffusion, raw: Tensor, labels: list[int], draws: int
) -> Float[Tensor, "n labels"]:
    """The ``denoising_errors`` of raw samples (n, ...), a hundred at a time."""
    errors = []
    for index in tqdm(torch.arange(len(raw)).split(100)):
        x0 = model.medium.encode(raw[index].to(model.device))
        errors.append(denoising_errors(model, x0, index, labels, draws))
    return torch.cat(errors)


def detection(inside: Float[Tensor, " n"], outside: Float[Tensor, " m"]) -> float:
    """How well errors tell samples of another kind: area under the ROC curve; 0.5 is by chance."""
    from torchmetrics.functional.classification import binary_auroc

    errors = torch.cat([inside, outside])
    other = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).long()
    return binary_auroc(errors / errors.max(), other).item()
