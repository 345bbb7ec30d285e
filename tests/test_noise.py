import pytest
import torch
from scipy import stats

from lightning_ddpm.noise import SampleNoise

SHAPE = (1, 28, 28)


def test_noise_belongs_to_the_sample_whatever_the_batch() -> None:
    alone = SampleNoise(5, [7])
    together = SampleNoise(5, [3, 7, 100_000])
    for _ in range(3):
        assert torch.equal(alone.draw(SHAPE)[0], together.draw(SHAPE)[1])


def test_noise_is_standard_normal_and_independent() -> None:
    # Oracle: Kolmogorov-Smirnov against N(0, 1), and correlations between neighbours.
    noise = SampleNoise(0, range(300))
    first, second = noise.draw(SHAPE).flatten(1), noise.draw(SHAPE).flatten(1)
    assert stats.kstest(first.flatten().numpy(), "norm").pvalue > 0.001
    limit = 5 / first[1:].numel() ** 0.5  # five standard errors
    for a, b in [(first[1:], first[:-1]), (first, second)]:
        assert (a * b).mean().abs() < limit
    other_seed = SampleNoise(1, range(300)).draw(SHAPE).flatten(1)
    assert (first * other_seed).mean().abs() < limit


def test_seeds_beyond_32_bits_differ() -> None:
    # A CPU torch.Generator would give the same noise for both.
    assert not torch.equal(SampleNoise(1, [0]).draw(SHAPE), SampleNoise(1 + 2**32, [0]).draw(SHAPE))


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_keys_are_refused(seed: int, index: int) -> None:
    with pytest.raises(OverflowError):
        SampleNoise(seed, [index])
