"""The judge of digits: what is worse scores worse, and floors are of real digits."""

import numpy as np
import pytest
import torch
from conftest import SOURCE
from torch.nn import functional as F

from lightning_ddpm import MNISTDataModule
from lightning_ddpm.data import ArrayDataset
from lightning_ddpm.judge import (
    DigitFeatures,
    DigitJudge,
    memorisation,
    nearest,
    table,
    with_floors,
)
from lightning_ddpm.judge.digits import frechet_distance

SIZE = 500


@pytest.fixture(scope="module")
def data() -> MNISTDataModule:
    data = MNISTDataModule(source=SOURCE)
    data.setup("fit")
    data.splits["train"] = data.splits["train"].part(torch.arange(3500))
    data.splits |= data.load_splits("test")
    return data


@pytest.fixture(scope="module")
def train(data: MNISTDataModule) -> ArrayDataset:
    return data.splits["train"]


@pytest.fixture(scope="module")
def test(data: MNISTDataModule) -> ArrayDataset:
    return data.splits["test"]


@pytest.fixture(scope="module")
def judge(data: MNISTDataModule) -> DigitJudge:
    judge = data.judge()
    assert isinstance(judge, DigitJudge)
    return judge


@pytest.fixture(scope="module")
def floors(judge: DigitJudge) -> dict[str, float]:
    return judge.floors(SIZE)


def test_nearest_by_brute_force(train: ArrayDataset, test: ArrayDataset) -> None:
    images, others = test.x0[:20], train.x0[:900]
    distances, places = nearest(images, others)
    brute = torch.cdist(images.flatten(1).double() / 255, others.flatten(1).double() / 255)
    expected = brute.topk(2, largest=False)
    torch.testing.assert_close(distances.double(), expected.values, rtol=1e-5, atol=1e-5)
    assert torch.equal(places, expected.indices)


def test_copies_of_training_images_are_caught(
    judge: DigitJudge, train: ArrayDataset, floors: dict[str, float]
) -> None:
    copies = judge.score(train.x0[:SIZE])
    assert copies["near_copies"] == 1
    assert copies["nearest_distance"] == 0
    assert floors["near_copies"] < 0.02
    assert floors["nearest_distance"] > 3
    damaged = train.x0[:SIZE].clone()
    damaged[:, :, 10, 10] //= 2  # a pixel of a copy
    assert judge.score(damaged)["near_copies"] > 0.98


def test_a_missing_class_is_caught(judge: DigitJudge, train: ArrayDataset, floors) -> None:
    without = judge.score(train.x0[train.condition != 4][:SIZE])
    assert floors["class_chi_square"] < 27.9  # 99.9% of chi-square with 9 degrees of freedom
    assert without["class_chi_square"] > 40
    assert without["share_of_4"] < 0.02
    ones = judge.score(train.x0[train.condition == 1][:300])
    assert ones["share_of_1"] > 0.98
    assert ones["recall"] < 0.3 < floors["recall"]
    assert ones["coverage"] < 0.3 < floors["coverage"]


@pytest.mark.parametrize("damage", ["noise", "blur"])
def test_more_damage_is_a_worse_score(
    judge: DigitJudge, test: ArrayDataset, floors: dict[str, float], damage: str
) -> None:
    images = test.x0[:SIZE].float()
    ranks = [floors]
    for strength in (1, 2, 3):
        if damage == "noise":
            worse = images + 30 * strength * torch.randn(images.shape)
        else:
            worse = F.avg_pool2d(images, 2 * strength + 1, stride=1, padding=strength)
        ranks.append(judge.score(worse.clamp(0, 255).round().to(torch.uint8)))
    for name in ("frechet_distance", "kernel_distance"):
        values = [figures[name] for figures in ranks]
        assert values == sorted(values), name
    for name in ("precision", "density", "coverage"):
        values = [figures[name] for figures in ranks]
        assert values[0] > values[1] > values[3], name


def test_figures_do_not_depend_on_the_batches(
    judge: DigitJudge, test: ArrayDataset, floors
) -> None:
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    for place in torch.randperm(SIZE).split(77):
        judge.update(test.x0[order[place]], place)
    assert judge.figures() == pytest.approx(floors, rel=1e-4, abs=1e-6)


def test_labels_are_read(judge: DigitJudge, test: ArrayDataset, floors) -> None:
    images, labels = test.x0[:200], test.condition[:200].clone()
    assert judge.score(images, labels)["label_accuracy"] > 0.98
    labels[:100] = (labels[:100] + 1) % 10
    assert judge.score(images, labels)["label_accuracy"] == pytest.approx(0.5, abs=0.03)
    assert "label_accuracy" not in floors


