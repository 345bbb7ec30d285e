import math

import pytest
import torch
from gaussian import each_shape
from scipy import stats

from lightning_ddpm.noise import BatchNoise, SampleNoise, low_discrepancy

SHAPE = (1, 28, 28)


@each_shape
def test_noise_belongs_to_the_sample_whatever_the_batch(shape: tuple[int, ...]) -> None:
    alone = SampleNoise(5, [7])
    together = SampleNoise(5, [3, 7, 100_000])
    for _ in range(3):
        assert torch.equal(alone.draw(shape)[0], together.draw(shape)[1])
        assert torch.equal(alone.normal()[0], together.normal()[1])
        assert torch.equal(alone.uniform()[0], together.uniform()[1])


@each_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_is_like_the_samples(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = torch.zeros(2, *shape, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    for noise in (SampleNoise(0, [3, 4]), BatchNoise(generator, 2)):
        drawn = noise.like(x)
        assert (drawn.shape, drawn.dtype) == (x.shape, dtype)
        assert drawn.count_nonzero() == drawn.numel()
    assert SampleNoise(0, [3, 4]).like(x).equal(SampleNoise(0, [3, 4]).draw(shape).to(dtype))


@each_shape
def test_noise_is_standard_normal_and_independent(shape: tuple[int, ...]) -> None:
    # Oracle: Kolmogorov-Smirnov against N(0, 1), and correlations between neighbours.
    size = 100_000 // math.prod(shape)
    noise = SampleNoise(0, range(size))
    first, second = noise.draw(shape).flatten(1), noise.draw(shape).flatten(1)
    assert stats.kstest(first.flatten().numpy(), "norm").pvalue > 0.001
    limit = 5 / first[1:].numel() ** 0.5  # five standard errors
    for a, b in [(first[1:], first[:-1]), (first, second)]:
        assert (a * b).mean().abs() < limit
    other_seed = SampleNoise(1, range(size)).draw(shape).flatten(1)
    assert (first * other_seed).mean().abs() < limit


def test_seeds_beyond_32_bits_differ() -> None:
    # A CPU torch.Generator would give the same noise for both.
    assert not torch.equal(SampleNoise(1, [0]).draw(SHAPE), SampleNoise(1 + 2**32, [0]).draw(SHAPE))


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_keys_are_refused(seed: int, index: int) -> None:
    with pytest.raises(OverflowError):
        SampleNoise(seed, [index])


@each_shape
def test_noise_of_a_batch_is_standard_normal(shape: tuple[int, ...]) -> None:
    # Oracle: Kolmogorov-Smirnov against N(0, 1) and against the uniform distribution.
    noise = BatchNoise(torch.Generator().manual_seed(0), 20_000 // math.prod(shape))
    x = torch.zeros(20_000 // math.prod(shape), *shape)
    assert stats.kstest(noise.like(x).flatten().numpy(), "norm").pvalue > 0.001
    assert stats.kstest(noise.normal().numpy(), "norm").pvalue > 0.001
    assert stats.kstest(noise.uniform().numpy(), "uniform").pvalue > 0.001


@each_shape
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_noise_of_one(processes: int, shape: tuple[int, ...]) -> None:
    # Oracle: one process with all samples, of which process r has every Nth from sample r on.
    def draws(size: int, *share: int) -> list[torch.Tensor]:
        noise = BatchNoise(torch.Generator().manual_seed(3), size, *share)
        x = torch.zeros(size, *shape)
        return [noise.uniform(), noise.like(x), noise.normal(), noise.uniform()]

    alone = draws(4 * processes)
    for rank in range(processes):
        for mine, everything in zip(draws(4, rank, processes), alone, strict=True):
            assert mine.equal(everything[rank::processes])


def test_any_run_of_indices_is_spread_evenly() -> None:
    # Oracle: the discrepancy of a Kronecker sequence with the golden ratio, below 3 / n here; of
    # independent numbers it is about 1 / sqrt(n), ten times as much.
    for start in (0, 777, 10_000_000):
        numbers = low_discrepancy(torch.arange(start, start + 500)).sort().values
        steps = torch.arange(500, dtype=torch.float64) / 500
        assert (numbers - steps).abs().max() < 3 / 500
    assert (numbers >= 0).all() & (numbers < 1).all()
