"""Videos of digits that move: how they are made, seen and judged."""

import math

import numpy as np
import pytest
import torch
from conftest import SOURCE
from torch import Tensor, nn

from lightning_ddpm import Diffusion
from lightning_ddpm.data import MovingMNISTDataModule
from lightning_ddpm.data.moving import pasted, paths
from lightning_ddpm.judge.videos import cut, located, squared_error
from lightning_ddpm.longer import longer, stages
from lightning_ddpm.media import Videos
from lightning_ddpm.networks import StackedUNet, Transformer, VideoUNet
from lightning_ddpm.noise import BatchNoise, SampleNoise
from lightning_ddpm.observation import Frames
from lightning_ddpm.observation.video import drawn_frames, nearest_frames
from lightning_ddpm.samplers import DDIM
from lightning_ddpm.schedule import CosineSchedule


def loud(network: VideoUNet) -> VideoUNet:
    """The network with nothing at zero, as it is at first."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)
    return network.eval()


@pytest.fixture(scope="module")
def data() -> MovingMNISTDataModule:
    data = MovingMNISTDataModule(source=SOURCE, num_videos=20, draws=2)
    data.prepare_data()
    data.setup("test")
    return data


def test_digits_move_and_bounce_as_the_authors_have_it() -> None:
    # Oracle: their loop (Srivastava et al. 2015), of one digit, with plain numbers.
    start, direction = torch.rand(50, 2, 2), torch.rand(50, 2) * 2 * math.pi
    found = paths(start, direction, 40)
    for i in range(50):
        for d in range(2):
            (y, x), theta = start[i, d].tolist(), direction[i, d].item()
            v_y, v_x = math.sin(theta), math.cos(theta)
            for frame in range(40):
                y += v_y * 0.1
                x += v_x * 0.1
                if x <= 0:
                    x, v_x = 0, -v_x
                if x >= 1:
                    x, v_x = 1, -v_x
                if y <= 0:
                    y, v_y = 0, -v_y
                if y >= 1:
                    y, v_y = 1, -v_y
                np.testing.assert_allclose(found[i, frame, d].numpy(), [y, x], atol=1e-4)


def test_frames_show_the_brighter_digit_where_they_overlap() -> None:
    digits = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8)
    corners = torch.randint(0, 7, (3, 5, 2, 2))
    video = pasted(digits, corners, 10)
    for i, frame in np.ndindex(3, 5):
        expected = np.zeros((10, 10), np.uint8)
        for d in range(2):
            y, x = corners[i, frame, d].tolist()
            part = expected[y : y + 4, x : x + 4]
            np.maximum(part, digits[i, d].numpy(), out=part)
        np.testing.assert_array_equal(video[i, frame].numpy(), expected)


def test_videos_are_drawn_from_their_split_and_index(data: MovingMNISTDataModule) -> None:
    split = data.splits["test"]
    some, one = split.__getitems__([3, 900, 4]), split.__getitems__([900])
    for name, value in one.items():
        assert some[name][1].equal(value[0])
    assert some["x0"].shape == (3, 1, 16, 32, 32)
    assert not some["x0"][0].equal(some["x0"][2])
    images = data.digits.load_splits("test")["test"].x0.flatten(1)
    for image in some["images"].flatten(0, 1).flatten(1):
        assert (images == image).all(1).any()
    large = MovingMNISTDataModule(64, 20, source=SOURCE)
    large.setup("fit")
    assert large.splits["train"].__getitems__([0])["x0"].shape == (1, 1, 20, 64, 64)


def groups(random: np.random.Generator, frames: int, total: int) -> tuple[list[int], list[bool]]:
    """The same frame by frame, with plain numbers: FDM's algorithm, but that groups are cut."""
    found: dict[int, bool] = {}
    for group in range(frames):
        size = random.integers(1, frames + 1)
        spacing = ((total - 1) / max(size - 1, 1)) ** random.random()
        start = random.random() * max(total - spacing * (size - 1), 1)
        known = bool(group and random.random() < 0.5)
        for j in range(size):
            frame = math.floor(start + spacing * j)
            if frame < total and frame not in found and len(found) < frames:
                found[frame] = known
    rest = [i for i in range(total) if i not in found][: frames - len(found)]
    found |= dict.fromkeys(rest, False)
    return sorted(found), [found[i] for i in sorted(found)]


