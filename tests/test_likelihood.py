import math
from collections.abc import Sequence

import pytest
import torch
from gaussian import SHAPES, Known, each_shape, ideal_denoiser
from scipy.stats import norm

from lightning_ddpm.denoiser import Denoise, Prediction
from lightning_ddpm.judge import VariationalBound
from lightning_ddpm.likelihood import (
    Bound,
    bound_term,
    estimate_bound,
    gaussian_kl,
    prior_term,
    time_density,
)
from lightning_ddpm.media.images import decoder_log_likelihood
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.schedule import (
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    RectifiedFlow,
    ZeroTerminalSNR,
)
from lightning_ddpm.shapes import expand_like

SCHEDULES = [LinearSchedule(), CosineSchedule(), ZeroTerminalSNR(), RectifiedFlow()]
LEVELS = torch.arange(256) / 127.5 - 1


def bound_of(denoise: Denoise, x0: torch.Tensor, index: Sequence[int], draws: int = 4) -> Bound:
    """The bound of 8-bit data."""
    return estimate_bound(denoise, x0, index, decoder_log_likelihood, draws=draws)


def test_kl_against_monte_carlo() -> None:
    m_q, s_q, m_p, s_p = 0.3, 0.5, -0.1, 0.8
    x = m_q + s_q * torch.randn(2_000_000, dtype=torch.float64)
    q = torch.distributions.Normal(torch.tensor(m_q), torch.tensor(s_q))
    p = torch.distributions.Normal(torch.tensor(m_p), torch.tensor(s_p))
    ratio = q.log_prob(x) - p.log_prob(x)
    kl = gaussian_kl(*(torch.tensor(v).double() for v in (m_q, s_q**2, m_p, s_p**2)))
    assert kl.item() == pytest.approx(ratio.mean().item(), abs=4 * ratio.std().item() / 2e6**0.5)


@pytest.mark.parametrize("mean", [-1.3, -1.0, -0.2, 0.0, 0.999, 2.0])
@pytest.mark.parametrize("std", [1e-3, 0.01, 0.3, 5.0])
def test_decoder_is_exact_for_8_bit_levels(mean: float, std: float) -> None:
    x0 = LEVELS.reshape(1, 1, 256)
    log_p = decoder_log_likelihood(x0, torch.full_like(x0, mean), torch.tensor(std)).flatten()
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-4)
    # Oracle: the mass of each bin from scipy in float64, where it does not underflow.
    edges = (torch.arange(1, 256) / 127.5 - 1 - 1 / 255).double().numpy()
    cdf = [0, *norm.cdf(edges, mean, std), 1]
    mass = torch.tensor(cdf).diff()
    seen = mass > 1e-9
    torch.testing.assert_close(log_p[seen].double(), mass[seen].log(), atol=2e-2, rtol=2e-3)
    assert log_p.isfinite().all()


@each_shape
@pytest.mark.parametrize("schedule", [LinearSchedule(), CosineSchedule(100), RectifiedFlow(101)])
@pytest.mark.parametrize("t", [1, 2, 50, 99])
def test_terms_are_the_change_of_snr_times_the_squared_error(
    schedule: NoiseSchedule, t: int, shape: tuple[int, ...]
) -> None:
    # Oracle: Kingma et al. 2021, eq. 13, for the fixed small variance.
    x0, guess, x_t = torch.randn(3, 2, *shape).unbind(0)
    times = torch.tensor([t, t])
    alpha, sigma = schedule.alpha_sigma(torch.tensor([t - 1, t], dtype=torch.float64))
    signal = (alpha / sigma) ** 2
    small = torch.zeros(2, *[1] * len(shape))
    prediction = Prediction(guess, guess, small)
    term = bound_term(prediction, schedule, x0, x_t, times, decoder_log_likelihood)
    error = (x0 - guess).square().flatten(1).mean(1)
    expected = error * (signal[0] - signal[1]) / 2 / math.log(2)
    torch.testing.assert_close(term.double(), expected.double(), rtol=1e-2, atol=0)


