"""The command line: LightningCLI with the package's model, data and callbacks."""

import json
import os
import sys
from importlib import import_module
from typing import Any

from jsonargparse import Namespace, auto_cli
from lightning import Trainer
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from torch import distributed

import lightning_ddpm.training as training
from lightning_ddpm.checkpoints import Saved, is_weights
from lightning_ddpm.cli.errors import Parser, one_line
from lightning_ddpm.cli.flags import expand
from lightning_ddpm.cli.recipes import find_saved, groups
from lightning_ddpm.configs import CONFIGS
from lightning_ddpm.data import ArrayDataModule
from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.media import Images
from lightning_ddpm.parts import built, class_at
from lightning_ddpm.training.config import SaveConfig
from lightning_ddpm.training.precision import check_precision, check_trainer, fastest_precision
from lightning_ddpm.training.process import set_up
from lightning_ddpm.training.takeover import take_over

TOOLS = ("classify", "export", "score")
SUBCOMMANDS = tuple(LightningCLI.subcommands())
LIMITS = [f"limit_{split}_batches" for split in ("train", "val", "test", "predict")]
# By the data, where a recipe has None:
DECIDED = (
    *("shape", "in_channels", "num_classes", "mean", "std", "names", "horizon", "ahead"),
    *("frames", "observe"),
)


class CLI(LightningCLI):
    """``fit``, ``validate``, ``test`` and ``predict``, going on with what is ``saved``, if any."""

    def __init__(self, saved: Saved | None, **options: Any) -> None:
        self.saved = saved
        super().__init__(**options)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommand that is asked for, as each takes time to set up, or else all of them."""
        every = LightningCLI.subcommands()
        return {name: every[name] for name in sys.argv[1:2] if name in every} or every

    @property
    def options(self) -> Any:
        """The configuration of the subcommand."""
        return self.config[self.config.subcommand]

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the Trainer, the model, how it is trained, and the data."""
        plain: dict[str, Any] = {"instantiate": False, "fail_untyped": False, "sub_configs": True}
        parser.add_class_arguments(Trainer, "trainer", skip={*LIMITS}, **plain)
        for name in LIMITS:  # one batch is not all of them: Lightning's types make 1.0 of 1
            parser.add_argument(f"--trainer.{name}", type=int | float | None)
        parser.add_class_arguments(Diffusion, "model", fail_untyped=False)
        parser.add_class_arguments(
            training.DiffusionLightningModule, "training", skip={"model"}, **plain
        )
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has."""
        for name, callback in training.CALLBACKS.items():
            parser.add_class_arguments(callback, name, fail_untyped=False, sub_configs=True)
        newest = "Go on with the newest run under default_root_dir."
        parser.add_argument("--resume", action="store_true", help=newest)
        faster = "Compile the network: faster, on a GPU."
        parser.add_argument("--compile", action="store_true", help=faster)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line; the checkpoint's recipe stands before all others."""
        subcommand, *words = sys.argv[1:]
        recipe = ["--config", json.dumps(self.saved.recipe)] if self.saved else []
        try:
            self.config = parser.parse_args([subcommand, *recipe, *words])
        except UnicodeDecodeError:
            parser.error("--config: not a text file")
        self.options.ckpt_path = None  # else Lightning would put its recipe over the flags
        if subcommand == "test":
            self.options.verbose = False  # training.SampleEvaluation prints a table
        if not 0 <= (seed := self.options.seed_everything) < 2**32:
            parser.error(f"--seed {seed}: expected a number from 0 to 2**32 - 1")

    def before_instantiate_classes(self) -> None:
        """Train and sample in the fastest precision; measure in float32, alike on all machines."""
        trainer, fast = self.options.trainer, self.config.subcommand in ("fit", "predict")
        if self.saved and not is_weights(self.saved.path):
            self.options.ckpt_path = str(self.saved.path)
        if trainer.precision is None:
            told = (str(trainer.accelerator), trainer.devices, trainer.strategy)
            trainer.precision = fastest_precision(*told) if fast else "32-true"

    def ask_data(self) -> None:
        """Fill in what the recipe leaves to the data: where it has None for one of ``DECIDED``."""
        model = self.options.model
        parts: list[Any] = [getattr(value, "init_args", ()) for value in vars(model).values()]
        left = [(args, name) for args in (model, *parts) for name in DECIDED if is_left(args, name)]
        if left:
            data = instance(self.options.data)
            if not isinstance(data, ArrayDataModule):
                raise ValueError(f"{type(data).__name__} does not say its raw_shape: give --shape")
            medium = instance(model.medium) if model.medium else Images()
            shape = list(medium.shape(data.raw_shape))
            seen = shape[0]
            if model.observation:
                seen = instance(model.observation).in_channels(seen)
            facts = {"shape": shape, "in_channels": seen, **data.facts}
            for args, name in left:
                args[name] = facts.get(name)
        network, learned = model.network and model.network.init_args, model.variance == "learned"
        if (learned or model.observation) and network and is_left(network, "out_channels"):
            network.out_channels = (1 + learned) * model.shape[0]

    def instantiate_classes(self) -> None:
        """Build everything; a bad value is a bad flag."""
        try:
            self.ask_data()
            super().instantiate_classes()
            model: Any = self.model
            made = self.config_init[self.config.subcommand]
            self.model = training.DiffusionLightningModule(model, **made.training)
            if self.saved:
                data = (self.datamodule, self.options.data.as_dict())
                take_over(self.saved, self.config.subcommand, self.model, *data)
        except Exception as error:  # Lightning's and jsonargparse's are of many classes
            self.parser.error(str(error))
        if made.compile:
            # With CUDA graphs, which write over the gradients that wait for more of them.
            alone = made.trainer.accumulate_grad_batches == 1
            model.network.compile(mode="reduce-overhead" if alone else "default")

    def instantiate_trainer(self, **kwargs) -> Trainer:
        """Log to TensorBoard under ``default_root_dir``, unless told otherwise."""
        made = self.config_init[self.config.subcommand]
        options = training.trainer_options(made, self.config.subcommand, self.saved)
        trainer = super().instantiate_trainer(**kwargs, **options)
        check_precision(trainer.precision)
        samples = getattr(self.datamodule, "num_samples", None)
        check_trainer(trainer, samples if self.subcommand == "predict" else None)
        return trainer


