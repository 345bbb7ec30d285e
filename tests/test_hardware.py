"""What is chosen for the machine; the flags of the processor are the oracle."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY

from lightning_ddpm.networks import MLP
from lightning_ddpm.networks.layers import TimeEmbedding
from lightning_ddpm.samplers.parts import batch_size
from lightning_ddpm.training import precision
from lightning_ddpm.training.precision import fastest_precision, multiplies_bf16

CPU_FLAGS = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPU_FLAGS.is_file(), reason="only Linux tells the processor's flags")
def test_bf16_is_native_where_the_processor_has_the_instruction() -> None:
    assert multiplies_bf16("cpu") == ("avx512_bf16" in CPU_FLAGS.read_text().split())


@pytest.mark.parametrize("native", [True, False])
def test_precision_is_mixed_where_bf16_is_native(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(precision, "multiplies_bf16", lambda kind, _: asked.append(kind) or native)
    expected = "bf16-mixed" if native else "32-true"
    monkeypatch.setattr(precision.CUDAAccelerator, "is_available", lambda: False)
    assert [fastest_precision(name) for name in ("auto", "cpu", "tpu")] == [expected] * 3
    monkeypatch.setattr(precision.CUDAAccelerator, "is_available", lambda: True)
    monkeypatch.setattr(precision.CUDAAccelerator, "parse_devices", lambda _: [0])
    assert [fastest_precision(name) for name in ("auto", "gpu", "cpu")] == [expected] * 3
    assert asked == ["cpu", "cpu", "tpu", "cuda", "cuda", "cpu"]
    monkeypatch.undo()
    assert not multiplies_bf16("tpu")


@pytest.mark.parametrize(
    ("devices", "asked"), [([1], [1]), ("1,", [1]), (2, [0, 1]), ("auto", [0, 1]), (-1, [0, 1])]
)
def test_the_gpus_that_train_are_asked(
    devices: object, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two GPUs stand in, of which the second multiplies bfloat16.
    at, seen = [0], []

    @contextmanager
    def device(index: int) -> Iterator[None]:
        at[0] = index
        yield

    def native(including_emulation: bool) -> bool:
        seen.append(at[0])
        return at[0] == 1 and not including_emulation

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", native)
    monkeypatch.setattr("lightning.fabric.accelerators.cuda.num_cuda_devices", lambda: 2)
    monkeypatch.setattr(precision.CUDAAccelerator, "is_available", lambda: True)
    expected = "bf16-mixed" if asked == [1] else "32-true"
    assert fastest_precision("gpu", devices) == expected
    assert seen == asked
    assert fastest_precision("gpu", devices, "ddp_fork_find_unused_parameters_true") == "32-true"
    assert seen == asked  # CUDA was not started again


@pytest.mark.parametrize("native", [True, False])
def test_training_says_its_precision_and_obeys(
    native: bool, call_main, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda kind, _: native and kind == "cpu")
    options = (*TINY, "--accelerator", "cpu", "--trainer.default_root_dir")
    call_main(*options, "a")
    chosen = "bf16-mixed" if native else "32-true"
    assert f"precision:   {chosen}" in capfd.readouterr().out
    assert f"precision: {chosen}" in next(Path("a").rglob("config.yaml")).read_text()
    other = "32-true" if native else "bf16-mixed"
    call_main(*options, "b", "--precision", other)
    assert f"precision:   {other}" in capfd.readouterr().out


@pytest.fixture
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the checks of conftest.py in the MLP, which would be compiled for half a minute."""
    for cls in (MLP, TimeEmbedding):
        monkeypatch.setattr(cls, "forward", inspect.unwrap(cls.forward))


@pytest.mark.usefixtures("_unchecked")
def test_a_compiled_network_leaves_an_ordinary_checkpoint(call_main, tmp_path: Path) -> None:
    call_main(*TINY, "--compile", "--limit_val_batches", 0)
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    names = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not any("_orig_mod" in name for name in names)
    options = ("--ckpt_path", checkpoint, "--precision", "32-true")
    call_main("predict", *options, "--outdir", "plain")
    call_main("predict", *options, "--outdir", "compiled", "--compile")
    images = [np.load(tmp_path / f / "samples.npz")["images"] for f in ("plain", "compiled")]
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


def test_samples_are_generated_in_batches_that_suit_the_device() -> None:
    assert batch_size("cpu", (1, 28, 28)) == 127
    assert batch_size("cuda", (3, 64, 64)) > batch_size("cpu", (3, 64, 64)) > 1
    assert batch_size("cpu", (1, 5000, 5000)) == 1