@each_shape
def test_prior_term_is_small_and_zero_without_signal(shape: tuple[int, ...]) -> None:
    x0 = torch.ones(2, *shape)
    # Oracle: KL(N(a, s^2) || N(0, 1)) = (a^2 + s^2 - 1 - log s^2) / 2 with a^2 + s^2 = 1.
    _, sigma = LinearSchedule().alpha_sigma(torch.tensor(999.0, dtype=torch.float64))
    expected = -sigma.log() / math.log(2)
    torch.testing.assert_close(
        prior_term(LinearSchedule(), x0).double(), expected.expand(2), rtol=2e-2, atol=0
    )
    for schedule in (ZeroTerminalSNR(), RectifiedFlow()):
        assert prior_term(schedule, x0).tolist() == [0, 0]


@each_shape
def test_the_first_term_is_the_code_length_of_the_data(shape: tuple[int, ...]) -> None:
    # Oracle: the mass of each grey level's bin, from scipy, under the Gaussian of the last step,
    # whose mean is the predicted x0 and whose variance that of the step before.
    schedule, x0 = LinearSchedule(), LEVELS[torch.randint(1, 255, (2, *shape))]
    x_t, guess = x0 + 0.01 * torch.randn_like(x0), x0 + 0.003
    prediction = Prediction(guess, guess, torch.zeros(2, *[1] * len(shape)))
    t = torch.tensor([0, 0])
    term = bound_term(prediction, schedule, x0, x_t, t, decoder_log_likelihood)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[:2]
    std = math.sqrt(betas[1] * betas[0] / (1 - (1 - betas).prod()))
    x, mean = x0.double().numpy(), guess.double().numpy()
    mass = norm.cdf(x + 1 / 255, mean, std) - norm.cdf(x - 1 / 255, mean, std)
    expected = -torch.tensor(mass).log2().flatten(1).mean(1)
    torch.testing.assert_close(term.double(), expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("t", [1, 700])
def test_the_best_variance_is_the_true_one(t: int) -> None:
    # Oracle: on Gaussian data p(x_s | x_t) is Gaussian, and its variance known by conjugacy.
    schedule, std = LinearSchedule().double(), 0.5
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    a_t, a_s = torch.cumprod(1 - betas, 0)[[t, t - 1]].tolist()
    beta, prior = 1 - a_t / a_s, a_s * std**2 + 1 - a_s
    true = 1 / (1 / prior + (1 - beta) / beta)
    small = beta * (1 - a_s) / (1 - a_t)
    best = math.log(true / small) / math.log(beta / small)
    size = 400_000
    times = torch.full((size,), t)
    x0, noise = std * torch.randn(size, 1).double(), torch.randn(size, 1).double()
    x_t = schedule.add_noise(x0, noise, times)
    losses = [
        bound_term(
            ideal_denoiser(schedule, 0, std, large)(x_t, times),
            *(schedule, x0, x_t, times, decoder_log_likelihood),
        )
        for large in (best - 0.3, best, best + 0.3)
    ]
    assert losses[1].mean() < min(losses[0].mean(), losses[2].mean())
    assert 0 <= best <= 1


@pytest.mark.parametrize(
    ("schedule", "shape"),
    [*zip([CosineSchedule(30), RectifiedFlow(30)] * 2, SHAPES, strict=True)],
)
def test_estimate_is_the_sum_over_all_time_steps(
    schedule: NoiseSchedule, shape: tuple[int, ...]
) -> None:
    # Oracle: every term of every sample, with its noise drawn afresh.
    size, denoise = 36_000 // math.prod(shape), ideal_denoiser(schedule, 0.1, 0.4)
    x0 = torch.randn(size, *shape).mul(0.4).add(0.1).clamp(-1, 1).mul(127.5).round() / 127.5
    exact = prior_term(schedule, x0)
    for t in range(30):
        times = torch.full((size,), t)
        x_t = schedule.add_noise(x0, torch.randn_like(x0), times)
        prediction = denoise(x_t, times)
        exact += bound_term(prediction, schedule, x0, x_t, times, decoder_log_likelihood)
    metric = VariationalBound(30)
    metric.update(bound_of(denoise, x0, range(size), draws=8))
    figures, terms = metric.compute()
    assert figures["bits_per_dim"].item() == pytest.approx(exact.mean().item(), rel=0.01)
    parts = figures["L_T"] + figures["L_t"] + figures["L_0"]
    assert figures["bits_per_dim"].item() == pytest.approx(parts.item(), rel=1e-5)
    from_terms = figures["L_T"] + terms.sum()
    assert from_terms.item() == pytest.approx(exact.mean().item(), rel=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_time_density_is_one(schedule: NoiseSchedule) -> None:
    density = time_density(schedule)
    assert len(density) == schedule.T - 1
    assert density.sum().item() == pytest.approx(1, rel=1e-5)
    assert density.min() * len(density) >= 0.499


def exact_denoiser(schedule: NoiseSchedule, probability: torch.Tensor, large: float) -> Denoise:
    """E[x0 | x_t] for pixels that are independently one of 256 levels, by Bayes' rule."""

    def x0(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (expand_like(value, x_t)[..., None] for value in schedule.alpha_sigma(t))
        log_p = probability.log() - ((x_t[..., None] - alpha * LEVELS) / sigma) ** 2 / 2
        return (log_p.softmax(-1) * LEVELS).sum(-1)

    return Known(schedule, x0, large)


@pytest.mark.parametrize("data", ["Gaussian", "two levels"])
def test_bound_of_the_ideal_denoiser_is_the_entropy(data: str) -> None:
    # Oracle: the entropy of the pixels' distribution, in bits. The variance that makes the bound
    # tight is the large one for smooth data, the small one for points (Ho et al., section 3.2).
    probability = {
        "Gaussian": torch.softmax(-((LEVELS + 0.3) ** 2) / (2 * 0.1**2), 0),
        "two levels": torch.tensor([0.75] + [0.0] * 254 + [0.25]),
    }[data]
    expected = torch.distributions.Categorical(probability).entropy().item() / math.log(2)
    if data == "two levels":
        # Pure black and white are known for certain at t = 0, and then coded with a Gaussian of
        # the last variance, of which the outermost bins hold but a part.
        std = math.sqrt((1e-4 + 0.0199 / 999) * 1e-4 / (2e-4 + 0.0199 / 999))
        expected -= math.log2(norm.cdf(1 / 255 / std))
    index = torch.multinomial(probability, 2000 * 36, replacement=True)
    x0 = LEVELS[index].reshape(2000, 1, 6, 6)
    schedule, metric = LinearSchedule(), VariationalBound(1000)
    denoise = exact_denoiser(schedule, probability, large=data != "two levels")
    for start in range(0, 2000, 500):
        batch = range(start, start + 500)
        metric.update(bound_of(denoise, x0[start : start + 500], batch))
    figures, _ = metric.compute()
    error = figures["bits_per_dim_ci95"].item()
    assert error < 0.05 * expected
    assert -2 * error <= figures["bits_per_dim"].item() - expected <= 0.02 * expected + 2 * error


@each_shape
def test_bound_does_not_depend_on_the_batch(shape: tuple[int, ...]) -> None:
    denoise, x0 = ideal_denoiser(LinearSchedule(), 0, 0.5), LEVELS[torch.randint(256, (10, *shape))]
    together, apart = VariationalBound(1000), VariationalBound(1000)
    together.update(bound_of(denoise, x0, range(10)))
    for i in range(0, 10, 5):
        apart.update(bound_of(denoise, x0[i : i + 5], range(i, i + 5)))
    for name, value in together.compute()[0].items():
        torch.testing.assert_close(apart.compute()[0][name], value)


@each_shape
def test_noise_of_the_bound_is_the_samples_own(shape: tuple[int, ...]) -> None:
    seen = []

    def x0(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x_t)
        return x_t

    zeros = torch.zeros(3, *shape)
    bound_of(Known(LinearSchedule(), x0), zeros, [4, 5, 6])
    noise = SampleNoise(0, [5]).draw(shape)
    first = LinearSchedule().add_noise(zeros[:1], noise, torch.tensor([0]))
    torch.testing.assert_close(seen[0][1:2], first)
    assert len(seen) == 5
