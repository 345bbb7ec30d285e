"""TensorBoard as people see it: a real run, its own server, and a real browser."""

import base64
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import SOURCE
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import call

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="Debian's packages chromium and chromium-driver are not here"
)
RUN = ("--max_steps", 60, "--limit_train_batches", 20, "--limit_val_batches", 5)
RUN += ("--model.network.init_args.channels", "[8,16]")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1200,900", "--disable-dev-shm-usage"),
)
SECONDS = 30  # that a page may take to show what it should
TEXT = """
function text(node) {  // also of what is in shadow roots and frames
  if (node.nodeType === Node.TEXT_NODE) return node.textContent.trim();
  if (["STYLE", "SCRIPT"].includes(node.nodeName)) return "";
  if (node.nodeName === "IFRAME") return text(node.contentDocument.body);
  if (node.nodeType === Node.ELEMENT_NODE && !node.checkVisibility()) return "";
  const inner = [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes];
  return inner.map(text).filter(Boolean).join("\\n");
}
return text(document.body);
"""
PICTURE = """
function pictures(node) {
  const inner = [node, ...node.querySelectorAll("*")];
  const roots = inner.map(e => e.shadowRoot).filter(Boolean);
  return [...inner.filter(e => e.nodeName === "IMG" && e.checkVisibility() && e.naturalWidth > 100),
          ...roots.flatMap(root => [...root.children].flatMap(pictures))];
}
const [picture] = pictures(document.body);
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
canvas.getContext("2d").drawImage(picture, 0, 0);
return canvas.toDataURL("image/png");
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the run, and for the screenshots."""
    return tmp_path_factory.mktemp("tensorboard")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[webdriver.Chrome]:
    """A browser that has opened TensorBoard on a run of the default recipe, of a small network."""
    with chdir(folder):
        call(*RUN, "--source", SOURCE, "--enable_progress_bar", "false")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", free.getsockname()[1])
    # As the README says.
    command = ["-m", "tensorboard.main", "--logdir", "lightning_logs", "--port", address[1]]
    server = subprocess.Popen(
        [sys.executable, *map(str, command), "--host", "127.0.0.1"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    try:
        deadline = time.monotonic() + SECONDS
        while socket.socket().connect_ex(address) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with webdriver.Chrome(options, Service(DRIVER)) as chrome:
            chrome.get("http://{}:{}/".format(*address))
            yield chrome
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def show(browser: webdriver.Chrome, folder: Path) -> Callable[..., str]:
    """Opens a tab, waits for the lines and the pattern it should show, leaves a screenshot."""

    def open_tab(tab: str, *lines: str, pattern: str = "") -> str:
        address = browser.current_url.partition("#")[0]
        browser.get("about:blank")
        browser.get(f"{address}#{tab}")
        deadline, missing, text = time.monotonic() + SECONDS, [*lines], ""
        while missing or not re.search(pattern, text, re.DOTALL):
            assert time.monotonic() < deadline, f"{tab} does not show {missing, pattern}: {text}"
            time.sleep(0.3)
            text = browser.execute_script(TEXT)
            missing = [line for line in lines if line not in text.splitlines()]
        time.sleep(1)  # for curves to be drawn
        browser.save_screenshot(str(folder / f"{tab}.png"))
        return text

    return open_tab


def events(folder: Path) -> EventAccumulator:
    """What the run has logged: the oracle of what pages should show."""
    return EventAccumulator(str(folder / "lightning_logs" / "version_0")).Reload()


def test_images_are_the_last_grid(show, browser: webdriver.Chrome, folder: Path) -> None:
    show("images", "samples", "version_0", "60")
    picture = base64.b64decode(browser.execute_script(PICTURE).partition(",")[2])
    shown = np.asarray(Image.open(BytesIO(picture)).convert("RGB"))
    grid = folder / "lightning_logs" / "version_0" / "grids" / "step-000060.png"
    assert np.array_equal(shown, np.asarray(Image.open(grid).convert("RGB")))


def test_scalars_are_all_there(show, folder: Path) -> None:
    show("scalars", "hp/val_loss", "train", "val", "val_by_time", "lr-Muon", "epoch")
    last = events(folder).Scalars("hp/val_loss")[-1]
    show("timeseries", "version_0", f"{last.value:.4g}", str(last.step))


def test_curves_that_are_read_together_are_together(show) -> None:
    groups = ("Loss", "training and validation", r"Matches \(2\)", "validation, by time step")
    groups += (r"Matches \(10\)", "Optimizer", "learning rate", r"Matches \(2\)", "Samples")
    # With axes, but no other group, in between.
    show("custom_scalars", pattern=r"\n((?!Matches)[^\n]*\n)*".join(groups))


def test_hyper_parameters_have_their_row_and_result(show, folder: Path) -> None:
    last = events(folder).Scalars("hp/val_loss")[-1]
    text = show("hparams", "version_0", "batch_size", "64.000", f"{last.value:#.5g}")
    assert "model/init_args/network/init_args/weak_dropout" in text.splitlines()


def test_text_is_the_whole_configuration(show) -> None:
    text = show("text", "config/text_summary", "  max_steps: 60", "seed_everything: 0")
    assert "    class_path: lightning_ddpm.networks.UNet" in text.splitlines()
