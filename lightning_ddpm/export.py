"""Write a trained model for use elsewhere: ``python train.py export FILE.safetensors|FILE.onnx``.

The ONNX graph is one step of DDIM, so that a loop over the time steps is all there is to sampling.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_ddpm.checkpoints import PRETRAINED, load_model, write_weights
from lightning_ddpm.files import replacing, require_writable
from lightning_ddpm.module import DiffusionLightningModule
from lightning_ddpm.parts import own_hparams
from lightning_ddpm.shapes import Factors, Images, Labels, TimeSteps, expand_like

TOLERANCE = 1e-4  # between ONNX Runtime and PyTorch


class Step(nn.Module):
    """One step of DDIM with the model's guidance: from x_t to x_s, and the clean image x0.

    Args:
        model: the model.
    """

    def __init__(self, model: DiffusionLightningModule) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x_t: Images, t: TimeSteps, s: TimeSteps, label: Labels | None = None
    ) -> tuple[Images, Images]:
        """Go from ``x_t`` (b, c, h, w) at ``t`` (b) to ``s`` (b), where -1 is the end."""
        x0, noise, _ = self.model.denoiser(label)(x_t, t)
        return self.model.schedule.add_noise(x0, noise, s), x0


def example(model: DiffusionLightningModule, images: int) -> dict[str, Tensor]:
    """Inputs of a ``Step``: noise, time steps and, for a conditional model, labels."""
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, model.schedule.T - 1, images).long()
    x_t = torch.randn(images, *model.image_shape, generator=generator)
    label = model.labels_of(range(images))
    inputs = {"x_t": x_t, "t": t, "s": (t - model.schedule.T // 10).clamp(min=-1)}
    return inputs if label is None else inputs | {"label": label}


def write_onnx(model: DiffusionLightningModule, path: Path) -> float:
    """Write the model's ``Step`` as ONNX; return how far ONNX Runtime is from PyTorch at most.

    The distance is that of the images, or of the network's outputs where x0 magnifies them, as it
    does where noise is predicted in images that are almost nothing else.

    Inputs ``x_t`` float32 (b, c, h, w), ``t`` and ``s`` int64 (b) and, for a conditional model,
    ``label`` int64 (b); outputs ``x_s`` and ``x0``. The hyper-parameters are in the metadata.

    Raises:
        ImportError: if the packages of the extra ``onnx`` are not there.
        ValueError: if the network cannot be exported.
        ArithmeticError: if the distance is above 1e-4; no file is then left.
    """
    import onnxruntime  # here, as few need it

    step, inputs = Step(model).eval(), example(model, images=3)
    dynamic = {name: {0: torch.export.Dim("b")} for name in inputs}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own inner works
        try:
            program = torch.onnx.export(
                *(step, tuple(inputs.values())),
                input_names=list(inputs),
                output_names=["x_s", "x0"],
                dynamic_shapes=dynamic,
                dynamo=True,
                verbose=False,
            )
        except RuntimeError as error:
            name, reason = type(model.network).__name__, str(error).strip().splitlines()[0]
            raise ValueError(f"{name} cannot be written as ONNX: {reason}") from error
    assert program is not None
    program.model.metadata_props["hyper_parameters"] = json.dumps(own_hparams(model.hparams))
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(str(temporary))
        inputs = example(model, images=8)
        got = session.run(["x_s", "x0"], {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            pairs = zip(got, step(**inputs), strict=True)
            gain = output_gain(model, inputs["x_t"], inputs["t"]).clamp(min=1)
            difference = max(
                float(((torch.from_numpy(a) - b) / gain).abs().max()) for a, b in pairs
            )
        if not difference <= TOLERANCE:
            raise ArithmeticError(f"ONNX Runtime differs from PyTorch by {difference:.1e}")
    return difference


def output_gain(model: DiffusionLightningModule, x_t: Images, t: TimeSteps) -> Factors:
    """How much of a change of the network's output at ``t`` (b) is seen in x0."""
    alpha, sigma = (expand_like(factor, x_t) for factor in model.schedule.alpha_sigma(t))
    return model.target.x0(torch.ones_like(alpha), torch.zeros_like(alpha), alpha, sigma).abs()


def main() -> None:
    """Export the checkpoint that is named on the command line, or the package's model."""
    parser = argparse.ArgumentParser(prog="python train.py export", description=__doc__)
    parser.add_argument("file", type=Path, help="where to: .safetensors or .onnx")
    parser.add_argument("--ckpt_path", default=PRETRAINED, help="the package's model if not given")
    options = parser.parse_args()
    if options.file.suffix not in (".safetensors", ".onnx"):
        parser.error(f"{options.file}: expected a name that ends in .safetensors or .onnx")
    try:
        model = load_model(options.ckpt_path)
        require_writable(options.file.parent)
        if options.file.suffix == ".onnx":
            print(f"at most {write_onnx(model, options.file):.1e} from PyTorch in ONNX Runtime")
        else:
            write_weights(model, options.file)
    except ImportError as error:
        sys.exit(f"error: {error.name} is missing: pip install 'lightning-ddpm[onnx]'")
    except (OSError, ValueError, ArithmeticError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    print(f"the model is in {options.file}")


if __name__ == "__main__":
    main()
