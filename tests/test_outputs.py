"""Predict and test write over nothing but their own files."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny import call, error_of

from lightning_ddpm import MNISTDataModule

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_the_user_s_own_files_are_neither_removed_nor_written_over(
    run: dict[str, str], capfd
) -> None:
    predict = ("predict", "--ckpt_path", run["checkpoint"], "--outdir", "out", "--num_samples")
    Path("out/png").mkdir(parents=True)
    for name in ("png/00000.png", "trajectory.png"):
        Path("out", name).write_text("mine")
    call(*predict, 2)
    for name, flag in (("png/00000.png", "--png"), ("trajectory.png", "--trajectory")):
        code, line = error_of(capfd, lambda flag=flag: call(*predict, 2, flag))
        assert code == 1
        assert line.startswith(f"error: out/{name} would be written over: move it, or take another")
        assert Path("out", name).read_text() == "mine"
    Path("other").mkdir()
    Path("other/samples.npz").write_text("mine")
    code, line = error_of(capfd, lambda: call(*predict[:-2], "other"))
    assert (code, Path("other/samples.npz").read_text()) == (1, "mine")
    assert "other/samples.npz would be written over" in line


def test_what_predict_wrote_itself_is_replaced(run: dict[str, str]) -> None:
    predict = ("predict", "--ckpt_path", run["checkpoint"], "--num_samples")
    call(*predict, 3, "--png", "--trajectory")
    Path("samples/png/mine.png").write_text("mine")
    call(*predict, 2, "--png")
    names = {str(path.relative_to("samples")) for path in Path("samples").rglob("*.*")}
    singles = {"png/00000.png", "png/00001.png", "png/mine.png"}
    assert names == {".written", "samples.npz", "grid.png", *singles}
    call(*predict, 1)
    assert [path.name for path in Path("samples/png").iterdir()] == ["mine.png"]


def test_names_of_more_than_99_999_images_sort(tmp_path: Path) -> None:
    from lightning_ddpm.media import Images

    written = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_ddpm.media.images.write_png", lambda _, path: written.append(path))
        Images().write(
            {"images": torch.zeros(100_001, 1, 1, 1, dtype=torch.uint8)}, tmp_path, png=True
        )
    names = [path.name for path in written[1:]]
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("000000.png", "100000.png")


def test_metrics_are_not_written_over_another_s(
    run: dict[str, str], capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MNISTDataModule, "judge", lambda _: None)  # the loss and the bound will do
    Path("out").mkdir()
    Path("out/metrics.json").write_text("mine")
    words = ("test", "--ckpt_path", run["checkpoint"], "--outdir", "out", "--num_samples", 6)
    words += ("--trainer.limit_test_batches", 1, "--source", "packaged")
    _, line = error_of(capfd, lambda: call(*words))
    assert "out/metrics.json would be written over" in line
    Path("out/metrics.json").unlink()
    call(*words)
    first = Path("out/metrics.json").read_text()
    call(*words)
    assert json.loads(Path("out/metrics.json").read_text()) == json.loads(first)


@pytest.mark.parametrize(
    ("words", "users"),
    [
        ("--outdir x", "predict"),
        ("validate --outdir x", "predict"),
        ("fit --png", "predict"),
        ("test --trajectory", "predict"),
        ("--evaluation.outdir x", "test"),
        ("predict --evaluation.num_samples=9", "fit and test"),
        ("test --evaluation.every_n_epochs 2", "fit"),
        ("predict --ema.decay 0.5", "fit"),
    ],
)
def test_what_would_have_no_effect_is_refused(words: str, users: str, capfd) -> None:
    code, line = error_of(capfd, lambda: call(*words.split()))
    (flag,) = re.findall(r"--[\w.]+", words)
    assert (code, line) == (2, f"error: {flag}: only {users} would use it")
    assert not [*Path().iterdir()]
