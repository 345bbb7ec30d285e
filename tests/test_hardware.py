"""What is chosen for the machine; the flags of the processor are the oracle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import TINY

from lightning_ddpm import hardware
from lightning_ddpm.hardware import fastest_precision, multiplies_bf16, sampling_batch

CPU_FLAGS = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPU_FLAGS.is_file(), reason="only Linux tells the processor's flags")
def test_bf16_is_native_where_the_processor_has_the_instruction() -> None:
    assert multiplies_bf16("cpu") == ("avx512_bf16" in CPU_FLAGS.read_text().split())


@pytest.mark.parametrize("native", [True, False])
def test_precision_is_mixed_where_bf16_is_native(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda kind: asked.append(kind) or native)
    precision = "bf16-mixed" if native else "32-true"
    monkeypatch.setattr(hardware.CUDAAccelerator, "is_available", lambda: False)
    assert [fastest_precision(name) for name in ("auto", "cpu", "tpu")] == [precision] * 3
    monkeypatch.setattr(hardware.CUDAAccelerator, "is_available", lambda: True)
    assert [fastest_precision(name) for name in ("auto", "gpu", "cpu")] == [precision] * 3
    assert asked == ["cpu", "cpu", "tpu", "cuda", "cuda", "cpu"]
    monkeypatch.undo()
    assert not multiplies_bf16("tpu")


@pytest.mark.parametrize("native", [True, False])
def test_training_says_its_precision_and_obeys(
    native: bool, call_main, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hardware, "multiplies_bf16", lambda kind: native and kind == "cpu")
    options = (*TINY, "--accelerator", "cpu", "--trainer.default_root_dir")
    call_main(*options, "a")
    chosen = "bf16-mixed" if native else "32-true"
    assert f"precision:   {chosen}" in capfd.readouterr().out
    assert f"precision: {chosen}" in next(Path("a").rglob("config.yaml")).read_text()
    other = "32-true" if native else "bf16-mixed"
    call_main(*options, "b", "--precision", other)
    assert f"precision:   {other}" in capfd.readouterr().out


def test_a_compiled_network_leaves_an_ordinary_checkpoint(call_main, tmp_path: Path) -> None:
    call_main(*TINY, "--compile")
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    names = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert not any("_orig_mod" in name for name in names)
    options = ("--ckpt_path", checkpoint, "--num_samples", 3, "--precision", "32-true")
    call_main("predict", *options, "--outdir", "plain")
    call_main("predict", *options, "--outdir", "compiled", "--compile")
    images = [np.load(tmp_path / f / "samples.npz")["images"] for f in ("plain", "compiled")]
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


def test_samples_are_generated_in_batches_that_suit_the_device() -> None:
    assert sampling_batch("cpu", (1, 28, 28)) == 127
    assert sampling_batch("cuda", (3, 64, 64)) > sampling_batch("cpu", (3, 64, 64)) > 1
    assert sampling_batch("cpu", (1, 5000, 5000)) == 1
