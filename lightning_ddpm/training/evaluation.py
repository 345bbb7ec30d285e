"""Judges the samples of a model, while it trains and in ``test``."""

import json

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_ddpm.data import ArrayDataModule
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.files import (
    note,
    noted,
    path_of,
    refuse_others,
    replacing,
    require_writable,
)
from lightning_ddpm.judge import Judge, in_float32, restoration_error, with_floors
from lightning_ddpm.training.asked import Asked, arrays_of, asked_of
from lightning_ddpm.training.curves import tensorboard
from lightning_ddpm.training.grids import shows_progress
from lightning_ddpm.training.module import EVALUATION_SEED, DiffusionLightningModule
from lightning_ddpm.training.precision import measuring_device
from lightning_ddpm.training.progress import is_due

METRICS = "metrics.json"


class SampleEvaluation(Callback):
    """Scores samples of the average weights, beside as many test samples, with the data's judge.

    Of a model that observes, beside the true samples and those of a simple method.

    In training the figures are logged as ``eval/...``, where ModelCheckpoint can monitor them, and
    a picture shows samples beside real ones. ``test`` prints them as one table, with the bits per
    dimension. Data without a ``judge()`` are not judged.

    Args:
        num_samples: how many are generated and judged, on all processes together; if not given, as
            many as are usual for the judge: 1,000 images, all windows of series.
        every_n_epochs: epochs from one evaluation in training to the next; 0 for none. If not
            given, each epoch on a GPU, and none on a CPU, where it takes its time.
        outdir: folder for the ``metrics.json`` of ``test``, if it shall be written.

    Raises:
        ValueError: if an argument is out of range; before it begins, if there are fewer samples
            than processes.
    """

    def __init__(
        self,
        num_samples: int | None = None,
        every_n_epochs: int | None = None,
        outdir: str | None = None,
    ) -> None:
        if (num_samples is not None and num_samples < 6) or (every_n_epochs or 0) < 0:
            raise ValueError(
                "evaluation needs num_samples of at least 6 and every_n_epochs of at least 0, "
                f"got {num_samples}, {every_n_epochs}"
            )
        self.num_samples = num_samples
        self.every_n_epochs = every_n_epochs
        self.outdir = outdir
        self.folder = path_of(outdir) if outdir else None
        self.judge: Judge | None = None
        self.floors: dict[str, float] = {}
        self.baseline: dict[str, float] = {}
        self.failed = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that the folder can be written; forget what was judged before."""
        self.judge = None
        if (self.num_samples or Judge.usual) < trainer.world_size:
            processes = f"{trainer.world_size} processes"
            raise ValueError(f"evaluation.num_samples {self.num_samples} is below the {processes}")
        if stage == "test" and self.folder:
            require_writable(self.folder)
            refuse_others(self.folder, [METRICS])

    def every(self, trainer: Trainer) -> int:
        """Epochs from one evaluation to the next; 0 for none."""
        on_cpu = isinstance(trainer.accelerator, CPUAccelerator)
        return int(not on_cpu) if self.every_n_epochs is None else self.every_n_epochs

    def due(self, trainer: Trainer) -> bool:
        """Whether this is an epoch that ends with an evaluation."""
        return is_due(trainer, self.every(trainer))

    def done(self, trainer: Trainer) -> bool:
        """Whether this epoch's samples have been judged."""
        return self.due(trainer) and not self.failed

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the average weights, in the epochs that ask for it; go on if it fails."""
        self.failed = False
        if self.due(trainer) and trainer.state.fn == "fit" and not trainer.sanity_checking:
            try:
                self.evaluate(trainer, pl_module, "eval")
            except Exception as error:  # of any kind: a device may lack what is asked of it
                if trainer.world_size > 1:  # the others would wait
                    raise
                self.failed, self.judge = True, None
                rank_zero_warn(f"the samples could not be judged, training goes on: {error}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the weights that are tested."""
        self.evaluate(trainer, pl_module, "test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print everything that was measured, and write it if asked to."""
        if not trainer.is_global_zero:
            return
        figures = {
            name.removeprefix("test/"): value.item()
            for name, value in trainer.callback_metrics.items()
        }
        if "bits_per_dim" in figures:
            bits, error = figures["bits_per_dim"], figures["bits_per_dim_ci95"]
            parts = ", ".join(f"{name} {figures[name]:.4g}" for name in ("L_T", "L_t", "L_0"))
            print(f"\nbits per dimension: {bits:.3f} +- {error:.3f} ({parts})")
        print(f"denoising loss:     {figures['loss']:.5f}")
        if self.judge is not None:
            print(f"\n{self.judge.table(figures)}")
        if self.folder:
            with replacing(self.folder / METRICS) as temporary:
                temporary.write_text(json.dumps(figures, indent=2) + "\n")
            note(self.folder, noted(self.folder) | {self.folder / METRICS})

    def evaluate(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Generate samples, each process its share, and log their figures."""
        data = getattr(trainer, "datamodule", None)
        assert isinstance(pl_module, DiffusionLightningModule)
        if not (isinstance(data, ArrayDataModule) and pl_module.diffuses):
            return
        model, share = pl_module.model, (trainer.global_rank, trainer.world_size)
        if self.judge is None:
            self.judge = data.judge()
            if self.judge is None:
                return
            self.judge.to(measuring_device(pl_module.device))
            few = min(self.num_samples or self.judge.usual, self.judge.most)
            self.size = max(few // self.judge.together, 1) * self.judge.together
            if not self.judge.paired:
                asked = asked_of(trainer, model, range(self.size), EVALUATION_SEED)
                self.set_beside(data, model, asked, share)
        indices = range(share[0], self.size, share[1])
        asked = asked_of(trainer, model, indices, EVALUATION_SEED)
        with trainer.precision_plugin.forward_context():
            options = {"seed": EVALUATION_SEED, "progress": shows_progress(trainer)}
            x0 = model.sample(indices=indices, **options, **asked.options)
        arrays, where = arrays_of(model, x0, asked), self.judge.device
        raw, label = arrays[model.medium.name].to(where), arrays.get("labels")
        index = torch.tensor(indices, device=where)
        self.judge.update(raw, index, None if label is None else label.to(where))
        figures = self.judge.figures()
        if not self.judge.paired:
            figures = with_floors(error_of(model, raw, asked) | figures, self.floors, self.baseline)
        figures = {"samples": float(self.size), **figures}
        pl_module.log_dict({f"{stage}/{n}": value for n, value in figures.items()}, sync_dist=True)
        if trainer.is_global_zero and (logger := tensorboard(trainer)):
            picture, title = self.judge.picture(raw), f"{stage}/{self.judge.picture_title}"
            if picture is not None:
                logger.experiment.add_image(title, picture, trainer.global_step)

    def set_beside(
        self, data: ArrayDataModule, model: Diffusion, asked: Asked, share: tuple[int, int]
    ) -> None:
        """Measure the floors and, of restored samples, what a simple method makes of the same."""
        judge, given, observation = self.judge, asked.given, model.observation
        assert judge is not None
        self.floors, self.baseline = {}, {}
        if given is None or asked.truth is None or observation is None:
            self.floors = judge.floors(self.size, asked.labels, *share)
            return
        train = model.medium.encode(data.training_split().x0.to(model.device))
        with in_float32():
            naive = given.paste(observation.naive(given, train))
        for found, x0 in ((self.floors, asked.truth), (self.baseline, naive)):
            raw = model.medium.decode(x0)
            found |= error_of(model, raw, asked) | judge.score(raw, asked.labels, *share)


def error_of(model: Diffusion, raw: Tensor, asked: Asked) -> dict[str, float]:
    """The ``restoration_error`` of raw samples, if something was known of them."""
    if asked.given is None or asked.truth is None:
        return {}
    unknown = (~asked.given.known).expand_as(asked.truth).reshape(raw.shape)
    truth = model.medium.decode(asked.truth)
    error = restoration_error(raw, truth.to(raw.device), unknown.to(raw.device))
    return {"restoration_error": error.item()}