@pytest.mark.parametrize("total", [16, 60])
def test_frames_are_drawn_in_groups(total: int) -> None:
    n, frames = 4000, 16
    positions, known = drawn_frames(torch.rand(n, frames, 4), total)
    assert (positions.diff(dim=1) > 0).all()
    assert positions.min() == 0
    assert positions.max() == total - 1
    random = np.random.default_rng(0)
    expected = [groups(random, frames, total) for _ in range(n)]
    theirs = torch.tensor([positions for positions, _ in expected])
    told = torch.tensor([known for _, known in expected])
    for ours, other in (
        (known.sum(1) / frames, told.sum(1) / frames),
        ((known.sum(1) == 0).float(), (told.sum(1) == 0).float()),
        ((positions.diff(dim=1) == 1).float().mean(1), (theirs.diff(dim=1) == 1).float().mean(1)),
        (positions.float().std(1) / total, theirs.float().std(1) / total),
    ):
        assert ours.mean().item() == pytest.approx(other.float().mean().item(), abs=0.025)


def test_a_subset_of_a_longer_video_is_learned() -> None:
    video = torch.arange(40.0)[:, None, None].expand(3, 2, 40, 4, 4)  # frames say where they are
    given = Frames(8).draw(video, SampleNoise(0, range(3)), {"x0": video})
    assert given.values.shape == given.known.expand_as(given.values).shape == (3, 2, 8, 4, 4)
    assert given.values[:, 0, :, 0, 0].equal(given.positions.float())
    assert Frames(8).shape((2, 40, 4, 4)) == (2, 8, 4, 4)
    whole = Frames(50).draw(video, SampleNoise(0, range(3)), {"x0": video})
    assert whole.values.equal(video)

    def drawn(size: int, *process: int) -> Tensor:
        noise = BatchNoise(torch.Generator().manual_seed(0), size, *process)
        positions = Frames(8).draw(video[:size], noise, {"x0": video[:size]}).positions
        assert positions is not None
        return positions

    both = torch.stack([drawn(1, rank, 2) for rank in (0, 1)], dim=1).flatten(0, 1)
    assert both.equal(drawn(2))
    with pytest.raises(ValueError, match=r"Frames is for videos \(c, frames, h, w\)"):
        Frames().draw(torch.zeros(1, 1, 28, 28), SampleNoise(0, [0]))


def test_most_training_videos_are_asked_as_held_out_ones_are() -> None:
    n = 2000
    video = torch.arange(40.0)[:, None, None].expand(n, 1, 40, 1, 1)
    given = Frames(16, 6).draw(video, SampleNoise(0, range(n)), {"x0": video})
    known, positions = given.known[:, 0, :, 0, 0], given.positions
    assert positions is not None
    row = (positions.diff(dim=1) == 1).all(1)
    place = torch.arange(16)
    asked = {"prediction": place < 6, "infilling": (place < 3) | (place >= 13)}
    for share, (task, frames) in zip((0.75, 0.1), asked.items(), strict=True):
        assert (
            MovingMNISTDataModule(observe=6, task=task).known(place[:2]).equal(frames.expand(2, -1))
        )
        those = row & (known == frames).all(1)
        assert those.float().mean().item() == pytest.approx(share, abs=0.04)
        assert set(positions[those, 0].tolist()) == set(range(25))
    with pytest.raises(ValueError, match="observe must be from 0 to below frames, got 4"):
        Frames(4, 4)


def test_a_network_that_takes_no_positions_is_refused() -> None:
    parts = {"medium": Videos(), "observation": Frames(), "shape": (1, 4, 8, 8)}
    with pytest.raises(ValueError, match="Transformer with these arguments does not fit samples"):
        Diffusion(Transformer(2, 1, width=16, layers=1), **parts)


