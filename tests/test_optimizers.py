"""Optimizers and learning rates of one's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fits import SHAPE, FewImages, tiny_model, trainer
from lightning.pytorch.callbacks import LearningRateFinder
from torch import nn

from lightning_ddpm import Diffusion, DiffusionLightningModule
from lightning_ddpm.networks import MLP
from lightning_ddpm.samplers import Ancestral
from lightning_ddpm.training import EMA, LastCheckpoint
from lightning_ddpm.training.decay import LinearDecay


class Own(DiffusionLightningModule):
    """Trains two parts at two rates, with an optimizer of its own."""

    def configure_optimizers(self) -> Any:
        first, *rest = self.model.network.parameters()
        return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": rest, "lr": 0.2}])


def test_an_optimizer_of_one_s_own_keeps_its_rates(tmp_path: Path) -> None:
    module = Own(Diffusion(MLP(shape=SHAPE, hidden=8), sampler=Ancestral(1), shape=SHAPE))
    rates, last = [], LastCheckpoint()
    module.on_train_batch_start = lambda *_: rates.append(
        [group["lr"] for group in module.optimizers().param_groups]
    )
    run = trainer(tmp_path, max_epochs=1, callbacks=[EMA(), last])
    run.fit(module, FewImages())
    run = trainer(tmp_path, max_epochs=2, callbacks=[EMA(), last])
    run.fit(module, FewImages(), ckpt_path=last.path, weights_only=True)
    assert rates == [[0.1, 0.2]] * 20


def test_groups_with_rates_of_their_own_fall_together(tmp_path: Path) -> None:
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD(
        [{"params": [w], "lr": lr} for w, lr in zip(weights, (1, 3), strict=True)]
    )
    done = iter(range(1, 5))
    decay = LinearDecay(optimizer, 1.0, 1, lambda: {"steps": (next(done), 4)})
    found = [[group["lr"] for group in optimizer.param_groups]]
    for _ in range(4):
        optimizer.step()
        decay.step()
        found.append([group["lr"] for group in optimizer.param_groups])
    expected = [[1 - i / 4, 3 - 3 * i / 4] for i in range(5)]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))


def test_the_search_for_a_learning_rate_begins_where_it_is_told(tmp_path: Path) -> None:
    module, rates = tiny_model(lr=0.5, warmup_steps=1), []
    module.on_train_batch_start = lambda *_: rates.append(module.optimizers().param_groups[0]["lr"])
    finder = LearningRateFinder(min_lr=1e-5, max_lr=1e-1, num_training_steps=40)
    options = {"max_epochs": 1, "callbacks": [finder], "limit_val_batches": 0}
    trainer(tmp_path, enable_checkpointing=False, **options).fit(module, FewImages(1))
    assert rates[0] == 1e-5
    assert 1e-5 < module.lr < 1e-1
    assert rates[-100:] == pytest.approx([module.lr * (1 - i / 100) for i in range(100)])
