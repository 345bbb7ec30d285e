"""What the Trainer is told of a model: how it trains, and what is logged and drawn of it."""

from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam
from torchmetrics import MeanMetric

from lightning_ddpm.batch import Batch, clean, places_of, size_of
from lightning_ddpm.data import ArrayDataModule
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.judge import LossByTime, VariationalBound
from lightning_ddpm.likelihood import estimate_bound
from lightning_ddpm.noise import BatchNoise, SampleNoise, seeded
from lightning_ddpm.objective import UniformTimes
from lightning_ddpm.parts import check_data, config_of
from lightning_ddpm.training.asked import arrays_of, asked_of
from lightning_ddpm.training.curves import open_hparams, show_bound
from lightning_ddpm.training.decay import LinearDecay, go_on
from lightning_ddpm.training.ema import average_alone, raw_weights
from lightning_ddpm.training.grids import draw_grid, shows_progress
from lightning_ddpm.training.muon import Muon
from lightning_ddpm.training.precision import check_precision
from lightning_ddpm.training.progress import batch_seed, ends, epoch_and_batch, is_due
from lightning_ddpm.training.resume import drop_gradients

EVALUATION_SEED = 0  # of the grids and of the noise in validation and test
BAR_EVERY = 10  # batches: the loss in the progress bar, for which a GPU must be waited for


