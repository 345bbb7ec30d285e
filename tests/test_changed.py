"""A run goes on with another batch size, length, precision or accumulation."""

from pathlib import Path

import pytest
import torch
from changed import IMAGES, LR, Fit, check, fit
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, Timer, timer

CUTS = (14, 20, 30)  # batches: in the second epoch, at its end, and at the end of the run


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Fit, Path]]:
    """Runs of one process with batches of 10 that were stopped."""
    folder = tmp_path_factory.mktemp("cuts")
    return {cut: fit(folder / str(cut), stop=cut) for cut in CUTS}


@pytest.mark.parametrize("cut", [14, 20])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batch_size": 7},
        {"batch_size": 64},
        {"precision": "bf16-mixed"},
        {"max_epochs": 4, "batch_size": 25},
    ],
    ids=str,
)
def test_each_image_is_seen_once_an_epoch_and_the_rate_falls_to_zero(
    cut: int, change: dict, cuts, tmp_path: Path
) -> None:
    before, path = cuts[cut]
    after, _ = fit(tmp_path, path, **change)
    check([before], [after], change.get("max_epochs", 3))


@pytest.mark.parametrize("cut", [14, 20])
@pytest.mark.parametrize("factor", [4, {0: 1, 2: 2}], ids=str)
def test_gradients_of_more_batches_are_accumulated(cut: int, factor, cuts, tmp_path: Path) -> None:
    before, path = cuts[cut]
    if isinstance(factor, dict):
        after, _ = fit(tmp_path, path, callbacks=(GradientAccumulationScheduler(factor),))
    else:
        after, _ = fit(tmp_path, path, accumulate_grad_batches=factor)
    # The rate is that of the last step: up to four batches old.
    steps = [i for i in range(len(after.rates)) if i == 0 or after.rates[i] != after.rates[i - 1]]
    assert len(steps) < len(after.rates)
    left = 30 - cut
    for i in steps:
        assert after.rates[i] == pytest.approx(before.rate * (1 - i / left), abs=1e-6)
    assert after.rate == pytest.approx(0, abs=1e-9)
    assert after.moved > 1e-4
    second = [image for batch in before.index[10:] + after.index[: 20 - cut] for image in batch]
    assert sorted(second) == [*range(IMAGES)]


def test_a_run_that_had_ended_goes_on_as_one_of_the_new_length(cuts, tmp_path: Path) -> None:
    before, path = cuts[30]
    assert before.rate == 0
    after, _ = fit(tmp_path, path, max_epochs=5, batch_size=20)
    before.rate = LR * 2 / 5  # three epochs of five are done
    check([before], [after], 5)


def test_steps_end_a_run_before_its_epochs_do(cuts, tmp_path: Path) -> None:
    before, path = cuts[14]
    after, _ = fit(tmp_path, path, max_steps=24)
    expected = [before.rate * (1 - i / 10) for i in range(10)]
    assert after.rates == pytest.approx(expected)
    assert after.rate == 0


class Clock(Callback):
    """A second for each batch, and none for anything else."""

    def __init__(self) -> None:
        self.seconds = 0

    def monotonic(self) -> int:
        return self.seconds

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seconds += 1


def test_the_time_ends_a_run_before_its_epochs_do(
    cuts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, path = cuts[14]
    monkeypatch.setattr(timer, "time", clock := Clock())
    after, last = fit(tmp_path / "a", path, callbacks=(clock, Timer({"seconds": 10})))
    assert after.rates == pytest.approx([before.rate * (1 - i / 10) for i in range(10)])
    assert after.rate == 0
    # It goes on if it gets more time, as a run that had it from the start.
    longer, _ = fit(tmp_path / "b", last, callbacks=(clock, Timer({"seconds": 12})))
    assert longer.rates == pytest.approx([LR * (1 - i / 12) for i in (10, 11)])


def test_what_overfits_sees_the_same_images_after_a_stop(tmp_path: Path) -> None:
    before, path = fit(tmp_path / "before", stop=7, overfit_batches=4)
    after, _ = fit(tmp_path / "after", path, overfit_batches=4)
    assert before.index + after.index == torch.arange(40).view(4, 10).tolist() * 3


def test_without_an_end_the_rate_stays(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="nothing tells when the run ends"):
        after, _ = fit(tmp_path, stop=15, max_epochs=-1)
    assert after.rates == [LR] * 15
