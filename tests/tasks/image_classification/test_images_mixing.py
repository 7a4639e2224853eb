"""Mixed views are a pure function of (images, key), and their labels are mixed as their pixels are."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.schema.recipe import Views
from compressor.tasks.image_classification.mixing import mixed
from compressor.tasks.image_classification.views import DRAWS
from compressor.tasks.mixing import Mix, mix_of, mixed_labels

MIXUP, CUTMIX, BOTH = Views(mixup=0.2), Views(cutmix=1.0), Views(mixup=0.2, cutmix=1.0, mix_probability=0.8)


def mix(views: Views, count: int, n: int = 1000, seed: int = 0, view: int = 0) -> Mix:
    found = mix_of(seed, np.arange(count), view, n, views)
    assert found is not None
    return found


def boxes(of: Mix) -> NDArray[np.float32]:
    assert of.box is not None
    return of.box


def has_box(of: Mix) -> NDArray[np.bool_]:
    return np.asarray(boxes(of)[:, 2] > boxes(of)[:, 0])


def noise(count: int, height: int = 24, width: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def taken(of: Mix, size: tuple[int, int]) -> NDArray[np.float64]:
    """The partner's share of every pixel, [B, h, w]."""
    black, white = torch.zeros(len(of.weight), 3, *size), torch.ones(len(of.weight), 3, *size)
    seen = mixed(black, white, of)
    assert torch.equal(seen[:, 0], seen[:, 2])
    return seen[:, 0].double().numpy()


# One row of each kind: not mixed, mixup, cutmix, and a box of which nothing was left in the view.
HAND_MADE = Mix(
    np.array([5, 6, 7, 8]),
    np.array([1.0, 0.75, 0.875, 1.0], np.float32),
    np.array([[0, 0, 0, 0], [0, 0, 0, 0], [0.5, 0.0, 1.0, 0.25], [1.0, 0.5, 1.0, 0.9]], np.float32),
)


def test_nothing_is_mixed_unless_asked_for() -> None:
    assert mix_of(0, np.arange(4), 0, 10, Views()) is None
    assert mix_of(0, np.arange(4), 0, 10, Views(mix_probability=1.0, rotation=10, erasing=0.5)) is None


@pytest.mark.parametrize("views", [MIXUP, CUTMIX, BOTH])
def test_a_mixed_view_does_not_depend_on_its_batch_bit_for_bit(views: Views) -> None:
    own, partners = noise(12, 13, 17), noise(12, 13, 17, seed=1)
    order = np.random.default_rng(1).permutation(12)
    together = mix_of(3, order, 5, 100, views)
    assert together is not None
    whole = mixed(own[order], partners[order], together)
    assert torch.equal(mixed(own[order], partners[order], together), whole)
    for place, sample in enumerate(order):
        alone = mix_of(3, np.array([sample]), 5, 100, views)
        assert alone is not None
        assert alone.partner == together.partner[place]
        assert alone.weight == together.weight[place]
        if alone.box is not None:
            np.testing.assert_array_equal(alone.box[0], boxes(together)[place])
        assert torch.equal(mixed(own[sample : sample + 1], partners[sample : sample + 1], alone)[0], whole[place])


@pytest.mark.parametrize("change", ["seed", "sample", "view"])
def test_every_part_of_the_key_counts(change: str) -> None:
    first = 1000 * (change == "sample")
    before = mix_of(1, np.arange(500), 1, 10**9, CUTMIX)
    after = mix_of(1 + (change == "seed"), np.arange(first, first + 500), 1 + (change == "view"), 10**9, CUTMIX)
    assert before is not None
    assert after is not None
    assert len(np.intersect1d(before.partner, after.partner)) == 0
    assert abs(np.corrcoef(before.weight, after.weight)[0, 1]) < 0.15


def test_mixes_and_views_are_drawn_apart() -> None:
    """Were the numbers the same, images cropped at the left would be mixed with the first classes, and so on."""
    large = 10**12
    partner = mix(MIXUP, 50_000, large).partner / large
    numbers = keyed_uniform(0, np.arange(50_000), 0, DRAWS)
    assert np.abs(numbers - partner[:, None]).min() > 1e-9
    assert np.abs(np.corrcoef(numbers.T, partner)[-1, :-1]).max() < 0.02  # 4.5 standard deviations


