"""Dropout in training: its masks are new in each batch, and the same after a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from changed import Fit
from fits import SHAPE, FewImages, trainer
from lightning.pytorch.callbacks import Callback
from runs import flat
from torch import nn
from toys import Dropping

from lightning_ddpm import Diffusion, DiffusionLightningModule
from lightning_ddpm.samplers import Ancestral
from lightning_ddpm.training import EMA, LastCheckpoint


def dropping(**options: Any) -> DiffusionLightningModule:
    model = Diffusion(Dropping(), sampler=Ancestral(1), shape=SHAPE)
    return DiffusionLightningModule(model, **{"lr": 0.01, "warmup_steps": 1, **options})


@pytest.mark.parametrize("batches", [10, 17])
def test_a_run_with_dropout_goes_on_to_the_same_end(batches: int, tmp_path: Path) -> None:
    def fit(folder: str, path: Path | None = None, *more: Callback) -> Path:
        torch.manual_seed(0)
        saver = LastCheckpoint(0)
        run = trainer(tmp_path / folder, max_epochs=2, callbacks=[EMA(), saver, *more])
        torch.rand(3 if path else 5)  # torch's own generator is elsewhere
        run.fit(dropping(), FewImages(), ckpt_path=path, weights_only=True)
        assert torch.initial_seed() == 0
        assert saver.path is not None
        return saver.path

    whole, cut = fit("whole"), fit("cut", None, Fit(batches))
    assert torch.load(cut, weights_only=True)["global_step"] == batches
    ends = [torch.load(path, weights_only=True) for path in (whole, fit("on", cut))]
    names = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers")
    assert len({str(flat({n: end[n] for n in names})) for end in ends}) == 1


def test_dropout_has_masks_of_its_own_in_each_batch(tmp_path: Path) -> None:
    class Masks(nn.Dropout):
        seen: list[torch.Tensor] = []  # noqa: RUF012

        def forward(self, input):
            mask = super().forward(torch.ones_like(input))
            self.seen += [mask] if self.training else []
            return input * mask

    module = dropping()
    module.model.network.layers[2] = Masks()
    trainer(tmp_path, max_steps=4, limit_val_batches=0).fit(module, FewImages())
    assert len(Masks.seen) == len({mask.numpy().tobytes() for mask in Masks.seen}) == 4


def test_a_model_that_was_loaded_for_use_is_trained_with_its_dropout(tmp_path: Path) -> None:
    module = dropping()
    module.model.eval()
    trainer(tmp_path, max_steps=3, limit_val_batches=0).fit(module, FewImages())
    assert module.model.network.layers[2].training
    assert module.model.network.layers[1].num_batches_tracked == 3