def test_floors_are_the_figures_of_test_images(judge: DigitJudge, test: ArrayDataset) -> None:
    floors = judge.floors(100)
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:100]
    assert floors == judge.score(test.x0[order])
    labels = test.condition[order]
    told = judge.floors(100, labels)
    assert told["label_accuracy"] > 0.98
    assert told["share_of_3"] == pytest.approx((labels == 3).double().mean().item(), abs=0.02)
    assert judge.most == len(test)


def test_too_few_images_are_refused(judge: DigitJudge, test: ArrayDataset) -> None:
    with pytest.raises(ValueError, match="at least 6 images are needed"):
        judge.score(test.x0[:5])
    judge.reset()


def test_floors_stand_beside_their_figures() -> None:
    figures = with_floors({"frechet_distance": 3.0, "recall": 0.5}, {"frechet_distance": 1.5})
    assert figures["frechet_floor"] == 1.5
    count, header, line = table({"samples": 30.0, **figures}).splitlines()
    assert count == "30 samples, and as many real ones as their floor:"
    assert header.split() == ["samples", "floor", "ratio"]
    assert line.split() == ["frechet_distance", "3.0000", "1.5000", "2.00"]


def test_the_two_classifiers_agree_on_what_is_better(train, test) -> None:
    images = test.x0[:SIZE]
    noisy = (images + 40 * torch.randn(images.shape)).clamp(0, 255).to(torch.uint8)
    for name in ("convolutions", "patches"):
        features = DigitFeatures(name)
        real, clean, bad = (features(x) for x in (train.x0[:1000], images, noisy))
        assert 3 * frechet_distance(real, clean) < frechet_distance(real, bad)


def test_the_floor_is_of_images_of_all_writers(judge: DigitJudge, test: ArrayDataset) -> None:
    # MNIST's test images are ordered by their writers: those of a floor come from everywhere.
    seen = []
    judge.score, score = lambda images, *_: seen.append(images) or {}, judge.score
    try:
        judge.floors(100)
    finally:
        judge.score = score
    places = [(test.x0 == image).flatten(1).all(1).nonzero().item() for image in seen[0]]
    # Oracle: the mean of 100 of n places without order, at four standard deviations.
    n = len(test)
    assert np.mean(places) == pytest.approx(n / 2, abs=4 * n / (12 * 100) ** 0.5)


def test_digits_that_were_asked_for_are_compared_with_as_many_of_each(
    judge: DigitJudge, train: ArrayDataset, test: ArrayDataset
) -> None:
    # Test images with equal shares of the digits, as a perfect model would draw them when asked.
    each = min(40, test.condition.bincount().min().item())
    places = torch.cat([(test.condition == d).nonzero()[:each, 0] for d in range(10)])
    images, labels = test.x0[places], test.condition[places]
    told, floors = judge.score(images, labels), judge.floors(len(images), labels)
    assert told["class_chi_square"] < 5
    assert floors["class_chi_square"] < 5
    assert floors["share_of_5"] == pytest.approx(0.1, abs=0.01)
    sevens = images[labels == 7][:30]
    assert judge.score(sevens)["class_chi_square"] > 200
    only = judge.score(sevens, torch.full((len(sevens),), 7))
    assert only["frechet_distance"] < judge.score(sevens)["frechet_distance"] / 2


def test_a_copy_of_an_image_that_is_there_twice_is_a_copy() -> None:
    train = torch.randint(256, (50, 1, 8, 8), dtype=torch.uint8)
    twice = torch.cat([train, train[:5], train[:5]])
    near = train[:5].clone()
    near[:, :, 0, 0] ^= 1
    for images in (train[:5], near):
        distances, places = nearest(images, twice)
        expected, _ = nearest(images, train)
        assert torch.equal(distances, expected)
        assert (twice[places[:, 0]] == train[:5]).all()
        assert memorisation(distances)["near_copies"] == 1
    same, _ = nearest(train[:1], train[:1].expand(3, 1, 8, 8))
    assert same.tolist() == [[0, 0]]  # there is no other


def test_the_judge_computes_in_float32_whatever_the_user_sets() -> None:
    features, seen = DigitFeatures("patches"), []
    note = lambda *_: seen.append(torch.get_float32_matmul_precision())  # noqa: E731
    features.head.register_forward_hook(note)
    features.network.register_forward_hook(note)
    torch.set_float32_matmul_precision("medium")
    try:
        features.classify(features(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == ["highest", "highest"]