def test_mixes_stay_the_same_from_version_to_version() -> None:
    found = mix(Views(mixup=0.4, cutmix=1.0), 4)
    np.testing.assert_array_equal(found.partner, [456, 438, 272, 398])
    np.testing.assert_allclose(found.weight, [0.9941716, 0.0427377, 0.5790562, 0.9866532], atol=1e-6)
    np.testing.assert_allclose(boxes(found)[2], [0, 0, 0.5753773, 0.7315961], atol=1e-6)
    assert has_box(found).tolist() == [False, False, True, False]


def test_partners_come_from_all_samples_alike() -> None:
    found = mix(MIXUP, 20_000, n=20).partner
    assert found.dtype == np.int64
    counts = np.bincount(found, minlength=20)
    assert len(counts) == 20
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi², 19 degrees of freedom: 43.8 is 1 in 1,000
    assert (mix(MIXUP, 100, n=1).partner == 0).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_weights_are_beta_distributed(alpha: float) -> None:
    """Mean 1/2, variance 1 / (4 (2 alpha + 1)), fourth central moment 3 / (16 (2 alpha + 1) (2 alpha + 3))."""
    weight = mix(Views(mixup=alpha), 20_000).weight
    assert weight.dtype == np.float32
    off = weight.astype(np.float64) - 0.5
    assert abs(off.mean()) < 0.01
    assert (off**2).mean() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    assert (off**4).mean() == pytest.approx(3 / (16 * (2 * alpha + 1) * (2 * alpha + 3)), rel=0.05)


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 100.0])
def test_weights_are_weights_at_the_extremes(alpha: float) -> None:
    for views in (Views(mixup=alpha), Views(cutmix=alpha)):
        weight = mix(views, 500).weight
        assert ((weight >= 0) & (weight <= 1)).all()
        assert weight.min() < 0.51


@pytest.mark.parametrize("views", [MIXUP, CUTMIX, BOTH])
def test_as_many_are_mixed_as_asked_for(views: Views) -> None:
    for probability in (0.0, 0.3, 1.0):
        share = (mix(views.model_copy(update={"mix_probability": probability}), 2000).weight < 1).mean()
        assert share == pytest.approx(probability, abs=0.03)


def test_half_of_the_mixed_are_cut_where_both_are_on() -> None:
    found = mix(BOTH, 4000)
    assert has_box(found).mean() == pytest.approx(0.4, abs=0.02)
    assert (~has_box(found) & (found.weight < 1)).mean() == pytest.approx(0.4, abs=0.02)
    assert has_box(mix(CUTMIX, 1000)).mean() > 0.99
    assert mix(MIXUP, 10).box is None


def test_boxes_lie_in_the_view_and_are_drawn_as_in_the_paper() -> None:
    found = mix(CUTMIX, 10_000)
    x0, y0, x1, y1 = boxes(found).astype(np.float64).T
    for low, high in ((x0, x1), (y0, y1)):
        assert ((low >= 0) & (low <= high) & (high <= 1)).all()
        assert (low == 0).mean() > 0.1  # cut to the view
        assert (high == 1).mean() > 0.1
        assert (low + high).mean() / 2 == pytest.approx(0.5, abs=0.01)
    inside = (x0 > 0) & (y0 > 0) & (x1 < 1) & (y1 < 1)
    np.testing.assert_allclose((x1 - x0)[inside], (y1 - y0)[inside], atol=1e-6)  # of the view's own aspect
    # With alpha 1, lambda is uniform, a side is s = sqrt(1 - lambda), and cutting leaves s - s² / 4 of it on average,
    # along each of two independent axes: E (s - s²/4)² with s² uniform is 1/2 - 1/5 + 1/48.
    assert 1 - found.weight.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.01)


@pytest.mark.parametrize("size", [(24, 24), (24, 40), (7, 5), (1, 1)])
def test_the_weight_is_the_share_of_the_pixels(size: tuple[int, int]) -> None:
    """A pixel on a box's border is the partner's in part, so this is exact."""
    for views in (CUTMIX, BOTH, MIXUP):
        found = mix(views, 200)
        np.testing.assert_allclose(1 - taken(found, size).mean((1, 2)), found.weight, atol=1e-6)


def test_the_weight_is_the_share_of_whole_pixels_within_one_row_and_column() -> None:
    found, side = mix(CUTMIX, 500), 64
    whole = (taken(found, (side, side)) >= 0.5).mean((1, 2))
    np.testing.assert_allclose(1 - whole, found.weight, atol=2 / side)