class DiffusionLightningModule(LightningModule):
    """Trains a ``Diffusion``, or anything else that has ``loss(batch, noise) -> (b)``.

    The batches are what the model's ``loss`` takes. It owns, through the model, the buffers of the
    schedule and the network.

    Args:
        model: what is trained; ``Diffusion()``, the paper's, if not given.
        optimizer: ``muon`` for weights that are matrices, with Adam for the rest; or ``adam`` for
            all, as in the paper.
        lr: learning rate, which falls in a straight line to zero at the end of the run.
        warmup_steps: optimizer steps over which it first rises from zero to that line.
        grid_every_n_epochs: epochs from one grid of samples to the next; the last one has one.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if the model could not be built again from its attributes.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: Literal["adam", "muon"] = "muon",
        lr: float = 1e-3,
        warmup_steps: int = 100,
        grid_every_n_epochs: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < lr <= torch.finfo(torch.float32).max:
            raise ValueError(f"lr must be above 0 and a finite float32, got {lr}")
        if warmup_steps < 1 or grid_every_n_epochs < 1:
            raise ValueError("warmup_steps and grid_every_n_epochs must be at least 1")
        self.model: Any = Diffusion() if model is None else model
        self.diffuses = isinstance(self.model, Diffusion)  # with time steps and samples
        self.optimizer = optimizer
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.grid_every_n_epochs = grid_every_n_epochs
        self.grid_path, self.grid_step = None, -1
        instantiator = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
        self.save_hyperparameters(instantiator | config_of(self)["init_args"])

    def setup(self, stage: str) -> None:
        """Refuse precisions that would spoil the schedule, and data that the model is not for."""
        check_precision(self.trainer.precision)
        data = getattr(self.trainer, "datamodule", None)
        if self.diffuses and isinstance(data, ArrayDataModule) and data.needed(stage):
            check_data(self.model, data.raw_shape, len(data.class_names))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Algorithm 1 of Ho et al. 2020: the loss of noised data, to take a gradient step on."""
        noise = self.batch_noise(size_of(batch))
        with seeded(hash((batch_seed(self.trainer), 1 + self.global_rank)), self.device):
            losses = self.model.loss(batch, noise)
        loss = losses.mean()
        self.log("train/loss", loss, batch_size=len(losses))
        if batch_idx % BAR_EVERY == 0:
            self.log("loss", loss.detach().cpu(), prog_bar=True, logger=False)
        return {"loss": loss, "loss_of_each": losses.detach()}

    def batch_noise(self, size: int, batches: int | None = None) -> BatchNoise:
        """What is random in a batch of all processes: the run's ``batches``-th, or this one."""
        generator = torch.Generator(self.device).manual_seed(batch_seed(self.trainer, batches))
        return BatchNoise(generator, size, self.global_rank, self.trainer.world_size)

    def epoch_and_batch(self) -> tuple[int, int]:
        """The epoch to train, and how many of its batches have been trained: data go on there."""
        return epoch_and_batch(self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a linear rise of the learning rate to its linear fall to zero."""
        muon, weights = self.optimizer == "muon", self.model.parameters()
        optimizer = Muon(self.model, self.lr) if muon else Adam(weights, self.lr, betas=(0.9, 0.99))
        scheduler = LinearDecay(optimizer, self.lr, self.warmup_steps, lambda: ends(self.trainer))
        steps: Any = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": steps}

    def on_train_start(self) -> None:
        """Go on from a checkpoint with this run's learning rate, length and batches."""
        go_on(self.trainer)

    def on_fit_start(self) -> None:
        """Train what was loaded for use, too; open this run's row in TensorBoard, to be filled."""
        self.grid_step = -1
        if not self.model.training:
            self.model.train()
        open_hparams(self.trainer, self.hparams)

    def on_train_end(self) -> None:
        """Draw the last grid, if the run's end did not fall on one."""
        self.draw_grid()

    def evaluation_noise(self, batch: Batch) -> SampleNoise:
        """The noise of each sample's own, whatever the batch."""
        places = places_of(batch, self.counted, self.global_rank, self.trainer.world_size)
        self.counted += len(places)
        return SampleNoise(EVALUATION_SEED, places)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let weights that are saved alone be the average: Lightning asks no callback then."""
        average_alone(self.trainer, checkpoint)

    def cpu(self) -> Any:
        """Leave a GPU, and there the gradients that no step waits for: CUDA graphs keep them."""
        drop_gradients(self)
        return super().cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the weights in training where none are averaged."""
        raw_weights(self, checkpoint)

    def on_validation_epoch_start(self) -> None:
        """Start anew: the count of the samples, and the loss by time step."""
        self.counted, self.mean = 0, MeanMetric().to(self.device)
        self.by_time = LossByTime(self.model.schedule.T).to(self.device) if self.diffuses else None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss, which depends on the weights alone."""
        noise = self.evaluation_noise(batch)
        losses = self.model.loss(batch, noise)
        self.mean.update(losses)
        if self.by_time is not None:
            self.by_time.update(losses, UniformTimes().draw(self.model.schedule, noise))

    def on_validation_epoch_end(self) -> None:
        """Log the loss, also by time step; draw a grid, in the epochs that ask for one."""
        loss = self.mean.compute()  # of all processes: Lightning's would weigh their shares alike
        self.log_dict({"val/loss": loss, "hp/val_loss": loss}, sync_dist=True)
        if self.by_time is not None:
            for name, loss in self.by_time.compute().items():
                self.log(f"val_by_time/{name}", loss, sync_dist=True)  # the same on all
        due = is_due(self.trainer, self.grid_every_n_epochs)
        if due and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.draw_grid()

    def draw_grid(self) -> None:
        """Draw samples of the current weights, once, for TensorBoard and as a PNG."""
        if self.diffuses and self.grid_step != self.global_step:
            self.grid_step = self.global_step
            self.grid_path = draw_grid(self.trainer, self.model, EVALUATION_SEED) or self.grid_path

    def on_test_epoch_start(self) -> None:
        """Start anew: the count of the samples, and the bound, where the medium has one."""
        self.counted, self.mean, self.bound = 0, MeanMetric().to(self.device), None
        if self.diffuses and self.model.medium.has_decoder and not self.model.observation:
            self.bound = VariationalBound(self.model.schedule.T).to(self.device)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss on the test samples, and estimate their variational bound."""
        noise = self.evaluation_noise(batch)
        losses = self.model.loss(batch, noise)
        self.mean.update(losses)
        if self.bound is not None:
            x0, condition = clean(self.model, batch)
            denoise = self.model.denoiser(condition, guidance=1.0)
            decoder = self.model.medium.log_likelihood
            self.bound.update(estimate_bound(denoise, x0, noise.indices, decoder, EVALUATION_SEED))

    def on_test_epoch_end(self) -> None:
        """Log the loss, and the bound in bits per dimension; plot its terms over t."""
        self.log("test/loss", self.mean.compute(), sync_dist=True)
        if self.bound is not None:
            figures, terms = self.bound.compute()
            self.log_dict({f"test/{n}": figure for n, figure in figures.items()}, sync_dist=True)
            show_bound(self.trainer, terms)

    def predict_step(self, index: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """Generate the samples of this ``index`` (b), with the seed of ``seed_everything``."""
        indices, seed = index.tolist(), torch.initial_seed()
        asked = asked_of(self.trainer, self.model, indices, seed)
        progress = shows_progress(self.trainer)
        x0 = self.model.sample(indices=indices, seed=seed, progress=progress, **asked.options)
        return {"index": index.cpu(), **arrays_of(self.model, x0, asked)}
