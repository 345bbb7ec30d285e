"""The command line: LightningCLI with short flags, packaged recipes and errors of one line."""

import inspect
import json
import os
import pickle
import re
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

import torch
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

from lightning_ddpm.callbacks import EMA, SampleWriter
from lightning_ddpm.data import DataError, MNISTDataModule
from lightning_ddpm.files import require_writable
from lightning_ddpm.module import DiffusionLightningModule, check_precision

CONFIGS = Path(str(files("lightning_ddpm") / "configs"))
SUBCOMMANDS = tuple(LightningCLI.subcommands())


def short_flags() -> dict[str, str]:
    """The full name of every flag that may be shortened, from the signatures that take them."""
    owners = {
        "trainer": Trainer,
        "model": DiffusionLightningModule,
        "data": MNISTDataModule,
        "samples": SampleWriter,
    }
    flags = {
        f"--{name}": f"--{key}.{name}"
        for key, owner in owners.items()
        for name in inspect.signature(owner).parameters
    }
    return flags | {"--seed": "--seed_everything", "--steps": "--model.sampler.init_args.steps"}


def expand(arguments: list[str]) -> list[str]:
    """Write out what the command line may leave out; what is written out already stays.

    ``fit`` is the default subcommand, flags have short names, ``--config NAME`` is a recipe of the
    package, ``--png`` needs no value, and ``--max_steps`` alone sets no limit to the epochs.
    """
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["fit", *arguments]
    flags = short_flags()
    expanded = []
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--png" and not equals and [*arguments, "-"][i + 1].startswith("-"):
            equals, value = "=", "true"
        if i > 0 and arguments[i - 1] in ("--config", "-c"):
            name = recipe_path(name)
        elif name == "--config":
            value = recipe_path(value)
        expanded.append(flags.get(name, name) + equals + value)
    names = [argument.partition("=")[0] for argument in expanded]
    if "--trainer.max_steps" in names and "--trainer.max_epochs" not in names:
        expanded.append("--trainer.max_epochs=-1")
    return expanded


def recipe_path(name: str) -> str:
    """The file of a recipe in the package, if ``name`` is one, else ``name``."""
    path = CONFIGS / f"{name}.yaml"
    return str(path) if path.is_file() else name


class Parser(LightningArgumentParser):
    """Reports what is wrong in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print ``message`` and exit with 2."""
        key = re.search(r'Parser key "(.+?)"', message)
        value = re.search(r"(?:Got|Given) value: (.*)", message)
        if key and value:
            types = re.findall(
                r"Expected an? (?!path but|<class 'NoneType'>)(.*?)(?:\. Got|$)", message, re.M
            )
            expected = re.sub(r"typing\.|<class '|'>", "", " or ".join(types))
            message = f"--{key[1]} {value[1]}: expected {expected}"
        self.exit(2, f"error: {' '.join(message.split())}\n")


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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has."""
        parser.add_lightning_class_args(EMA, "ema")
        parser.add_lightning_class_args(SampleWriter, "samples")
        parser.add_lightning_class_args(ModelCheckpoint, "best_checkpoint")
        parser.add_lightning_class_args(ModelCheckpoint, "last_checkpoint")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line, and refuse seeds that are no seeds."""
        super().parse_arguments(parser, args)
        seed = self.config[self.config.subcommand].seed_everything
        if not 0 <= seed < 2**32:
            parser.error(f"--seed {seed}: expected a number from 0 to 2**32 - 1")

    def _parse_ckpt_path(self) -> None:
        # Lightning puts a checkpoint's hyper-parameters over the flags; here flags win.
        subcommand = self.config.subcommand
        path = self.config[subcommand].ckpt_path
        if path is None:
            if subcommand != "fit":
                self.parser.error(
                    f"{subcommand} needs --ckpt_path, a checkpoint that fit has saved"
                )
            return
        hparams = read_hyper_parameters(path, self.parser)
        checkpoint = ["--config", json.dumps({"model": hparams})]
        self.config = self.parser.parse_args([subcommand, *checkpoint, *sys.argv[2:]])

    def instantiate_trainer(self, **kwargs) -> Trainer:
        """Log to TensorBoard under ``default_root_dir``, unless told otherwise."""
        config = self.config_init[str(self.subcommand)].trainer
        root = Path(config.default_root_dir or os.getcwd())
        logger, callbacks = config.logger, list(config.callbacks or [])
        if self.subcommand == "predict":
            logger = False
        elif logger in (None, True):
            require_writable(root)
            logger = TensorBoardLogger(root, default_hp_metric=False)
        if self.subcommand == "fit" and logger:
            callbacks.append(LearningRateMonitor("step"))
        trainer = super().instantiate_trainer(logger=logger, callbacks=callbacks, **kwargs)
        check_precision(trainer.precision)
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
            raise ValueError(f"devices {trainer.num_devices} exceeds the {cores} cores of this CPU")
        return trainer

    def instantiate_classes(self) -> None:
        """Build everything; a bad value is a bad flag."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, OSError, ImportError, MisconfigurationException) as error:
            self.parser.error(str(error))

    @rank_zero_only
    def after_fit(self) -> None:
        """Say where everything is, and what to type next."""
        callbacks = self.trainer.checkpoint_callbacks
        saved = [c.best_model_path for c in callbacks if isinstance(c, ModelCheckpoint)]
        checkpoint = next(filter(None, saved), None)
        program = f"python {sys.argv[0]}" if sys.argv[0].endswith(".py") else sys.argv[0]
        print(
            f"samples:     {self.model.grid_path}\n"
            f"checkpoint:  {checkpoint}\n"
            f"curves:      tensorboard --logdir {self.trainer.default_root_dir}\n"
            f"more digits: {program} predict --ckpt_path {checkpoint}"
        )


def read_hyper_parameters(path: str, parser: LightningArgumentParser) -> dict:
    """The model's hyper-parameters in the checkpoint at ``path``; ``parser`` reports errors."""
    if not Path(path).is_file():
        parser.error(f"--ckpt_path {path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        hparams = checkpoint["hyper_parameters"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError):
        parser.error(f"--ckpt_path {path}: not a checkpoint that fit has saved")
    return {name: value for name, value in hparams.items() if not name.startswith("_")}


def main() -> None:
    """Run the command line in ``sys.argv``."""
    sys.argv[1:] = expand(sys.argv[1:])
    for noise in (".*does not have many workers.*", ".*treespec, LeafSpec.*"):
        warnings.filterwarnings("ignore", noise)
    options = {"allow_abbrev": False, "default_config_files": [str(CONFIGS / "default.yaml")]}
    try:
        CLI(
            DiffusionLightningModule,
            MNISTDataModule,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            seed_everything_default=0,
            parser_kwargs={"allow_abbrev": False} | dict.fromkeys(SUBCOMMANDS, options),
            parser_class=Parser,
            auto_configure_optimizers=False,
        )
    except (DataError, MisconfigurationException, OSError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
