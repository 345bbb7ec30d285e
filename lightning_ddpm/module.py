"""The model: schedule, network, target and sampler, and what the Trainer asks of them."""

import math
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from lightning import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from lightning_ddpm.denoiser import Denoiser
from lightning_ddpm.images import image_grid, to_uint8, write_png
from lightning_ddpm.networks import Network, UNet
from lightning_ddpm.noise import SampleNoise
from lightning_ddpm.objective import NoiseTarget, Target, squared_error
from lightning_ddpm.parts import check_image_shape, recipe
from lightning_ddpm.samplers import AncestralSampler, Sampler
from lightning_ddpm.schedule import LinearSchedule, NoiseSchedule
from lightning_ddpm.shapes import Images, PerSample, TimeSteps, expand_like

GRID_IMAGES = 16
EVALUATION_SEED = 0  # of the grids and of the noise in validation and test


class DiffusionLightningModule(LightningModule):
    """A denoising diffusion probabilistic model (Ho et al. 2020, arXiv 2006.11239).

    Each part keeps its constructor's arguments as attributes of the same names, so that a
    checkpoint can rebuild the model without being told anything.

    Args:
        network: called as ``network(x_t, t)``; ``UNet()`` if not given.
        schedule: the forward process; ``LinearSchedule()`` if not given.
        target: what the network predicts; ``NoiseTarget()`` if not given.
        sampler: draws the grids and the samples; ``AncestralSampler()`` if not given.
        lr: peak learning rate of Adam; it rises for ``warmup_steps``, then falls to zero at the
            end of the run.
        warmup_steps: optimizer steps until the learning rate has its peak.
        image_shape: channels, height and width of the images.
        grid_every_n_epochs: epochs from one grid of samples to the next; the last one has one.

    Raises:
        ValueError: if an argument is out of range, or the sampler has more steps than the schedule.
    """

    def __init__(
        self,
        network: Network | None = None,
        schedule: NoiseSchedule | None = None,
        target: Target | None = None,
        sampler: Sampler | None = None,
        lr: float = 1e-3,
        warmup_steps: int = 100,
        image_shape: Sequence[int] = (1, 28, 28),
        grid_every_n_epochs: int = 1,
    ) -> None:
        super().__init__()
        if not lr > 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        if warmup_steps < 1 or grid_every_n_epochs < 1:
            raise ValueError("warmup_steps and grid_every_n_epochs must be at least 1")
        self.network = network or UNet()
        self.schedule = schedule or LinearSchedule()
        self.target = target or NoiseTarget()
        self.sampler = sampler or AncestralSampler()
        # Raise now rather than after an epoch of training.
        self.sampler.timesteps(self.schedule)
        check_image_shape(self.network, image_shape)
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.image_shape = tuple(image_shape)
        self.grid_every_n_epochs = grid_every_n_epochs
        self.grid_path: Path | None = None
        self._grid_step = -1
        self.save_hyperparameters(
            {
                "_instantiator": "lightning.pytorch.cli.instantiate_module",
                "network": recipe(self.network),
                "schedule": recipe(self.schedule),
                "target": recipe(self.target),
                "sampler": recipe(self.sampler),
                "lr": lr,
                "warmup_steps": warmup_steps,
                "image_shape": self.image_shape,
                "grid_every_n_epochs": grid_every_n_epochs,
            }
        )

    def setup(self, stage: str) -> None:
        """Refuse precisions that would spoil the schedule."""
        check_precision(self.trainer.precision)

    # Training

    def loss(self, x0: Images, t: TimeSteps, noise: Images) -> PerSample:
        """The loss (b) of each image, noised to ``t`` (b) with ``noise`` (b, c, h, w)."""
        x_t = self.schedule.add_noise(x0, noise, t)
        output = self.network(x_t, t)
        alpha, sigma = (expand_like(value, x0) for value in self.schedule.alpha_sigma(t))
        return squared_error(output, self.target.target(x0, noise, alpha, sigma))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Algorithm 1 of Ho et al. 2020, for each image x0 of the batch."""
        x0 = batch["image"]
        generator = self.training_generator()
        t = torch.randint(self.schedule.T, x0.shape[:1], generator=generator, device=x0.device)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        loss = self.loss(x0, t, noise).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def training_generator(self) -> torch.Generator:
        """What draws t and noise, with a seed of its own for each process and batch."""
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.ready
        key = hash((torch.initial_seed(), self.global_rank, batches))
        return torch.Generator(self.device).manual_seed(key)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, with a linear rise of the learning rate and then a linear fall to zero."""
        optimizer = torch.optim.Adam(self.network.parameters(), self.lr, betas=(0.9, 0.99))
        # A lambda, because checkpoints would pickle a method.
        scheduler = LambdaLR(optimizer, lambda step: self.lr_factor(step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def lr_factor(self, step: int) -> float:
        """The learning rate of an optimizer step, as a part of its peak."""
        steps = self.trainer.estimated_stepping_batches  # infinite if the run has no end
        return min((step + 1) / self.warmup_steps, max(1 - step / max(steps, 1), 0))

    def on_train_start(self) -> None:
        """Go on from a checkpoint with this run's learning rate and length, not with its own."""
        scheduler = self.trainer.lr_scheduler_configs[0].scheduler
        scheduler.base_lrs = [self.lr]
        scheduler.optimizer.param_groups[0]["lr"] = self.lr * self.lr_factor(self.global_step)

    # Evaluation

    def evaluation_loss(self, batch: dict[str, Tensor]) -> PerSample:
        """The loss (b) of each image at a time step and with a noise that are its own.

        The time steps of images 0, 1, 2... are a Kronecker sequence with the golden ratio: any
        run of images is spread evenly over all time steps.
        """
        x0, index = batch["image"], batch["index"]
        golden = (math.sqrt(5) - 1) / 2
        t = (index.cpu().double() * golden % 1 * self.schedule.T).long().to(x0.device)
        noise = SampleNoise(EVALUATION_SEED, index.tolist()).draw(x0.shape[1:]).to(x0.device)
        return self.loss(x0, t, noise)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss, which depends on the weights alone."""
        loss = self.evaluation_loss(batch)
        metrics = {"val/loss": loss.mean(), "hp/val_loss": loss.mean()}
        self.log_dict(metrics, batch_size=len(loss), sync_dist=True)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss on the test images."""
        loss = self.evaluation_loss(batch)
        self.log("test/loss", loss.mean(), batch_size=len(loss), sync_dist=True)

    def on_fit_start(self) -> None:
        """Open this run's row in TensorBoard's HPARAMS tab, to be filled by validation."""
        if isinstance(self.logger, TensorBoardLogger):
            data = getattr(self.trainer, "datamodule", None)
            hparams = dict(self.hparams) | dict(data.hparams if data else {})
            hparams = {name: value for name, value in hparams.items() if name[0] != "_"}
            self.logger.log_hyperparams(hparams, {"hp/val_loss": math.nan})

    def on_validation_epoch_end(self) -> None:
        """Draw a grid of samples, in the epochs that ask for one."""
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
        picture = image_grid(to_uint8(images))
        self.grid_path = Path(log_dir) / "grids" / f"step-{self.global_step:06d}.png"
        write_png(picture, self.grid_path)
        if isinstance(self.logger, TensorBoardLogger):
            self.logger.experiment.add_image("samples", picture, self.global_step)

    # Sampling

    def predict_step(self, index: Int[Tensor, " b"], batch_idx: int) -> dict[str, Tensor]:
        """Generate the samples of this ``index`` (b), with the seed of ``seed_everything``."""
        seed = torch.initial_seed()
        images = self.sample(index.tolist(), seed=seed, progress=self.shows_progress)
        return {"index": index.cpu(), "image": to_uint8(images).cpu()}

    @property
    def shows_progress(self) -> bool:
        """Whether this process of the Trainer shows progress bars."""
        return self.trainer.is_global_zero and self.trainer.progress_bar_callback is not None

    @torch.no_grad()
    def sample(
        self, samples: int | Sequence[int] = GRID_IMAGES, *, seed: int = 0, progress: bool = True
    ) -> Images:
        """Generate images (b, c, h, w) in [-1, 1] (Algorithm 2 of Ho et al. 2020).

        Args:
            samples: how many, or the index of each. Image ``index`` of ``seed`` starts from the
                same noise in any batch and on any device.
            seed: the seed of all noise, not negative.
            progress: whether to show a progress bar.
        """
        noise = SampleNoise(seed, range(samples) if isinstance(samples, int) else samples)
        x = noise.draw(self.image_shape).to(self.schedule.alpha)
        denoise = Denoiser(self.network, self.schedule, self.target)
        steps = len(self.sampler.timesteps(self.schedule)) - 1
        trajectory = self.sampler.trajectory(denoise, self.schedule, x, noise)
        title = f"sampling {len(x)} images"
        bar = tqdm(trajectory, title, steps, leave=False, unit="step", disable=not progress)
        was_training = self.network.training
        self.network.eval()
        try:
            (images,) = deque(bar, maxlen=1)
        finally:
            self.network.train(was_training)
        return images


def check_precision(precision: str | None) -> None:
    """Raise ValueError if ``precision`` would not keep schedule and weights in float32.

    In half precision the schedule's first steps would vanish.
    """
    if precision and precision.endswith("-true") and precision != "32-true":
        raise ValueError(
            f"precision {precision} does not keep the noise schedule and the weights in float32; "
            "use 16-mixed, bf16-mixed or 32-true"
        )
