"""The command line: LightningCLI with the package's model, data and callbacks."""

import json
import os
import re
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Any

from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import distributed

from lightning_ddpm.callbacks import (
    EMA,
    LastCheckpoint,
    SampleEvaluation,
    SampleWriter,
    WholeCheckpointIO,
)
from lightning_ddpm.checkpoints import (
    BATCH_PROGRESS,
    PRETRAINED,
    is_weights,
    last_checkpoints,
    read_checkpoint,
    read_saved,
    shapes_of,
)
from lightning_ddpm.data import DataError, ImageDataModule
from lightning_ddpm.files import require_writable
from lightning_ddpm.flags import CONFIGS, expand
from lightning_ddpm.hardware import check_precision, fastest_precision
from lightning_ddpm.module import DiffusionLightningModule
from lightning_ddpm.parser import Parser
from lightning_ddpm.parts import own_hparams

TOOLS = ("export", "score", "classify")
REFUSALS = (DataError, MisconfigurationException, OSError, ValueError)
LIMITS = [f"limit_{split}_batches" for split in ("train", "val", "test", "predict")]
MNIST_SHAPE, MNIST_CLASSES = (1, 28, 28), 10
SUBCOMMANDS = tuple(LightningCLI.subcommands())


class SaveConfig(SaveConfigCallback):
    """Keeps the whole configuration of a training run as a file, and in TensorBoard as text."""

    def setup(self, trainer: Trainer, pl_module, stage: str) -> None:
        """Save it when training starts."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module, stage: str) -> None:
        """Show it in TensorBoard."""
        if isinstance(trainer.logger, TensorBoardLogger):
            text = self.parser.dump(self.config, skip_none=False)
            trainer.logger.experiment.add_text("config", f"```yaml\n{text}\n```")


class CLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict`` for the diffusion model."""

    saved: dict[str, Any] | None = None  # the checkpoint

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has."""
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(SampleWriter, "samples")
        parser.add_lightning_class_args(SampleEvaluation, "evaluation")
        parser.add_lightning_class_args(ModelCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(LastCheckpoint, "last_checkpoint")
        parser.add_argument(
            "--resume",
            action="store_true",
            help="Go on with the newest run under default_root_dir; its last.ckpt says where.",
        )
        parser.add_argument(
            "--compile", action="store_true", help="Compile the network: faster, on a GPU."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line, and refuse seeds that are no seeds."""
        try:
            super().parse_arguments(parser, args)
        except UnicodeDecodeError:
            parser.error("--config: not a text file")
        seed = self.config[self.config.subcommand].seed_everything
        if not 0 <= seed < 2**32:
            parser.error(f"--seed {seed}: expected a number from 0 to 2**32 - 1")

    def _parse_ckpt_path(self) -> None:
        # Lightning puts a checkpoint's hyper-parameters over the flags; here flags win.
        subcommand = self.config.subcommand
        path = self.config[subcommand].ckpt_path
        if self.config[subcommand].resume:
            path = self.newest_checkpoint()
        if path is None and subcommand == "fit":
            return
        if path is None:
            path = PRETRAINED
            rank_zero_only(print)("model:       the package's; --ckpt_path takes one of yours")
        try:
            self.saved = self.saved or read_saved(path)
        except ValueError as error:
            self.parser.error(f"--ckpt_path {error}")
        if subcommand == "fit" and is_weights(path):
            self.parser.error(f"--ckpt_path {path}: fit goes on from a checkpoint only")
        saved = ["--config", json.dumps({"model": own_hparams(self.saved["hyper_parameters"])})]
        self.config = self.parser.parse_args([subcommand, *saved, *sys.argv[2:]])
        self.config[subcommand].ckpt_path = None if is_weights(path) else str(path)

    def newest_checkpoint(self) -> Path | None:
        """The newest whole ``last.ckpt`` of the runs under ``default_root_dir``, if any."""
        options = self.config[self.config.subcommand]
        if self.config.subcommand != "fit" or options.ckpt_path:
            self.parser.error("--resume: only fit goes on with a run, and without --ckpt_path")
        root = Path(options.trainer.default_root_dir or ".")
        paths, say = last_checkpoints(root), rank_zero_only(print)
        while paths:
            path = paths.pop()
            self.saved = read_checkpoint(path)
            if self.saved:
                say(f"resume:      {path}")
                return path
            say(f"resume:      {path} is damaged")
            if not paths:
                self.parser.error(f"--resume: no whole last.ckpt under {root}")
        say(f"resume:      no last.ckpt under {root} as yet; starting anew")
        return None

    def before_instantiate_classes(self) -> None:
        """Train and sample in the fastest precision; measure in float32, alike on all machines."""
        trainer = self.config[self.config.subcommand].trainer
        if trainer.precision is None:
            fast = self.config.subcommand in ("fit", "predict")
            trainer.precision = fastest_precision(str(trainer.accelerator)) if fast else "32-true"

    def adopt_data(self) -> None:
        """Make a new model for the data that are there, unless it was told of other ones."""
        options = self.config[self.config.subcommand]
        if tuple(options.model.image_shape) != MNIST_SHAPE or options.model.network is None:
            return
        module, _, name = options.data.class_path.rpartition(".")
        data = getattr(import_module(module), name)(**options.data.init_args.as_dict())
        options.model.image_shape = list(data.image_shape)
        network, channels = options.model.network.init_args, data.image_shape[0]
        adopted = {"image_shape": list(data.image_shape), "image_channels": channels}
        if options.model.variance == "learned" and network.get("out_channels") in (None, 2):
            adopted["out_channels"] = 2 * channels
        if network.get("num_classes") == MNIST_CLASSES:
            adopted["num_classes"] = len(data.class_names)
        for name in adopted.keys() & set(network.keys()):
            network[name] = adopted[name]

    def instantiate_trainer(self, **kwargs) -> Trainer:
        """Log to TensorBoard under ``default_root_dir``, unless told otherwise."""
        config = self.config_init[str(self.subcommand)].trainer
        for name in LIMITS:
            # Lightning's types make 1.0 of 1, which is all batches instead of one.
            if re.search(rf"--trainer\.{name}[= ]1( |$)", " ".join(sys.argv)):
                config[name] = 1
        logger, callbacks = config.logger, config.callbacks or []
        callbacks = list(callbacks) if isinstance(callbacks, list) else [callbacks]
        if self.subcommand == "predict":
            logger = False
        elif logger in (None, True):
            root = Path(config.default_root_dir or os.getcwd())
            require_writable(root)
            logger = TensorBoardLogger(root, default_hp_metric=False, **self.same_curves())
        if self.subcommand == "fit" and logger:
            callbacks.append(LearningRateMonitor("step"))
        plugins = config.plugins or []
        plugins = [*(plugins if isinstance(plugins, list) else [plugins]), WholeCheckpointIO()]
        trainer = super().instantiate_trainer(
            logger=logger, callbacks=callbacks, plugins=plugins, **kwargs
        )
        check_precision(trainer.precision)
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
            raise ValueError(f"devices {trainer.num_devices} exceeds the {cores} cores of this CPU")
        samples = self.datamodule.num_samples
        if self.subcommand == "predict" and trainer.world_size > samples:
            raise ValueError(f"num_samples {samples} is below the {trainer.world_size} processes")
        return trainer

    def same_curves(self) -> dict[str, Any]:
        """For the logger: go on with the curves of the run that is resumed, where it was saved."""
        options = self.config_init[str(self.subcommand)]
        if not options.resume or self.saved is None:
            return {}
        run = Path(options.ckpt_path).resolve().parents[1]
        if run.parent.name != "lightning_logs":
            return {}
        batches = self.saved["loops"]["fit_loop"][BATCH_PROGRESS]
        # The grid at the end of an epoch is logged one step after its curves.
        purge_step = self.saved["global_step"] + batches["is_last_batch"]
        return {"version": run.name, "purge_step": purge_step}

    def instantiate_classes(self) -> None:
        """Build everything; a bad value is a bad flag."""
        try:
            if self.config.subcommand == "fit" and self.saved is None:
                with suppress(AttributeError, KeyError, TypeError):  # building tells what is wrong
                    self.adopt_data()
            super().instantiate_classes()
        except (*REFUSALS, TypeError, ImportError) as error:
            self.parser.error(str(error))
        if self.saved:
            if shapes_of(self.saved["state_dict"]) != shapes_of(self.model.state_dict()):
                network = type(self.model.network).__name__
                self.parser.error(f"the checkpoint does not hold the weights of this {network}")
            hparams = self.saved["hyper_parameters"]
            for part in ("target", "schedule") if self.subcommand != "fit" else ():
                if json.dumps(self.model.hparams[part]) != json.dumps(hparams.get(part)):
                    self.parser.error(
                        f"--{part}: the weights were trained with {hparams.get(part)}"
                    )
            trained = hparams.get("optimizer")
            if self.subcommand == "fit" and trained != self.model.optimizer:
                self.parser.error(f"--optimizer: the checkpoint holds the state of {trained}")
            self.model.load_state_dict(self.saved["state_dict"])
            self.saved = None  # the Trainer reads a checkpoint again
        if self.config_init[str(self.subcommand)].compile:
            self.model.network.compile(mode="reduce-overhead")  # with CUDA graphs

    @rank_zero_only
    def before_fit(self) -> None:
        """Say which precision was chosen, and how the classes are numbered."""
        print(f"precision:   {self.trainer.precision}")
        if self.model.network.num_classes > 0:
            names = [f"{i} {name}" for i, name in enumerate(self.datamodule.class_names)]
            print(f"classes:     {', '.join(names)}")

    def before_test(self) -> None:
        """Leave the table to ``SampleEvaluation``."""
        self.config_init["test"]["verbose"] = False

    @rank_zero_only
    def after_fit(self) -> None:
        """Say where everything is, and what to type next."""
        if self.model.grid_path:
            print(f"samples:     {self.model.grid_path}")
        if isinstance(self.trainer.logger, TensorBoardLogger):
            print(f"curves:      tensorboard --logdir {quote(str(self.trainer.logger.save_dir))}")
        names = ("best_checkpoint", "last_checkpoint")
        best, last = (self._get(self.config_init, name) for name in names)
        # A resumed run also remembers the best checkpoint of the run before it.
        ours = best.best_model_path.startswith(str(best.dirpath))
        path = best.best_model_path if ours else last.path
        if last.path is None and self._get(self.config_init, "ckpt_path"):
            print("checkpoint:  this run has ended before; a larger --max_epochs goes on with it")
        if path:
            program = f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else sys.argv[0]
            print(f"checkpoint:  {path}")
            print(f"more digits: {program} predict --ckpt_path {quote(str(path))}")


