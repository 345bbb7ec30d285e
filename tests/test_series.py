"""Series: what the network is shown of them, and what it costs."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ddpm import Diffusion
from lightning_ddpm.media import Series
from lightning_ddpm.networks import Transformer
from lightning_ddpm.noise import BatchNoise, SampleNoise
from lightning_ddpm.observation import Gaps
from lightning_ddpm.observation.series import calendar, interpolated
from lightning_ddpm.samplers import DDIM

N, C, LENGTH = 2000, 3, 48
X0 = torch.randn(8, C, LENGTH, generator=torch.Generator().manual_seed(0))


def drawn(n: int, raw: Tensor | None = None, **more: Tensor) -> Tensor:
    """What is known of so many windows."""
    x0 = torch.zeros(n, C, LENGTH) if raw is None else raw
    return Gaps(12).draw(x0.nan_to_num(0), SampleNoise(0, range(n)), {"x0": x0, **more}).known


def test_interpolation_is_numpy_s() -> None:
    known = torch.rand(8, C, LENGTH) < torch.linspace(0, 0.5, 8)[:, None, None]
    found = interpolated(X0, known)
    for i in range(8):
        for j in range(C):
            (places,) = np.nonzero(known[i, j].numpy())
            expected = np.zeros(LENGTH)
            if len(places):
                expected = np.interp(np.arange(LENGTH), places, X0[i, j].numpy()[places])
            np.testing.assert_allclose(found[i, j].numpy(), expected, atol=1e-5)
    assert not known[0].any()  # the case without any was among them


def test_calendar_turns_with_the_day_and_the_year() -> None:
    when = [datetime(2013, 1, 1, 0), datetime(2013, 7, 2, 6), datetime(2031, 1, 1, 18)]
    time = torch.tensor([[int(day.replace(tzinfo=UTC).timestamp()) for day in when]])
    day_sin, year_sin, day_cos, year_cos = calendar(time, torch.zeros(1, C, 3))[0]
    torch.testing.assert_close(day_sin, torch.tensor([0.0, 1.0, -1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(day_cos, torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(year_cos, torch.tensor([1.0, -1.0, 1.0]), atol=0.01, rtol=0)
    assert year_sin.abs().max() < 0.05
    assert not calendar(None, torch.zeros(2, C, 3)).any()


def test_ends_single_values_and_gaps_are_asked_for() -> None:
    known, u = drawn(N), torch.special.ndtr(SampleNoise(0, range(N)).draw((8,)))
    assert known[..., 0].float().mean().item() == pytest.approx(0.9 * 0.6 * 0.85, abs=0.03)
    usual = ~known[..., 36:].any((1, 2)) & known[..., 34:36].any((1, 2))
    assert usual.float().mean().item() == pytest.approx(0.6 * 0.7 * 0.9, abs=0.05)
    assert (~known).all((1, 2)).float().mean() < 0.12
    whole = known[(u[:, 6] < 0.05) & (u[:, 7] > 0.5)].float()  # where hardly anything is hidden
    kind = u[(u[:, 6] < 0.05) & (u[:, 7] > 0.5), 0]
    assert (whole[kind < 0.6].diff(dim=1).abs().mean((1, 2)) < 0.1).all()  # alike in all series
    single = whole[(kind > 0.6) & (kind < 0.8)]
    assert single.mean().item() == pytest.approx(0.5, abs=0.15)
    gaps = whole[kind > 0.8]
    missing = (1 - gaps).sum(2)
    assert (missing.amax(1) >= 6).all()  # at least one series has one
    assert (missing <= 24 + 6).all()
    assert drawn(3)[2].equal(known[2])


def test_samples_are_as_high_as_what_is_known_of_them() -> None:
    network = Transformer(3 * C + 4, C, width=16, layers=1)
    gaps = Gaps(12, levels=False)
    model = Diffusion(network, medium=Series(), observation=gaps, shape=(C, LENGTH))
    torch.nn.init.normal_(model.network.head.weight)
    known = torch.rand(X0.shape) < 0.5
    level = 5 * torch.randn(8, C, 1)

    def sampled(x0: Tensor, **options: int) -> Tensor:
        given = model.observation.of(x0, known)
        return model.sample(given=given, sampler=DDIM(5), progress=False, **options)

    found = sampled(X0)
    torch.testing.assert_close(found[known], X0[known])
    torch.testing.assert_close(sampled(X0 + level), found + level, atol=1e-3, rtol=0)
    assert sampled(X0, frames=3)[:, -1].equal(found)


def test_levels_are_blurred_in_training_alone() -> None:
    zeros = torch.zeros(N, C, 2)
    trained = Gaps(1).draw(zeros, SampleNoise(0, range(N)), {"x0": zeros})
    assert trained.extra[:, -C:].std(dim=(0, 2)).mean().item() == pytest.approx(0.3, abs=0.02)
    x0, known = zeros + torch.randn(C, 1), torch.ones(zeros.shape, dtype=torch.bool)
    asked = Gaps(1).draw(x0, SampleNoise(0, range(N)), {"x0": x0, "known": known})
    torch.testing.assert_close(asked.extra[:, -C:], x0)


def test_where_nothing_is_known_the_samples_themselves_are_learned() -> None:
    given = Gaps(12).of(X0, torch.rand(X0.shape) < 0.5)
    nothing = torch.arange(8) < 4
    found = given.without(nothing)
    torch.testing.assert_close(found.values[:4], X0[:4])
    assert found.values[4:].equal(given.values[4:])
    torch.testing.assert_close(found.whole(found.values), X0)
    assert not found.offset[:4].any()


def test_series_that_are_known_ahead_go_on_beyond_the_end() -> None:
    noise, x0 = SampleNoise(0, range(N)), torch.zeros(N, C, LENGTH)
    known = Gaps(12, [1]).draw(x0, noise, {"x0": x0}).known[..., 36:].float()
    u = torch.special.ndtr(SampleNoise(0, range(N)).draw((8,)))
    ends = (u[:, 0] < 0.6) & (u[:, 1] < 0.7) & (u[:, 6] < 0.1) & (u[:, 7] > 0.5)
    assert known[ends][:, 1].mean() > 0.9
    assert not known[ends][:, [0, 2]].any()


def test_what_was_not_measured_is_not_known_and_what_a_batch_says_is() -> None:
    raw = X0.clone()
    raw[:, 1, 5:9] = torch.nan
    assert not drawn(8, raw)[:, 1, 5:9].any()
    said = torch.rand(8, C, LENGTH) < 0.5
    assert drawn(8, raw, known=said).equal(said & ~raw.isnan())


def test_what_was_not_measured_costs_nothing() -> None:
    model = Diffusion(
        Transformer(4 * C + 4, C, width=16, layers=1),
        medium=Series(),
        observation=Gaps(12),
        shape=(C, LENGTH),
    ).eval()
    raw, outputs = X0.clone(), []
    raw[:, 1, 40:] = torch.nan
    model.network.register_forward_hook(lambda *call: outputs.append(call[2]))
    loss = model.loss({"x0": raw}, SampleNoise(0, range(8)))
    noise = SampleNoise(0, range(8))
    noise.uniform()
    epsilon = noise.like(X0)
    given = Gaps(12).draw(raw.nan_to_num(0), noise, {"x0": raw})
    for i in range(8):
        asked = ~given.known[i] & ~raw[i].isnan()
        expected = (outputs[0][i] - epsilon[i])[asked].square().sum() / (C * LENGTH)
        torch.testing.assert_close(loss[i], expected)
    assert loss.isfinite().all()


def test_processes_draw_the_gaps_of_one() -> None:
    def known(size: int, *process: int) -> Tensor:
        noise, x0 = BatchNoise(torch.Generator().manual_seed(0), size, *process), X0[:size]
        return Gaps(12).draw(x0, noise, {"x0": x0}).known

    assert torch.stack([known(4, rank, 2) for rank in (0, 1)], dim=1).flatten(0, 1).equal(known(8))


def test_series_are_standardised_and_come_back() -> None:
    medium = Series([10.0, 1000.0], [5.0, 8.0], ["a", "b"])
    raw = torch.tensor([10.0, 1000.0])[:, None] + torch.tensor([5.0, 8.0])[:, None] * X0[:, :2]
    torch.testing.assert_close(medium.encode(raw), X0[:, :2], atol=1e-3, rtol=0)
    torch.testing.assert_close(medium.decode(X0[:, :2]), raw)
    raw[0, 0, 3] = torch.nan
    x0, known = medium.encode(raw), torch.rand(raw.shape) < 0.5
    assert x0[0, 0, 3] == 0
    found = medium.decode_known(x0 + 1, known, raw)
    assert found[known].equal(raw[known]) or known[0, 0, 3]
    assert (found - raw)[~known].nan_to_num(1).abs().min() > 1
    for wrong in (raw[0], raw[:, :1]):
        with pytest.raises(ValueError, match=r"series must be \(b, 2, length\)"):
            medium.encode(wrong)
    for parts in (([1.0], None), ([1.0], [0.0]), (None, [1.0])):
        with pytest.raises(ValueError, match="mean and a std above 0"):
            Series(*parts)


def test_a_transformer_knows_where_its_tokens_are() -> None:
    network = Transformer(2, width=16, layers=2).eval()
    torch.nn.init.normal_(network.head.weight)
    x, t = torch.randn(2, 2, 12), torch.tensor([3, 500])
    order = torch.randperm(12)
    assert not torch.allclose(network(x, t)[..., order], network(x[..., order], t), atol=1e-3)
    torch.nn.init.zeros_(network.place.weight)  # else it is a function of a set
    torch.testing.assert_close(network(x, t)[..., order], network(x[..., order], t))
    image = torch.randn(2, 2, 4, 4)
    network = Transformer(2, width=16, layers=2).eval()
    torch.nn.init.normal_(network.head.weight)
    turned = network(image.mT, t).mT
    assert not torch.allclose(network(image, t), turned, atol=1e-3)  # the axes differ
    for options in ({"width": 10}, {"heads": 3}, {"layers": 0}):
        with pytest.raises(ValueError, match="must divide by heads"):
            Transformer(**options)