def is_left(arguments: Any, name: str) -> bool:
    """Whether there is such an argument, which the recipe leaves to the data."""
    return name in arguments and arguments[name] is None


def instance(config: Any) -> Any:
    """What a recipe's class and arguments make."""
    arguments = getattr(config, "init_args", Namespace())
    return built(class_at(config.class_path), arguments.as_dict())


def train(arguments: list[str]) -> None:
    """Run one of Lightning's subcommands."""
    first = expand(arguments)
    known = first[0] in SUBCOMMANDS and not {"-h", "--help"} & set(first)
    saved = find_saved(first[0], groups(first[1:])) if known else None
    sys.argv[1:] = expand(arguments, saved)
    options = {"allow_abbrev": False, "default_config_files": [str(CONFIGS / "default.yaml")]}
    CLI(
        saved,
        model_class=Diffusion,
        save_config_callback=SaveConfig,
        save_config_kwargs={"save_to_log_dir": False},
        seed_everything_default=0,
        parser_kwargs={"allow_abbrev": False, "epilog": f"Besides: {', '.join(TOOLS)}."}
        | {name: dict(options) for name in CLI.subcommands()},
        parser_class=Parser,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
    )
    if distributed.is_initialized():
        distributed.destroy_process_group()  # else gloo's threads may abort the process


def run_tool(name: str, arguments: list[str]) -> None:
    """Run a command that is no subcommand of Lightning, by its signature."""
    words = [w for g in groups(arguments) for w in ([*g, "true"] if g == ["--json"] else g)]
    function = getattr(import_module(f"lightning_ddpm.cli.{name}"), name)
    about = {"prog": f"python train.py {name}", "description": function.__doc__.split("\n\n")[0]}
    auto_cli(function, args=words, parser_class=Parser, **about)


def main() -> None:
    """Run the command line in ``sys.argv``."""
    set_up()
    sys.path.append(os.getcwd())  # for parts of one's own, as my.Network
    with one_line():
        if sys.argv[1:2] and sys.argv[1] in TOOLS:
            run_tool(sys.argv[1], sys.argv[2:])
        else:
            train(sys.argv[1:])
