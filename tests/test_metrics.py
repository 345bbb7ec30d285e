"""The distances and counts that the judge makes of features, by their definitions."""

import numpy as np
import pytest
import torch

from lightning_ddpm.judge import Manifold
from lightning_ddpm.judge.digits import frechet_distance, kernel_distance


def test_frechet_distance_of_two_gaussians() -> None:
    # Oracle: |m1 - m2|^2 + sum (s1 - s2)^2 for diagonal covariances (Dowson and Landau 1982).
    mean, std = torch.linspace(-1, 1, 128), torch.linspace(0.5, 2, 128)
    real, generated = torch.randn(50_000, 128), mean + std * torch.randn(50_000, 128)
    expected = mean.square().sum() + (std - 1).square().sum()
    assert frechet_distance(real, generated).item() == pytest.approx(expected.item(), rel=0.02)
    assert frechet_distance(real, real).item() == pytest.approx(0, abs=1e-3)


def test_kernel_distance_of_two_points() -> None:
    # Oracle: k(a, a) + k(b, b) - 2 k(a, b) with the cubic kernel (a b / d + 1)^3.
    a, b = torch.randn(2, 16).double()

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return (x @ y / 16 + 1).item() ** 3

    distance = kernel_distance(a.expand(50, 16).float(), b.expand(60, 16).float())
    assert distance.item() == pytest.approx(k(a, a) + k(b, b) - 2 * k(a, b), rel=1e-3)


def test_kernel_distance_leaves_the_random_state_alone() -> None:
    state = torch.get_rng_state()
    x, y = torch.ones(30, 4), torch.eye(4).repeat(10, 1)
    assert kernel_distance(x, y) == kernel_distance(x, y)
    assert torch.equal(state, torch.get_rng_state())


def scores(real: torch.Tensor, generated: torch.Tensor) -> dict[str, float]:
    manifold = Manifold()
    for part in real.split(70):
        manifold.update(part, real=True)
    manifold.update(generated, real=False)
    return {name: value.item() for name, value in manifold.compute().items()}


def test_manifold_by_its_definition() -> None:
    # Oracle: the papers' definitions, point by point, in numpy.
    real, generated = torch.randn(150, 3), 0.5 + 0.8 * torch.randn(130, 3)
    r, g = real.double().numpy(), generated.double().numpy()

    def radius(points: np.ndarray, i: int, k: int) -> float:
        return np.sort(np.linalg.norm(points - points[i], axis=1))[k]

    def inside(x: np.ndarray, centres: np.ndarray, k: int) -> list[bool]:
        return [
            bool(np.linalg.norm(x - centres[i]) <= radius(centres, i, k))
            for i in range(len(centres))
        ]

    in_real = np.array([inside(x, r, 5) for x in g])
    expected = {
        "precision": np.mean([any(inside(x, r, 3)) for x in g]),
        "recall": np.mean([any(inside(x, g, 3)) for x in r]),
        "density": in_real.sum(1).mean() / 5,
        "coverage": in_real.any(0).mean(),
    }
    assert scores(real, generated) == pytest.approx(expected, abs=1e-6)


def test_manifold_of_extremes() -> None:
    real = torch.randn(300, 8)
    same = scores(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert same["density"] > 1
    assert set(scores(real, real + 100).values()) == {0}
    collapsed = scores(real, real[:1] + 1e-3 * torch.randn(300, 8))
    assert collapsed["precision"] == 1
    assert collapsed["recall"] < 0.02
    assert collapsed["coverage"] < 0.1


def test_the_kernel_distance_leaves_the_generators_of_gpus_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("seeds all GPUs"))
    assert kernel_distance(torch.ones(30, 4), torch.eye(4).repeat(10, 1)) > 0
