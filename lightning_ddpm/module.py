"""The model: schedule, network, target and sampler, and what the Trainer asks of them."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from lightning import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lightning_ddpm.denoiser import Variance
from lightning_ddpm.diffusion import GRID_IMAGES, Diffusion
from lightning_ddpm.guidance import chosen
from lightning_ddpm.hardware import check_precision
from lightning_ddpm.images import image_grid, to_uint8, write_png
from lightning_ddpm.likelihood import VariationalBound, estimate_bound
from lightning_ddpm.muon import Muon
from lightning_ddpm.networks import Network, UNet
from lightning_ddpm.noise import SampleNoise, evenly
from lightning_ddpm.objective import (
    NoiseTarget,
    Target,
    TimeSampler,
    UniformTimes,
    UniformWeighting,
    Weighting,
)
from lightning_ddpm.parts import check_network, check_target, own_hparams, recipe
from lightning_ddpm.samplers import Ancestral, Sampler
from lightning_ddpm.schedule import LinearSchedule, NoiseSchedule
from lightning_ddpm.shapes import Labels, PerSample, TimeSteps

EVALUATION_SEED = 0  # of the grids and of the noise in validation and test
TIME_BINS = 10  # of the validation loss by time step
BAR_EVERY = 10  # batches: the loss in the progress bar, for which a GPU must be waited for
LAYOUT = {  # of the tab CUSTOM SCALARS in TensorBoard: curves that are read together
    "Loss": {
        "training and validation": ["Multiline", ["train/loss", "val/loss"]],
        "validation, by time step": ["Multiline", ["val_by_time/.*"]],
    },
    "Optimizer": {"learning rate": ["Multiline", ["lr-.*"]]},
    "Samples": {
        "Fréchet distance": ["Multiline", ["eval/frechet_distance", "eval/frechet_floor"]],
        "precision and recall": ["Multiline", ["eval/precision$", "eval/recall$"]],
    },
}


class DiffusionLightningModule(Diffusion, LightningModule):
    """A denoising diffusion probabilistic model (Ho et al. 2020, arXiv 2006.11239).

    Each part keeps its constructor's arguments as attributes of the same names, so that a
    checkpoint can rebuild the model without being told anything.

    Args:
        network: called as ``network(x_t, t, label)``; ``UNet()`` if not given.
        schedule: the forward process; ``LinearSchedule()`` if not given.
        target: what the network predicts; ``NoiseTarget()`` if not given.
        sampler: draws the grids and the samples; ``Ancestral()`` if not given.
        weighting: what the network's errors cost; ``UniformWeighting()`` if not given.
        time_sampler: which time steps it is trained at; ``UniformTimes()`` if not given.
        variance: the reverse process's: fixed ``small`` or ``large``, or ``learned`` by a network
            of twice the output channels.
        labels: the classes that grids and predict show in turn; all of them if not given.
        label_dropout: the part of the labels that are left out in training, for guidance.
        guidance: scale of guidance, away from the network without labels or, if it has none, from
            its weaker self; 1 is none. If not given, 2 where the network has either, else 1.
        guidance_interval: the time steps that are guided, from low to below high, as parts of T.
        optimizer: ``muon`` for the weights of convolutions and linear layers, with Adam for the
            rest; or ``adam`` for all, as in the paper.
        lr: learning rate, which falls in a straight line to zero at the end of the run.
        warmup_steps: optimizer steps over which it first rises from zero to that line.
        image_shape: channels, height and width of the images.
        grid_every_n_epochs: epochs from one grid of samples to the next; the last one has one.

    Raises:
        ValueError: if an argument is out of range, or the parts do not fit together.
        TypeError: if a part could not be built again from its attributes.
    """

    def __init__(
        self,
        network: Network | None = None,
        schedule: NoiseSchedule | None = None,
        target: Target | None = None,
        sampler: Sampler | None = None,
        weighting: Weighting | None = None,
        time_sampler: TimeSampler | None = None,
        variance: Variance = "small",
        labels: Sequence[int] | None = None,
        label_dropout: float = 0.1,
        guidance: float | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        optimizer: Literal["adam", "muon"] = "muon",
        lr: float = 1e-3,
        warmup_steps: int = 100,
        image_shape: Sequence[int] = (1, 28, 28),
        grid_every_n_epochs: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < lr <= torch.finfo(torch.float32).max:
            raise ValueError(f"lr must be above 0 and a finite float32, got {lr}")
        if warmup_steps < 1 or grid_every_n_epochs < 1:
            raise ValueError("warmup_steps and grid_every_n_epochs must be at least 1")
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must be from 0 to 1, got {label_dropout}")
        low, high = guidance_interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"guidance_interval must rise, from 0 to at most 1, got {low}, {high}")
        self.network = network or UNet()
        self.schedule = schedule or LinearSchedule()
        self.target = target or NoiseTarget()
        self.weighting = weighting or UniformWeighting()
        self.time_sampler = time_sampler or UniformTimes()
        self.sampler = sampler or Ancestral()
        self.variance: Variance = variance
        self.labels = labels
        self.label_dropout = label_dropout
        self.guidance = guidance
        self.guidance_interval = (low, high)
        self.optimizer = optimizer
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.image_shape = tuple(image_shape)
        self.grid_every_n_epochs = grid_every_n_epochs
        self.grid_path: Path | None = None
        self._grid_step = -1
        # Raise now rather than after an epoch of training.
        self.sampler.timesteps(self.schedule)
        check_target(self.target, self.schedule)
        check_network(self.network, self.image_shape, variance == "learned")
        if variance == "learned" and not isinstance(self.time_sampler, UniformTimes):
            raise ValueError("a learned variance is trained at all time steps: take UniformTimes")
        self.denoiser(self.labels_of([0]))
        instantiator = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
        self.save_hyperparameters(instantiator | recipe(self)["init_args"])

    def setup(self, stage: str) -> None:
        """Refuse precisions that would spoil the schedule, and images and labels of other data."""
        check_precision(self.trainer.precision)
        n = self.network.num_classes
        for split in getattr(getattr(self.trainer, "datamodule", None), "splits", {}).values():
            shape = tuple(split.images.shape[1:])
            if shape != self.image_shape:
                raise ValueError(f"image_shape {self.image_shape} is not that of the data, {shape}")
            if 0 < n <= (highest := int(split.labels.max())):
                raise ValueError(f"num_classes {n} is below the {highest + 1} classes of the data")

    # Training

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Algorithm 1 of Ho et al. 2020, for each image x0 of the batch.

        What is random is drawn for the batches of all processes, of which this one has every nth
        image: they train as one process with all images would.
        """
        x0, label = batch["image"], self.label_of(batch)
        processes = self.trainer.world_size
        n, mine = len(x0) * processes, slice(self.global_rank, None, processes)
        generator = self.training_generator()
        t = self.time_sampler.draw(self.schedule, n, generator)[mine]
        noise = torch.randn((n, *x0.shape[1:]), generator=generator, device=x0.device)[mine]
        if label is not None:
            label = label.masked_fill(chosen(n, self.label_dropout, generator)[mine], -1)
        part = self.network.weak_dropout
        weak = chosen(n, part, generator)[mine] if part > 0 else None
        losses = self.loss(x0, t, noise, label, weak)
        loss = losses.mean()
        self.log("train/loss", loss)
        if batch_idx % BAR_EVERY == 0:
            self.log("loss", loss.detach().cpu(), prog_bar=True, logger=False)
        return {"loss": loss, "loss_of_each": losses.detach(), "t": t}

    def training_generator(self) -> torch.Generator:
        """What draws t and noise, with a seed of its own for each batch, also after a stop."""
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        return torch.Generator(self.device).manual_seed(hash((torch.initial_seed(), batches)))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and a linear rise of the learning rate to its linear fall to zero."""
        if self.optimizer == "muon":
            optimizer = Muon(self.network, self.lr)
        else:
            optimizer = torch.optim.Adam(self.network.parameters(), self.lr, betas=(0.9, 0.99))
        # A lambda, because checkpoints would pickle a method.
        scheduler = LambdaLR(optimizer, lambda step: self.lr_factor(step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def lr_factor(self, step: int) -> float:
        """The learning rate of an optimizer step, as a part of ``lr``."""
        if step == 0:  # asked before the Trainer may look at the data
            return 1 / self.warmup_steps
        steps = self.trainer.estimated_stepping_batches  # infinite if the run has no end
        return min((step + 1) / self.warmup_steps, max(1 - step / max(steps, 1), 0))

    def on_train_start(self) -> None:
        """Go on from a checkpoint with this run's learning rate and length, not with its own."""
        scheduler = self.trainer.lr_scheduler_configs[0].scheduler
        scheduler.base_lrs = [self.lr] * len(scheduler.base_lrs)
        for group in scheduler.optimizer.param_groups:
            group["lr"] = self.lr * self.lr_factor(self.global_step)

    # Evaluation

    def evaluation_loss(self, batch: dict[str, Tensor]) -> PerSample:
        """The loss (b) of each image at a time step and with a noise that are its own."""
        x0, index = batch["image"], batch["index"]
        t = self.evaluation_times(index).to(x0.device)
        noise = SampleNoise(EVALUATION_SEED, index.tolist()).draw(x0.shape[1:]).to(x0.device)
        return self.loss(x0, t, noise, self.label_of(batch))

    def evaluation_times(self, index: Int[Tensor, " b"]) -> TimeSteps:
        """The time step of each image, on the CPU; any run of images is spread over all of them."""
        return (evenly(index.cpu()) * self.schedule.T).long()

    def label_of(self, batch: dict[str, Tensor]) -> Labels | None:
        """The labels (b) of a batch, if the network can be told of them."""
        return batch["label"] if self.network.num_classes > 0 else None

    def on_validation_epoch_start(self) -> None:
        """Start the loss by time step anew: its sums and how many they are of."""
        self.loss_by_time = torch.zeros(2, TIME_BINS, device=self.device)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss, which depends on the weights alone."""
        loss = self.evaluation_loss(batch)
        metrics = {"val/loss": loss.mean(), "hp/val_loss": loss.mean()}
        self.log_dict(metrics, batch_size=len(loss), sync_dist=True)
        bins = self.evaluation_times(batch["index"]).to(loss.device) * TIME_BINS // self.schedule.T
        self.loss_by_time.index_add_(1, bins, torch.stack([loss, torch.ones_like(loss)]))

    def on_test_epoch_start(self) -> None:
        """Start the variational bound anew."""
        self.bound = VariationalBound(self.schedule.T).to(self.device)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss on the test images, and estimate their variational bound."""
        loss = self.evaluation_loss(batch)
        self.log("test/loss", loss.mean(), batch_size=len(loss), sync_dist=True)
        denoise = self.denoiser(self.label_of(batch), guidance=1.0)
        index = batch["index"].tolist()
        seed = EVALUATION_SEED
        self.bound.update(estimate_bound(denoise, self.schedule, batch["image"], index, seed))

    def on_test_epoch_end(self) -> None:
        """Log the bound in bits per dimension, and plot its terms over t."""
        figures, terms = self.bound.compute()
        self.log_dict({f"test/{name}": value for name, value in figures.items()}, sync_dist=True)
        if isinstance(self.logger, TensorBoardLogger):
            for t, term in enumerate(terms.tolist()):
                if not math.isnan(term):
                    self.logger.experiment.add_scalar("test/L_t over t", term, t)

    def on_fit_start(self) -> None:
        """Open this run's row in TensorBoard's HPARAMS tab, to be filled; lay out its curves."""
        if not isinstance(self.logger, TensorBoardLogger):
            return
        if not (Path(self.logger.log_dir) / self.logger.NAME_HPARAMS_FILE).exists():
            data = getattr(self.trainer, "datamodule", None)
            hparams = own_hparams(dict(self.hparams) | dict(data.hparams if data else {}))
            self.logger.log_hyperparams(hparams, {"hp/val_loss": math.nan})
            self.logger.experiment.add_custom_scalars(LAYOUT)

    def on_validation_epoch_end(self) -> None:
        """Log the loss by time step; draw a grid of samples, in the epochs that ask for one."""
        sums, counts = self.trainer.strategy.reduce(self.loss_by_time, reduce_op="sum").cpu()
        for i in counts.nonzero().flatten().tolist():
            first, end = (-(-j * self.schedule.T // TIME_BINS) for j in (i, i + 1))
            name = f"val_by_time/{first:04d}-{end - 1:04d}"
            self.log(name, sums[i] / counts[i])
        due = (self.current_epoch + 1) % self.grid_every_n_epochs == 0
        if due and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.draw_grid()

    def on_train_end(self) -> None:
        """Draw the last grid, if the run's end did not fall on one."""
        self.draw_grid()

    def draw_grid(self) -> None:
        """Draw the samples of the current weights, once, for TensorBoard and as a PNG."""
        log_dir = self.trainer.log_dir  # collective: asked for on every process
        if self._grid_step == self.global_step or not self.trainer.is_global_zero:
            return
        self._grid_step = self.global_step
        with self.trainer.precision_plugin.forward_context():
            images = self.sample(GRID_IMAGES, seed=EVALUATION_SEED, progress=self.shows_progress)
        if log_dir is None:  # fast_dev_run leaves nothing behind
            return
        label = self.labels_of(range(GRID_IMAGES))
        picture = image_grid(to_uint8(images), captions=None if label is None else label.tolist())
        self.grid_path = Path(log_dir) / "grids" / f"step-{self.global_step:06d}.png"
        write_png(picture, self.grid_path)
        if isinstance(self.logger, TensorBoardLogger):
            self.logger.experiment.add_image("samples", picture, self.global_step)

    # Sampling

    def predict_step(self, index: Int[Tensor, " b"], batch_idx: int) -> dict[str, Tensor]:
        """Generate the samples of this ``index`` (b), with the seed of ``seed_everything``."""
        indices = index.tolist()
        images = self.sample(indices, seed=torch.initial_seed(), progress=self.shows_progress)
        label = self.labels_of(indices)
        samples = {"index": index.cpu(), "image": to_uint8(images).cpu()}
        return samples if label is None else samples | {"label": label.cpu()}

    @property
    def shows_progress(self) -> bool:
        """Whether this process of the Trainer shows progress bars."""
        return self.trainer.is_global_zero and self.trainer.progress_bar_callback is not None