@pytest.mark.parametrize("more", [{}, {"frames": 8}])
def test_known_frames_cost_nothing(more: dict) -> None:
    network, outputs = loud(VideoUNet(2, (8, 8), 1)), []
    options = {"medium": Videos(), "observation": Frames(**more), "shape": (1, 8, 8, 8)}
    model = Diffusion(network, **options).eval()
    video = torch.randint(0, 256, (3, 1, 20 if more else 8, 8, 8), dtype=torch.uint8)
    network.register_forward_hook(lambda *call: outputs.append(call[2]))
    loss = model.loss({"x0": video}, SampleNoise(0, range(3)))
    noise = SampleNoise(0, range(3))
    noise.uniform()
    epsilon = noise.draw((1, 8, 8, 8))
    given = Frames(**more).draw(Videos().encode(video), noise, {"x0": video})
    for i in range(3):
        error = (outputs[0][i] - epsilon[i])[~given.known[i]].square().sum() / (8 * 8 * 8)
        torch.testing.assert_close(loss[i], error)


def test_the_nearest_known_frame_is_copied() -> None:
    video = torch.randn(3, 1, 6, 3, 3)
    known = torch.tensor([[1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0], [0] * 6]).bool()
    found = nearest_frames(video, known)
    assert not found[2].any()
    assert found[0].equal(video[0][:, [0, 0, 0, 5, 5, 5]])
    assert found[1].equal(video[1][:, [2] * 6])


def test_frames_are_told_apart_by_their_distance_alone() -> None:
    network = loud(VideoUNet(2, (8, 8, 12), 1))
    x, t = torch.randn(2, 2, 6, 8, 8), torch.tensor([3, 700])
    positions = torch.arange(6).expand(2, -1)
    found, order = network(x, t), torch.randperm(6)
    assert found.shape == (2, 1, 6, 8, 8)
    torch.testing.assert_close(network(x, t, positions=positions + 40), found)
    torch.testing.assert_close(
        network(x[:, :, order], t, positions=positions[:, order]),
        found[:, :, order],
        rtol=1e-3,
        atol=1e-3,
    )
    assert not torch.allclose(network(x, t, positions=2 * positions), found, atol=1e-2)
    other = x.clone()
    other[:, :, 0] += 1
    assert not torch.allclose(network(other, t)[:, :, -1], found[:, :, -1], atol=1e-2)
    first = VideoUNet(2, (8, 8, 12), 1)
    nn.init.normal_(first.head[0].weight)  # at first, frames are images of their own
    torch.testing.assert_close(first(other, t)[:, :, 1:], first(x, t)[:, :, 1:])


