"""Videos on the command line, and files of them."""

import re
import sys
import warnings
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import SOURCE
from own_videos import write_videos
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import call, error_of, last_of

from lightning_ddpm import load_model
from lightning_ddpm.data import DataError, VideoFolderDataModule
from lightning_ddpm.media import Videos

TINY = (
    *("--model.network.init_args.channels", "[8,8]", "--steps", 2, "--batch_size", 4),
    *("--max_steps", 2, "--limit_val_batches", 1, "--num_videos", 3, "--draws", 4),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a short run on Moving MNIST."""
    folder = tmp_path_factory.mktemp("video")
    call("--config", "video", *TINY, "--source", SOURCE, "--trainer.default_root_dir", folder)
    return folder


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    """Where its videos are."""
    call("predict", "--ckpt_path", folder / last_of(0), "--outdir", folder / "written")
    return folder / "written"


def test_videos_are_written_with_what_was_known_bit_for_bit(written: Path) -> None:
    found = dict(np.load(written / "samples.npz"))
    assert {name: (a.shape, a.dtype.name) for name, a in found.items()} == {
        "videos": ((3, 4, 16, 32, 32), "uint8"),
        "known": ((3, 16), "bool"),
        "truth": ((3, 16, 32, 32), "uint8"),
    }
    assert (found["known"] == (np.arange(16) < 8)).all()
    assert (found["videos"][:, :, :8] == found["truth"][:, None, :8]).all()
    assert (found["videos"][:, :, 8:] != found["truth"][:, None, 8:]).any((1, 2, 3, 4)).all()
    assert (found["videos"][:, 0] != found["videos"][:, 1]).any((1, 2, 3)).all()
    with Image.open(written / "videos.gif") as gif:
        assert gif.n_frames == 16
    with av.open(written / "videos.mp4") as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 16
    assert frames[0].shape[0] > 300
    assert Image.open(written / "strips.png").width > 1000


def test_videos_are_the_same_of_other_batches(folder: Path, written: Path, tmp_path: Path) -> None:
    call("predict", "--ckpt_path", folder / last_of(0), "--outdir", tmp_path, "--batch_size", 5)
    one, other = (np.load(out / "samples.npz")["videos"] for out in (written, tmp_path))
    assert np.abs(one.astype(int) - other).max() <= 1


def test_the_middle_can_be_asked_for(folder: Path, tmp_path: Path) -> None:
    words = ("--task", "infilling", "--observe", 6, "--num_videos", 1, "--draws", 1)
    call("predict", "--ckpt_path", folder / last_of(0), "--outdir", tmp_path, *words)
    found = np.load(tmp_path / "samples.npz")
    assert found["known"][0].nonzero()[0].tolist() == [0, 1, 2, 13, 14, 15]
    assert (found["videos"][0, 0] == found["truth"][0])[found["known"][0]].all()


def test_test_prints_figures_beside_those_of_simple_methods(folder: Path, capfd) -> None:
    words = ("--limit_test_batches", 1, "--enable_progress_bar", "false")
    call("test", "--ckpt_path", folder / last_of(0), *words)
    told = capfd.readouterr().out
    assert re.search(r"samples +truth +black +average +copy\n", told)
    for name in ("error_one", "error_mean", "ssim", "digits_kept", "place_error"):
        assert re.search(rf"^{name} +-?\d", told, re.MULTILINE)
    assert "loses to black" in told


def test_a_grid_is_drawn_in_training(folder: Path) -> None:
    run = folder / "lightning_logs" / "version_0"
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    assert events.Images("samples")
    (moving, *_) = events.Images("moving_samples")
    with Image.open(BytesIO(moving.encoded_image_string)) as gif:
        assert gif.n_frames == 16
    assert list(run.glob("grids/step-*.png"))


@pytest.mark.parametrize("grey", [True, False])
def test_videos_of_one_s_own_are_read(grey: bool, tmp_path: Path) -> None:
    write_videos(tmp_path, grey)
    data = VideoFolderDataModule(str(tmp_path), image_size=8, frames=12)
    assert data.raw_shape == (1 if grey else 3, 12, 8, 8)
    data.setup("fit")
    train = data.splits["train"]
    assert (len(train), len(data.splits["val"])) == (2 * 9, 2 * 9)
    batch = train.__getitems__(list(range(len(train))))
    assert batch["x0"].shape == (18, *data.raw_shape)
    steps = batch["x0"][:, 0].float().mean((2, 3)).diff(dim=1)
    torch.testing.assert_close(steps, torch.full_like(steps, 10.0), atol=4, rtol=0)


def test_videos_of_one_s_own_are_trained_on(tmp_path: Path) -> None:
    own, run = tmp_path / "own", tmp_path / "run"
    own.mkdir()
    write_videos(own, grey=False)
    data = ("--data", "VideoFolderDataModule", "--data_dir", own, "--image_size", 8, "--frames", 6)
    call("--config", "video", *TINY, *data, "--observe", 2, "--trainer.default_root_dir", run)
    assert load_model(run / last_of(0)).shape == (3, 6, 8, 8)
    call("predict", "--ckpt_path", run / last_of(0), "--outdir", tmp_path / "out")
    assert np.load(tmp_path / "out" / "samples.npz")["videos"].shape == (3, 4, 6, 8, 8, 3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--observe", 16), "observe must be from 0 to below 16 frames, got 16"),
        (("--frames", 1), "observe must be from 0 to below 1 frames, got 8"),
        (("--length", 3), "length must be at least 16 frames, got 3"),
        (("--data", "VideoFolderDataModule", "--data_dir", "."), "has 0 such videos; at least 6"),
        (("--data", "VideoFolderDataModule", "--data_dir", "no"), "no: no such folder"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("in_an_empty_folder")
def test_bad_input_is_one_line(words: tuple, told: str, capfd) -> None:
    code, line = error_of(capfd, lambda: call("--config", "video", *TINY, *words))
    assert code == 2
    assert told in line


def test_a_damaged_video_is_named(tmp_path: Path) -> None:
    write_videos(tmp_path, grey=True)
    (tmp_path / "2.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"2\.mp4 cannot be read as a video"):
        VideoFolderDataModule(str(tmp_path), frames=12).setup("fit")


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    write_videos(tmp_path, grey=True)
    for name in ("note.txt", "alone.png"):
        (tmp_path / name).touch()
    (tmp_path / "short").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "short" / "0.png")
    with warnings.catch_warnings(record=True, action="always") as told:
        VideoFolderDataModule(str(tmp_path), frames=12).setup("fit")
    lines = [str(warning.message) for warning in told]
    assert any("2 files are left out, of .png, .txt" in line for line in lines)
    assert any("1 videos have fewer than 12 frames" in line for line in lines)


def test_without_av_the_rest_is_written_and_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    videos = torch.zeros(1, 1, 4, 8, 8, dtype=torch.uint8)
    with pytest.warns(UserWarning, match=r"videos\.mp4 needs av: pip install"):
        written = Videos().write({"videos": videos}, tmp_path)
    assert [path.name for path in written] == ["samples.npz", "strips.png", "videos.gif"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.mp4").touch()
    with pytest.raises(DataError, match=r"pip install .lightning-ddpm\[video\]"):
        VideoFolderDataModule(str(tmp_path / "own")).setup("fit")
