"""Views are a pure function of (picture, key), and are what their settings say."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.views import _mix, keyed_order, keyed_uniform, random_views
from compressor.spec.recipe import Views

WHOLE = Views(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=False)


def pictures(count: int, side: int = 24, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8))


def coordinates(side: int = 256) -> Tensor:
    """A picture that tells where each of its pixels lies: red is x, green is y."""
    at = np.arange(side, dtype=np.uint8)
    x, y = np.meshgrid(at, at)
    return torch.from_numpy(np.stack([x, y, np.zeros_like(x)], -1))


def crops(views: Views, count: int, side: int = 256) -> tuple[NDArray[np.float64], NDArray[np.float64], Tensor]:
    """Width (below 0 where mirrored) and height of `count` crops as shares of the picture, read off the pixels."""
    numbers = keyed_uniform(7, np.arange(count), 0, 5)
    seen = random_views(coordinates(side).expand(count, -1, -1, -1), numbers, views, (side, side)) * 255
    near, far = side // 4, side - side // 4 - 1  # within the picture, away from the padded border
    width = (seen[:, 0, 0, far] - seen[:, 0, 0, near]) / (far - near)
    height = (seen[:, 1, far, 0] - seen[:, 1, near, 0]) / (far - near)
    return width.double().numpy(), height.double().numpy(), seen


def test_a_view_does_not_depend_on_its_batch() -> None:
    some, samples = pictures(12), np.arange(12)
    alone = [
        random_views(some[i : i + 1], keyed_uniform(3, samples[i : i + 1], 5, 5), Views(), (16, 16)) for i in range(12)
    ]
    order = np.random.default_rng(1).permutation(12)
    together = random_views(some[order], keyed_uniform(3, samples[order], 5, 5), Views(), (16, 16))
    for place, sample in enumerate(order):
        torch.testing.assert_close(together[place], alone[sample][0], rtol=0, atol=1e-6)


def test_numbers_do_not_depend_on_the_batch_bit_for_bit() -> None:
    whole = keyed_uniform(3, np.arange(100), 5, 5)
    order = np.random.default_rng(1).permutation(100)
    np.testing.assert_array_equal(keyed_uniform(3, order, 5, 5), whole[order])
    np.testing.assert_array_equal(keyed_uniform(3, np.arange(100), 5, 2), whole[:, :2])


def test_numbers_stay_the_same_from_version_to_version() -> None:
    """A resumed run must find the same ones, whatever numpy does to its own generators."""
    assert _mix(np.array([1234567], np.uint64)) == 6457827717110365317  # SplitMix64's published first output
    np.testing.assert_array_equal(
        keyed_uniform(0, np.array([0, 1]), 0, 2),
        [[0.059946450820001274, 0.5413201617475487], [0.31979988335390874, 0.6840527831770911]],
    )


@pytest.mark.parametrize("change", ["seed", "sample", "view"])
def test_every_part_of_the_key_counts(change: str) -> None:
    seed, first, view = 1 + (change == "seed"), 1000 * (change == "sample"), 1 + (change == "view")
    before, after = keyed_uniform(1, np.arange(500), 1, 5), keyed_uniform(seed, np.arange(first, first + 500), view, 5)
    assert len(np.intersect1d(before, after)) == 0
    assert abs(np.corrcoef(before.ravel(), after.ravel())[0, 1]) < 0.06


def test_numbers_are_uniform_and_independent() -> None:
    numbers = keyed_uniform(0, np.arange(20_000), 3, 5)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        counts, _ = np.histogram(column, 20, (0, 1))
        assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi², 19 degrees of freedom: 43.8 is 1 in 1,000
    between = np.corrcoef(numbers.T) - np.eye(5)
    assert np.abs(between).max() < 0.03
    neighbours = [np.corrcoef(numbers[:-1, k], numbers[1:, k])[0, 1] for k in range(5)]
    assert np.abs(neighbours).max() < 0.03


def test_torch_and_numpy_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    first = random_views(pictures(2), keyed_uniform(0, np.arange(2), 0, 5), Views(), (16, 16))
    before = torch.get_rng_state()
    torch.manual_seed(99)
    second = random_views(pictures(2), keyed_uniform(0, np.arange(2), 0, 5), Views(), (16, 16))
    assert torch.equal(first, second)
    torch.manual_seed(0)
    keyed_order(0, 10, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_orders_are_permutations_that_differ_by_epoch_and_seed() -> None:
    orders = [keyed_order(seed, 200, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    for order in orders:
        assert sorted(order) == list(range(200))
    assert len({tuple(order) for order in orders}) == 6
    np.testing.assert_array_equal(keyed_order(1, 200, 2), orders[-1])


def test_the_whole_picture_at_its_own_size_is_the_picture() -> None:
    some = pictures(5)
    seen = random_views(some, keyed_uniform(0, np.arange(5), 0, 5), WHOLE, (24, 24))
    torch.testing.assert_close(seen, some.permute(0, 3, 1, 2).float() / 255, rtol=0, atol=3e-6)
    assert seen.dtype == torch.float32


def test_a_mirrored_picture_is_mirrored() -> None:
    some, views = pictures(40), Views(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=True)
    numbers = keyed_uniform(0, np.arange(40), 0, 5)
    seen, plain = random_views(some, numbers, views, (24, 24)), some.permute(0, 3, 1, 2).float() / 255
    mirrored = torch.from_numpy(numbers[:, 4] < 0.5)
    assert mirrored.any()
    assert not mirrored.all()
    torch.testing.assert_close(seen[mirrored], plain[mirrored].flip(-1), rtol=0, atol=3e-6)
    torch.testing.assert_close(seen[~mirrored], plain[~mirrored], rtol=0, atol=3e-6)


def test_half_of_the_views_are_mirrored_and_none_without_hflip() -> None:
    width, _, _ = crops(Views(scale=(0.3, 0.3), ratio=(1.0, 1.0), hflip=True), 400, side=64)
    assert 0.4 < (width < 0).mean() < 0.6
    width, _, _ = crops(Views(scale=(0.3, 0.3), ratio=(1.0, 1.0), hflip=False), 100, side=64)
    assert (width > 0).all()


def test_crops_have_the_area_and_the_aspect_that_were_asked_for() -> None:
    width, height, _ = crops(Views(scale=(0.2, 0.6), ratio=(0.75, 4 / 3), hflip=True), 300, side=64)
    area, aspect = np.abs(width) * height, np.abs(width) / height
    assert 0.19 < area.min() < 0.23
    assert 0.57 < area.max() < 0.61
    assert abs(area.mean() - 0.4) < 0.03
    assert 0.74 < aspect.min() < 0.80
    assert 1.25 < aspect.max() < 1.35
    assert abs(np.log(aspect).mean()) < 0.05  # as often wide as tall


def test_crops_never_leave_the_picture_and_reach_its_borders() -> None:
    _, _, seen = crops(Views(scale=(0.3, 0.9), hflip=False), 300, side=64)
    left, right, top, bottom = seen[:, 0, 0, 0], seen[:, 0, 0, -1], seen[:, 1, 0, 0], seen[:, 1, -1, 0]
    assert left.min() < 2
    assert right.max() > 61
    assert top.min() < 2
    assert bottom.max() > 61
    # One pixel of a crop spans at least its share of the picture: none is stuck in the padded border.
    assert (seen[:, 0, 0, 1:] - seen[:, 0, 0, :-1])[:, 8:-8].min() > 0.3


def test_a_crop_that_would_be_longer_than_the_picture_is_cut_to_it() -> None:
    width, height, _ = crops(Views(scale=(1.0, 1.0), ratio=(1.25, 1.25), hflip=False), 5)
    np.testing.assert_allclose(width, 1.0, atol=0.01)
    np.testing.assert_allclose(height, np.sqrt(1 / 1.25), atol=0.01)