def die_with_parent() -> None:
    """Do not outlive the process that started this one, waiting for its messages."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the command line in ``sys.argv``."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        die_with_parent()
    sys.path.append(os.getcwd())  # for parts of one's own, as my.Network
    if sys.argv[1:2] and sys.argv[1] in TOOLS:
        import_module(f"lightning_ddpm.{sys.argv.pop(1)}").main()
        return
    sys.argv[1:] = expand(sys.argv[1:])
    for noise in (
        ".*does not have many workers.*",
        ".*treespec, LeafSpec.*",
        ".*dirpath has changed.*",
        "You.re resuming from a checkpoint that ended before.*",  # ours goes on exactly
        "Checkpoint directory .* exists and is not empty.*",
        ".*not supported by the model summary.*",
    ):
        warnings.filterwarnings("ignore", noise)
    options = {"allow_abbrev": False, "default_config_files": [str(CONFIGS / "default.yaml")]}
    try:
        CLI(
            DiffusionLightningModule,
            ImageDataModule,
            subclass_mode_data=True,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_kwargs={"allow_abbrev": False, "epilog": f"Besides: {', '.join(TOOLS)}."}
            | {name: dict(options) for name in SUBCOMMANDS},
            parser_class=Parser,
            auto_configure_optimizers=False,
        )
        if distributed.is_initialized():
            distributed.destroy_process_group()  # else gloo's threads may abort the process
    except (*REFUSALS, FloatingPointError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except RuntimeError as error:
        if "by peer" in str(error):  # another process has ended, and has said why
            sys.exit(1)
        raise
