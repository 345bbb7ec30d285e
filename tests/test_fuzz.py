"""Whatever the input is, a command ends in success or in one line, and leaves nothing half-written.

Each test has a few cases with ``pytest -m long``, and a thousand with ``pytest -m thorough``.
"""

import os
import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fuzzing import HOW, JUNK, TREES, call, cases, changed, damaged, paths_in, run
from hypothesis import strategies as st
from test_mnist_files import write_idx_files

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.cli.flags import short_flags
from lightning_ddpm.data import DataError, mnist
from lightning_ddpm.data.mnist import FILES
from lightning_ddpm.judge.files import read_samples

SMALL = ("--network=MLP", "--model.network.init_args.hidden=4", "--steps=3")
BRIEF = ("--source=packaged", "--accelerator=cpu", "--enable_progress_bar=false")
UNBOUNDED = {  # these may wait, fetch or start what is outside of this process
    *("--num_nodes", "--num_workers", "--devices", "--strategy", "--plugins", "--profiler"),
}
FLAGS = [
    *sorted(set(short_flags()) - UNBOUNDED),
    *("--compile", "--resume", "--bogus", "-x", "--", "-h", "--print_config", "--config"),
    *("--ckpt_path", "--ema.decay", "--best_checkpoint.monitor", "--model.network.init_args"),
    *("--last_checkpoint.every_n_seconds", "--evaluation.every_n_epochs", "--model.bogus"),
]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the packaged digits once, and do without a network."""
    monkeypatch.setattr(mnist, "packaged_digits", cache(mnist.packaged_digits))
    monkeypatch.setattr(mnist, "download", lambda *_: "the network does not reach its servers")
    monkeypatch.delenv("LIGHTNING_DDPM_DATA", raising=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("checkpoint")
    options = (*SMALL, *BRIEF, "--max_steps=2", "--limit_val_batches=1")
    assert call(["fit", *options], folder)
    return next(folder.rglob("last.ckpt")).read_bytes()


@cases(thorough=1000)
def test_flags(number: int, checkpoint: bytes) -> None:
    flag = st.builds(
        lambda name, value, joined: [f"{name}={value}"] if joined else [name, value],
        st.sampled_from(FLAGS),
        JUNK,
        st.booleans(),
    )
    subcommand = st.sampled_from(["fit", "validate", "predict"])

    def test(subcommand: str, flags: list[list[str]]) -> None:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "a.ckpt").write_bytes(checkpoint)
            saved = [] if subcommand == "fit" else ["--ckpt_path=a.ckpt"]
            words = [word for flag in flags for word in flag]
            arguments = [subcommand, *SMALL, *saved, *words, *BRIEF]
            call([*arguments, *([] if "--" in words else ["--fast_dev_run=true"])], Path(name))

    run(number, test, subcommand=subcommand, flags=st.lists(flag, min_size=1, max_size=3))


RECIPE = {
    "model": {
        "network": {"class_path": "MLP", "init_args": {"hidden": 4, "time_dim": 8}},
        "schedule": {"class_path": "LinearSchedule", "init_args": {"T": 20}},
        "sampler": {"class_path": "DDIM", "init_args": {"steps": 3, "eta": 0.0}},
        "medium": {"class_path": "Images"},
        "shape": [1, 28, 28],
    },
    "training": {"optimizer": "adam", "lr": 1e-3},
    "data": {"class_path": "MNISTDataModule", "init_args": {"batch_size": 8}},
    "trainer": {"max_epochs": 1, "log_every_n_steps": 5},
    "ema": {"decay": 0.9},
    "seed_everything": 1,
}


@cases(thorough=1000)
def test_recipes(number: int) -> None:
    mutants = st.builds(changed, st.just(RECIPE), st.sampled_from(paths_in(RECIPE)), HOW, TREES)
    texts = mutants.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode())
    noise = st.binary(max_size=40) | st.text(max_size=40).map(str.encode) | JUNK.map(str.encode)

    def test(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "a.yaml").write_bytes(content)
            arguments = ["--config=a.yaml", *BRIEF, "--devices=1", "--fast_dev_run=true"]
            call(["fit", *SMALL, *arguments], Path(name))

    run(number, test, content=texts | texts | noise)


@cases(thorough=1000)
def test_checkpoints(number: int, checkpoint: bytes) -> None:
    saved = torch.load(BytesIO(checkpoint), weights_only=True)
    inside = [(name,) for name in ("state_dict", "hyper_parameters", "loops", "global_step")]
    inside += [("hyper_parameters", *path) for path in paths_in(saved["hyper_parameters"])]
    inside += [("data",), *(("data", *path) for path in paths_in(saved["data"]))]
    inside += [("state_dict", name) for name in saved["state_dict"]]

    def written(path: tuple, how: str, junk: Any) -> bytes:
        file = BytesIO()
        how = "delete" if path in {("loops",), ("global_step",)} else how
        torch.save(changed(saved, path, how, junk), file)
        return file.getvalue()

    mutants = st.builds(written, st.sampled_from(inside), HOW, TREES)

    def test(content: bytes, subcommand: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "a.ckpt").write_bytes(content)
            options = ["--max_steps=3", "--limit_val_batches=1"] if subcommand == "fit" else []
            options += ["--num_samples=1"] if subcommand == "predict" else []
            call([subcommand, "--ckpt_path=a.ckpt", *BRIEF, *options], Path(name))

    content = mutants | damaged(checkpoint)
    run(number, test, content=content, subcommand=st.sampled_from(["predict", "fit"]))


@cases(thorough=1000)
def test_idx_files(number: int, tmp_path: Path) -> None:
    write_idx_files(tmp_path / "raw")
    whole = {name: (tmp_path / "raw" / name).read_bytes() for name in FILES if "labels" in name}
    files = st.one_of(
        st.tuples(st.just(name), damaged(whole[name]) | damaged(whole[name][:16])) for name in whole
    )

    def test(file: tuple[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "MNIST" / "raw"
            raw.mkdir(parents=True)
            for name in FILES:
                os.symlink(tmp_path / "raw" / name, raw / name)
            (raw / file[0]).unlink()
            (raw / file[0]).write_bytes(file[1])
            data = MNISTDataModule(folder)
            try:
                data.prepare_data()
                data.setup("test" if "t10k" in file[0] else "fit")
            except DataError as error:
                message = str(error)
            else:
                message = str(raw / file[0])
            assert str(raw / file[0]) in message
            assert all(split.condition.max() < 10 for split in data.splits.values())

    run(number, test, file=files)


@cases(thorough=1000)
def test_sample_files(number: int) -> None:
    images = np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28)
    contents = {}
    for suffix in ("npz", "npy", "pt"):
        file = BytesIO()
        {
            "npz": lambda file: np.savez_compressed(file, images=images),
            "npy": lambda file: np.save(file, images),
            "pt": lambda file: torch.save({"images": torch.from_numpy(images)}, file),
        }[suffix](file)
        contents[suffix] = file.getvalue()
    files = st.one_of(st.tuples(st.just(suffix), damaged(contents[suffix])) for suffix in contents)

    def test(file: tuple[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"samples.{file[0]}"
            path.write_bytes(file[1])
            try:
                shape, message = read_samples(path)[0].shape, str(path)
            except ValueError as error:
                shape, message = (1, 1, 28, 28), str(error)
            assert shape[1:] == (1, 28, 28)
            assert str(path) in message

    run(number, test, file=files)
