"""A trained model as an ONNX graph.

The graph is one step of DDIM, so that a loop over the time steps is all there is to sampling.
"""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_ddpm.diffusion import Diffusion
from lightning_ddpm.files import replacing
from lightning_ddpm.parts import config_of
from lightning_ddpm.shapes import Condition, Factors, Samples, TimeSteps, expand_like

TOLERANCE = 1e-4  # between ONNX Runtime and PyTorch


class Step(nn.Module):
    """One step of DDIM with the model's guidance: from x_t to x_s, and the clean image x0.

    Args:
        model: the model.
    """

    def __init__(self, model: Diffusion) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, x_t: Samples, t: TimeSteps, s: TimeSteps, label: Condition | None = None
    ) -> tuple[Samples, Samples]:
        """Go from ``x_t`` (b, c, *spatial) at ``t`` (b) to ``s`` (b), where -1 is the end."""
        x0, noise, _ = self.model.denoiser(label)(x_t, t)
        return self.model.schedule.add_noise(x0, noise, s), x0


def example(model: Diffusion, samples: int) -> dict[str, Tensor]:
    """Inputs of a ``Step``: noise, time steps and, for a conditional model, labels."""
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, model.schedule.T - 1, samples).long()
    x_t = torch.randn(samples, *model.shape, generator=generator)
    condition = model.condition_of(range(samples))
    inputs = {"x_t": x_t, "t": t, "s": (t - model.schedule.T // 10).clamp(min=-1)}
    return inputs if condition is None else inputs | {"label": condition}


def write_onnx(model: Diffusion, path: Path) -> float:
    """Write the model's ``Step`` as ONNX; return how far ONNX Runtime is from PyTorch at most.

    The distance is that of the images, or of the network's outputs where x0 magnifies them, as it
    does where noise is predicted in images that are almost nothing else.

    Inputs ``x_t`` float32 (b, c, *spatial), ``t`` and ``s`` int64 (b) and, for a conditional model,
    ``label`` int64 (b); outputs ``x_s`` and ``x0``. The model's recipe is in the metadata.

    Raises:
        ValueError: if the packages of the extra ``onnx`` are not there, or the network cannot be
            exported.
        ArithmeticError: if the distance is above 1e-4; no file is then left.
    """
    try:  # here, as few need them
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        reason = f"{error.name} is missing: pip install 'lightning-ddpm[onnx]'"
        raise ValueError(reason) from error
    step, inputs = Step(model).eval(), example(model, samples=3)
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
    program.model.metadata_props["recipe"] = json.dumps({"model": config_of(model)["init_args"]})
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
        session = onnxruntime.InferenceSession(str(temporary))
        inputs = example(model, samples=8)
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


def output_gain(model: Diffusion, x_t: Samples, t: TimeSteps) -> Factors:
    """How much of a change of the network's output at ``t`` (b) is seen in x0."""
    alpha, sigma = (expand_like(factor, x_t) for factor in model.schedule.alpha_sigma(t))
    return model.target.x0(torch.ones_like(alpha), torch.zeros_like(alpha), alpha, sigma).abs()
