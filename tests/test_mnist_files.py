"""MNIST's files: damaged, downloaded, packed, and of other data sets."""

import gzip
import hashlib
import shutil
import socket
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from torchvision import datasets

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.data import DataError, mnist
from lightning_ddpm.data.mnist import FILES


def write_idx_files(folder: Path) -> None:
    """The four files of MNIST's format and size, with blank images."""
    folder.mkdir(parents=True)
    for name, header in FILES.items():
        with (folder / name).open("wb") as file:
            file.write(np.array(header, ">u4").tobytes())
            file.truncate(4 * len(header) + int(np.prod(header[1:])))  # zeros


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "too long", "magic", "count"])
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    data = MNISTDataModule(str(tmp_path))
    write_idx_files(data.raw_folder)
    data.prepare_data()  # whole as yet
    path = data.raw_folder / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "too long":
        path.write_bytes(content + b"\0")
    else:
        content[3 if damage == "magic" else 7] ^= 1
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        data.prepare_data()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_file_and_labels_above_nine_are_named(tmp_path: Path) -> None:
    data = MNISTDataModule(str(tmp_path))
    write_idx_files(data.raw_folder)
    path = data.raw_folder / "t10k-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[100] = 10
    path.write_bytes(content)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is damaged: it has labels above 9"):
        data.prepare_data()
    for stub in (b"", b"\0\0\x08\x01\0"):
        path.write_bytes(stub)
        with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is damaged"):
            data.prepare_data()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A real mirror of MNIST on this machine, with blank images."""
    folder = tmp_path / "server"
    write_idx_files(folder)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    resources = []
    for name in FILES:
        archive = folder / f"{name}.gz"
        archive.write_bytes(gzip.compress((folder / name).read_bytes(), 1))
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{http.server_port}/"])
        monkeypatch.setattr(datasets.MNIST, "resources", resources)
        yield folder
        http.shutdown()


@pytest.mark.usefixtures("server")
def test_download(tmp_path: Path) -> None:
    notes = tmp_path / "data" / "MNIST" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.touch()
    data = MNISTDataModule(str(tmp_path / "data"))
    data.prepare_data()
    data.setup("fit")
    assert data.hparams["source_used"] == "mnist"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["MNIST"]
    assert sorted(path.name for path in data.raw_folder.iterdir()) == sorted(FILES)
    assert notes.exists()


@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_failed_download_leaves_nothing(server: Path, tmp_path: Path, fault: str) -> None:
    archive = server / "t10k-labels-idx1-ubyte.gz"
    if fault == "missing":
        archive.unlink()
    else:
        archive.write_bytes(archive.read_bytes()[:-10])
    folder = tmp_path / "data"
    with pytest.raises(DataError, match="the download failed") as error:
        MNISTDataModule(str(folder), source="mnist").prepare_data()
    assert str(folder / "MNIST" / "raw") in str(error.value)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("answer", ["refused", "silence"])
def test_without_a_network_the_packaged_digits_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if answer == "refused":
            silent.close()
        mirrors = [f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{port}/mirror/"]
        monkeypatch.setattr(datasets.MNIST, "mirrors", mirrors)
        monkeypatch.setattr(mnist, "NETWORK_TIMEOUT", 1)
        data = MNISTDataModule(str(tmp_path / "data"))
        start = time.monotonic()
        with pytest.warns(UserWarning, match="using the 5,000 MNIST digits") as warned:
            data.prepare_data()
        assert time.monotonic() - start < 10
        assert len([w for w in warned if "MNIST digits" in str(w.message)]) == 1
        data.setup("fit")
        assert data.hparams["source_used"] == "packaged"
        assert not (tmp_path / "data").exists()


def test_asking_for_mnist_alone_names_the_folder_and_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(DataError) as error:
        MNISTDataModule(str(tmp_path), source="mnist").prepare_data()
    assert all(name in str(error.value) for name in (*FILES, str(tmp_path / "MNIST" / "raw")))


@pytest.mark.parametrize("dataset", ["FashionMNIST", "KMNIST"])
def test_other_data_sets_of_this_format(tmp_path: Path, dataset: str) -> None:
    data = MNISTDataModule(str(tmp_path), dataset=dataset)
    write_idx_files(tmp_path / dataset / "raw")
    data.prepare_data()
    data.setup("fit")
    assert len(data.splits["train"]) == 55_000
    assert data.judge() is None
    shutil.rmtree(tmp_path / dataset)
    with pytest.raises(ValueError, match="packaged has MNIST only"):
        MNISTDataModule(str(tmp_path), dataset=dataset, source="packaged")


def test_the_four_archives_put_there_by_hand_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "download", lambda *_: pytest.fail("asks the network"))
    data = MNISTDataModule(str(tmp_path))
    write_idx_files(data.raw_folder)
    content = {}
    for name in FILES:
        path = data.raw_folder / name
        content[name] = path.read_bytes()
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    data.prepare_data()
    assert {name: (data.raw_folder / name).read_bytes() for name in FILES} == content
    data.setup("fit")
    assert data.hparams["source_used"] == "mnist"


def test_a_cut_archive_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    packed = gzip.compress(np.random.default_rng(0).bytes(10_000))
    (raw / "train-images-idx3-ubyte.gz").write_bytes(packed[:-500])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be unpacked"):
        MNISTDataModule(str(tmp_path)).prepare_data()
    assert [path.name for path in raw.iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_why_the_network_was_not_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__) -> None:
        raise URLError("certificate verify failed")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match="certificate verify failed"):
        MNISTDataModule("none", source="mnist").prepare_data()


@pytest.mark.usefixtures("server")
def test_a_server_that_refuses_to_be_asked_for_heads_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_HEAD", lambda self: self.send_error(405))
    data = MNISTDataModule(str(tmp_path / "data"), source="mnist")
    data.prepare_data()
    assert data.has_files()