def test_frames_are_channels_of_one_image() -> None:
    network = loud(StackedUNet(3, 2, (8, 8), 1))
    x, t = torch.randn(2, 2, 3, 8, 8), torch.tensor([3, 700])
    for layer in (network.spacing[2], network.past):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    # Oracle: its UNet, of pixels that are put in their places one by one.
    image, expected = torch.zeros(2, 24, 4, 4), torch.zeros(2, 1, 3, 8, 8)
    for c, f, y, x_ in np.ndindex(2, 3, 8, 8):
        image[:, ((c * 3 + f) * 2 + y % 2) * 2 + x_ % 2, y // 2, x_ // 2] = x[:, c, f, y, x_]
    found = network.unet(image, t)
    for f, y, x_ in np.ndindex(3, 8, 8):
        expected[:, 0, f, y, x_] = found[:, (f * 2 + y % 2) * 2 + x_ % 2, y // 2, x_ // 2]
    torch.testing.assert_close(network(x, t), expected)
    nn.init.constant_(network.past.bias, 0.5)  # what is seen of the samples goes past
    torch.testing.assert_close(network(x, t), expected + 0.5 * x[:, :1])
    loud(network)
    near = torch.tensor([[0, 1, 2], [4, 5, 6]])
    torch.testing.assert_close(network(x, t, positions=near), network(x, t))
    assert not torch.allclose(network(x, t, positions=2 * near), network(x, t), atol=1e-2)
    with pytest.raises(ValueError, match=r"needs 3 frames whose height and width divide by 4"):
        network(x[:, :, :2], t)
    with pytest.raises(ValueError, match="frames and patch must be at least 1, got 0 and 2"):
        StackedUNet(0)


@pytest.mark.parametrize("known", [0, 3, 8, 20])
@pytest.mark.parametrize("length", [21, 61])
@pytest.mark.parametrize("scheme", ["autoregressive", "hierarchical"])
def test_stages_make_each_frame_once_given_what_there_is(
    scheme: str, length: int, known: int
) -> None:
    made = set(range(known))
    for latent, observed in stages(scheme, length, known, 16):
        assert set(observed) <= made
        assert not made & set(latent)
        assert len(latent) + len(observed) == 16
        made |= set(latent)
    assert made == set(range(length))


def test_a_hierarchy_begins_with_every_fourth_frame() -> None:
    first, second, *_ = stages("hierarchical", 40, 8, 16)
    assert first == ([11, 15, 19, 23, 27, 31, 35, 39], [0, 1, 2, 3, 4, 5, 6, 7])
    assert second == ([8, 9, 10, 12, 13, 14, 16, 17], [3, 4, 5, 6, 7, 11, 15, 19])
    first, second, *_ = stages("autoregressive", 40, 4, 16)
    assert first == ([4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [0, 1, 2, 3])
    assert second == ([16, 17, 18, 19, 20, 21, 22, 23], [8, 9, 10, 11, 12, 13, 14, 15])


def test_longer_videos_keep_what_is_known() -> None:
    torch.manual_seed(0)
    network = loud(VideoUNet(2, (8, 8), 1))
    parts = {"medium": Videos(), "observation": Frames(4), "shape": (1, 4, 8, 8)}
    model = Diffusion(network, CosineSchedule(50), sampler=DDIM(3), **parts)
    known = torch.rand(2, 1, 2, 8, 8) * 2 - 1
    video = longer(model, 11, known)
    assert video.shape == (2, 1, 11, 8, 8)
    assert video[:, :, :2].equal(known)
    assert video.isfinite().all()
    frames = video.transpose(1, 2).flatten(0, 1).flatten(1)
    assert (torch.pdist(frames) > 0.1).all()  # each has noise of its own
    torch.testing.assert_close(longer(model, 11, known[:1]), video[:1], rtol=1e-3, atol=1e-3)
    assert longer(model, 9, n=3, scheme="hierarchical").shape == (3, 1, 9, 8, 8)
    with pytest.raises(ValueError, match="length must be at least 4, got 3"):
        longer(model, 3)


def test_errors_are_sums_of_squares() -> None:
    made = torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8)
    truth = made.clone()
    truth[1, 0, 2, :2, :2] = 255
    expected = torch.zeros(2, 3)
    expected[1, 2] = 4
    torch.testing.assert_close(squared_error(made, truth), expected)


def test_digits_that_are_moved_are_found_as_far_away(data: MovingMNISTDataModule) -> None:
    digits = data.digits.load_splits("test")["test"].x0[:30, 0]
    moved = torch.randint(-3, 4, (30, 2))
    frames = torch.zeros(30, 40, 40, dtype=torch.uint8)
    for frame, digit, (y, x) in zip(frames, digits, moved.tolist(), strict=True):
        frame[13 + y : 27 + y, 13 + x : 27 + x] = digit
    around = cut(frames, torch.full((30, 2), 8), 24)
    assert located(around, digits).equal(moved + 5)


def test_the_true_videos_are_judged_perfect_and_shifted_ones_by_their_shift(
    data: MovingMNISTDataModule,
) -> None:
    asked = data.held_out(range(0, 40, 2))
    truth, judge = asked["x0"], data.judge()
    figures = judge.score(truth.repeat_interleave(2, 0))
    assert figures["error_one"] == figures["error_mean"] == figures["error_after_bounces"] == 0
    assert figures["ssim"] == pytest.approx(1)
    assert figures["digits_kept"] == figures["digits_kept_floor"] > 0.6
    assert figures["place_error"] == figures["place_error_floor"] < 0.1
    unknown = truth[:, :, 8:].float() / 255
    black = unknown.square().sum((1, 3, 4)).mean()
    copy = (unknown - truth[:, :, 7:8] / 255).square().sum((1, 3, 4)).mean()
    assert figures["error_black"] == pytest.approx(black.item(), rel=1e-4)
    assert figures["error_copy"] == pytest.approx(copy.item(), rel=1e-4)
    shifted = judge.score(truth.roll((1, -2), (3, 4)).repeat_interleave(2, 0))
    assert shifted["place_error"] == pytest.approx(5**0.5, abs=0.2)
    black = judge.score(torch.zeros_like(truth).repeat_interleave(2, 0))
    assert black["digits_kept"] < 0.3