def test_all_kinds_of_rows_fit_into_one_batch() -> None:
    own, partners = noise(4), noise(4, seed=1)
    seen = mixed(own, partners, HAND_MADE)
    assert torch.equal(seen[0], own[0])
    torch.testing.assert_close(seen[1], 0.75 * own[1] + 0.25 * partners[1])
    expected = own[2].clone()
    expected[:, :6, 12:] = partners[2, :, :6, 12:]
    assert torch.equal(seen[2], expected)
    assert torch.equal(seen[3], own[3])


def test_mixing_is_the_same_at_every_size() -> None:
    """Of images that are the same at both: exact, within float32."""
    own, partners, found = noise(50, 8, 8), noise(50, 8, 8, seed=1), mix(BOTH, 50)
    whole = mixed(torch.ones(50, 3, 8, 8), torch.zeros(50, 3, 8, 8), found)
    fine = mixed(torch.ones(50, 3, 24, 24), torch.zeros(50, 3, 24, 24), found)
    torch.testing.assert_close(F.avg_pool2d(fine, 3), whole, rtol=0, atol=1e-6)
    large = mixed(F.interpolate(own, scale_factor=3), F.interpolate(partners, scale_factor=3), found)
    torch.testing.assert_close(F.avg_pool2d(large, 3), mixed(own, partners, found), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mixed_views_are_channels_last_and_their_parts_are_left_alone(layout: torch.memory_format) -> None:
    both = noise(8).contiguous(memory_format=layout)
    before = both.clone()
    seen = mixed(both[:4], both[4:], HAND_MADE)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    assert seen.dtype == torch.float32
    assert torch.equal(both, before)
    assert torch.equal(seen, mixed(before[:4].contiguous(), before[4:].contiguous(), HAND_MADE))


def test_labels_are_mixed_by_weight() -> None:
    labels = mixed_labels(torch.tensor([0, 1, 2, 2]), torch.tensor([1, 2, 2, 0]), HAND_MADE, 3)
    assert labels.dtype == torch.float32
    assert labels.tolist() == [[1, 0, 0], [0, 0.75, 0.25], [0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("views", [MIXUP, CUTMIX, BOTH])
def test_mixed_labels_sum_to_one(views: Views) -> None:
    found, rng = mix(views, 1000), np.random.default_rng(0)
    own, theirs = (torch.from_numpy(rng.integers(0, 10, 1000)) for _ in range(2))
    labels = mixed_labels(own, theirs, found, 10)
    torch.testing.assert_close(labels.sum(1), torch.ones(1000), rtol=0, atol=2e-7)
    assert labels.min() >= 0
    apart = own != theirs
    weight = torch.from_numpy(found.weight)
    assert torch.equal(labels.gather(1, own[:, None])[apart, 0], weight[apart])
    assert torch.equal(labels.gather(1, theirs[:, None])[apart, 0], 1 - weight[apart])


def test_nothing_reads_the_device() -> None:
    """The meta device has no values: whatever would wait for some fails there."""
    seen = mixed(noise(4).to("meta"), noise(4).to("meta"), HAND_MADE)
    labels = mixed_labels(torch.zeros(4, dtype=torch.int64).to("meta"), torch.ones(4).long().to("meta"), HAND_MADE, 9)
    assert seen.shape == (4, 3, 24, 24)
    assert labels.shape == (4, 9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_mixing_is_the_same_on_cuda() -> None:
    own, partners, labels = noise(4), noise(4, seed=1), torch.arange(4)
    there = own.cuda(), partners.cuda(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen, classes = mixed(there[0], there[1], HAND_MADE), mixed_labels(there[2], there[2], HAND_MADE, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(seen.cpu(), mixed(own, partners, HAND_MADE), rtol=0, atol=1e-6)
    assert torch.equal(classes.cpu(), mixed_labels(labels, labels, HAND_MADE, 5))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("own (4, 3, 24, 24), partners (4, 3, 24, 20), mix of 4")):
        mixed(noise(4), noise(4, 24, 20), HAND_MADE)
    with pytest.raises(ValueError, match=re.escape("mix of 4")):
        mixed(noise(3), noise(3), HAND_MADE)
    with pytest.raises(ValueError, match=re.escape("labels (4,), partners' (3,), mix (4,)")):
        mixed_labels(torch.zeros(4).long(), torch.zeros(3).long(), HAND_MADE, 5)
