"""Write a trained model for use elsewhere: ``python train.py export FILE.safetensors``."""

from pathlib import Path

from lightning_ddpm.checkpoints import PRETRAINED, model_of, read_saved, write_weights
from lightning_ddpm.cli.errors import refuse
from lightning_ddpm.files import path_of, require_writable
from lightning_ddpm.onnx import write_onnx


def export(file: Path, ckpt_path: Path = PRETRAINED) -> None:
    """Write the average weights of a model, or one step of DDIM as an ONNX graph.

    Args:
        file: where to: .safetensors or .onnx.
        ckpt_path: the package's model if not given.
    """
    if file.suffix not in (".safetensors", ".onnx"):
        refuse(f"{file}: expected a name that ends in .safetensors or .onnx")
    saved, file = read_saved(ckpt_path), path_of(file)
    model = model_of(saved)
    require_writable(file.parent)
    if file.suffix == ".onnx":
        print(f"at most {write_onnx(model, file):.1e} from PyTorch in ONNX Runtime")
    else:
        write_weights(model, file, saved.recipe.get("data"), saved.class_names)
    print(f"the model is in {file}")
