"""What a person finds in TensorBoard, read back with TensorBoard's own reader."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from conftest import SOURCE
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tiny import TINY


def test_tensorboard_shows_the_run(call_main, tmp_path: Path) -> None:
    call_main(*TINY, "--lr", 0.002, "--max_steps", 30, "--limit_train_batches", 10)
    events = EventAccumulator(str(next((tmp_path / "lightning_logs").iterdir()))).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) >= {"train/loss", "val/loss", "hp/val_loss", "lr-Muon/pg1"}
    assert len(events.Scalars("val/loss")) == 3
    assert len(events.Scalars("train/loss")) == 3

    images = events.Images("samples")
    assert [image.step for image in images] == [10, 20, 30]
    png = next(tmp_path.rglob("step-000030.png"))
    assert (images[-1].width, images[-1].height) == (488, 488)
    shown = np.asarray(Image.open(BytesIO(images[-1].encoded_image_string)))
    assert np.array_equal(shown, np.asarray(Image.open(png)))

    (text,) = events.Tensors("config/text_summary")
    config = text.tensor_proto.string_val[0].decode()
    assert "lightning_ddpm.networks.MLP" in config
    assert "max_steps: 30" in config
    saved = torch.load(next(tmp_path.rglob("last.ckpt")), weights_only=True)
    assert saved["data"]["class_path"] == "lightning_ddpm.data.MNISTDataModule"
    assert saved["data"]["init_args"]["source"] == SOURCE
    assert saved["data"]["init_args"]["batch_size"] == 64

    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    hparams = dict(session.hparams)
    assert hparams["lr"].number_value == 0.002
    assert hparams["source_used"].string_value in ("mnist", "packaged")
    assert "MLP" in hparams["model/init_args/network/class_path"].string_value
