"""The watch for what is not finite, on its own."""

import math
import re
from pathlib import Path

import pytest
import torch
from fits import FewImages, tiny_model, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from test_trainable import Autoencoder
from torch import Tensor

from lightning_ddpm import DiffusionLightningModule
from lightning_ddpm.training import FiniteWatch, LastCheckpoint

BROKEN = 7  # the batch whose loss is not finite


def broken_model() -> tuple[DiffusionLightningModule, list[Tensor]]:
    """Its loss is infinite in one batch, in the second half of time; the times of all batches."""
    module, times = tiny_model(), []
    loss = module.model.denoising_loss

    def broken(x0: Tensor, t: Tensor, *rest: Tensor | None) -> Tensor:
        times.append(t)
        losses = loss(x0, t, *rest)
        return losses.masked_fill(t >= 25, math.inf) if len(times) == BROKEN else losses

    module.model.denoising_loss = broken
    return module, times


@pytest.mark.parametrize("accumulated", [1, 3])
def test_the_time_steps_that_are_named_were_drawn(tmp_path: Path, accumulated: int) -> None:
    module, times = broken_model()
    options = {"limit_val_batches": 0, "accumulate_grad_batches": accumulated}
    run = trainer(tmp_path, callbacks=[FiniteWatch()], max_epochs=2, **options)
    with pytest.raises(FloatingPointError, match="is not finite at the time steps") as error:
        run.fit(module, FewImages())
    (named,) = re.findall(r"time steps \[(.*)\]", str(error.value))
    drawn = times[BROKEN - 1]
    assert [int(t) for t in named.split(", ")] == drawn[drawn >= 25].tolist()
    assert f"the loss of step {BROKEN // accumulated} is" in str(error.value)
    assert len(times) == 10


def test_nothing_is_saved_after_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    module, times = broken_model()
    each = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=2)
    run = trainer(tmp_path, callbacks=[FiniteWatch(), each], max_epochs=2, limit_val_batches=0)
    with pytest.raises(FloatingPointError, match=f"the loss of step {BROKEN} is not finite"):
        run.fit(module, FewImages())
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == [
        f"step={step}.ckpt" for step in (2, 4, 6)
    ]
    assert len(times) == 8


def test_nothing_is_validated_after_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    module, times = broken_model()
    best = ModelCheckpoint(tmp_path, "best", monitor="val/loss")
    options = {"limit_train_batches": 8, "max_epochs": 1, "num_sanity_val_steps": 0}
    run = trainer(tmp_path, callbacks=[FiniteWatch(), best], **options)
    with pytest.raises(FloatingPointError, match=f"the loss of step {BROKEN} is not finite"):
        run.fit(module, FewImages())
    assert len(times) == 8
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("others", [[], [LastCheckpoint()]], ids=["alone", "with last.ckpt"])
def test_training_stops_where_a_weight_is_not_finite(tmp_path: Path, others: list) -> None:
    module = tiny_model()
    weight = next(module.parameters())
    module.on_train_batch_end = lambda *_: weight.data.fill_(math.inf)
    run = trainer(tmp_path, callbacks=[FiniteWatch(), *others], max_steps=1)
    with pytest.raises(FloatingPointError, match="the weights are not finite after step 1"):
        run.fit(module, FewImages())
    assert not list(tmp_path.rglob("*.ckpt"))


def test_what_has_no_time_steps_names_none(tmp_path: Path) -> None:
    module = DiffusionLightningModule(Autoencoder(), lr=0.5)
    loss = module.model.loss
    module.model.loss = lambda *arguments: loss(*arguments) * math.nan
    run = trainer(tmp_path, callbacks=[FiniteWatch()], max_steps=3, limit_val_batches=0)
    with pytest.raises(FloatingPointError) as error:
        run.fit(module, FewImages())
    assert str(error.value) == ("the loss of step 1 is not finite: lower --lr, which is 0.5")


def test_a_process_stops_for_the_sake_of_another(tmp_path: Path) -> None:
    run = trainer(tmp_path, callbacks=[FiniteWatch()], max_epochs=1, limit_val_batches=0)
    run.strategy.reduce = lambda failed, **_: torch.ones_like(failed)  # another one has failed
    with pytest.raises(SystemExit) as exit_:
        run.fit(tiny_model(), FewImages())
    assert exit_.value.code == 1
    assert run.global_step == 10
