"""Views are a pure function of (image, key), and are what their settings say."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import Tensor

from compressor.data.randomness import _mix, keyed_order, keyed_uniform
from compressor.errors import KdcError
from compressor.schema.base import parse
from compressor.schema.recipe import Recipe, Views
from compressor.tasks.image_classification.views import DRAWS, Draw, coverage, random_views

Enhance = type[ImageEnhance.Brightness] | type[ImageEnhance.Color]
WHOLE = Views(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=False)


TURNED = WHOLE.model_copy(update={"rotation": 180.0})
OFF = {
    "rotation": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "erasing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "distinct": None,
}
EVERYTHING = Views(rotation=30, brightness=0.4, contrast=0.4, saturation=0.4, erasing=0.5)


def images(count: int, height: int = 24, width: int = 24, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8))


def smooth(count: int, height: int, width: int) -> Tensor:
    """Images of slow waves: what they look like does not depend on the pixels that they are sampled at."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    rates = np.random.default_rng(0).uniform(-3, 3, (count, 3, 2, 1, 1))
    waves = np.sin(rates[:, :, 0] * y / height + rates[:, :, 1] * x / width + np.arange(3)[:, None, None])
    return torch.from_numpy((127.5 + 100 * waves).round().astype(np.uint8).transpose(0, 2, 3, 1).copy())


def draws(count: int, **chosen: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers of `count` views: 0.5 (which changes nothing, and does not mirror), but for those that are named."""
    numbers = np.full((count, DRAWS), 0.5)
    for name, value in chosen.items():
        numbers[:, Draw[name]] = value
    return numbers


def plain(some: Tensor) -> Tensor:
    return some.permute(0, 3, 1, 2).float() / 255


def coordinates(side: int = 256) -> Tensor:
    """An image that tells where each of its pixels lies: red is x, green is y."""
    at = np.arange(side, dtype=np.uint8)
    x, y = np.meshgrid(at, at)
    return torch.from_numpy(np.stack([x, y, np.zeros_like(x)], -1))


def crops(views: Views, count: int, side: int = 256) -> tuple[NDArray[np.float64], NDArray[np.float64], Tensor]:
    """Width (below 0 where mirrored) and height of `count` crops as shares of the image, read off the pixels."""
    numbers = keyed_uniform(7, np.arange(count), 0, DRAWS)
    seen = random_views(coordinates(side).expand(count, -1, -1, -1), numbers, views, (side, side)) * 255
    near, far = side // 4, side - side // 4 - 1  # within the image, away from the padded border
    width = (seen[:, 0, 0, far] - seen[:, 0, 0, near]) / (far - near)
    height = (seen[:, 1, far, 0] - seen[:, 1, near, 0]) / (far - near)
    return width.double().numpy(), height.double().numpy(), seen


def test_a_view_does_not_depend_on_its_batch_bit_for_bit() -> None:
    """Odd sizes: PyTorch's vector code leaves something over at the end of each of its loops."""
    some, samples = images(12, height=25, width=19), np.arange(12)
    order = np.random.default_rng(1).permutation(12)
    for views in (Views(), EVERYTHING):
        alone = [
            random_views(some[i : i + 1], keyed_uniform(3, samples[i : i + 1], 5, DRAWS), views, (13, 17))
            for i in range(12)
        ]
        together = random_views(some[order], keyed_uniform(3, samples[order], 5, DRAWS), views, (13, 17))
        again = random_views(some[order], keyed_uniform(3, samples[order], 5, DRAWS), views, (13, 17))
        assert torch.equal(together, again)
        for place, sample in enumerate(order):
            assert torch.equal(together[place], alone[sample][0])


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
    first = random_views(images(2), keyed_uniform(0, np.arange(2), 0, DRAWS), Views(), (16, 16))
    before = torch.get_rng_state()
    torch.manual_seed(99)
    second = random_views(images(2), keyed_uniform(0, np.arange(2), 0, DRAWS), Views(), (16, 16))
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


def test_the_whole_image_at_its_own_size_is_the_image() -> None:
    some = images(5)
    seen = random_views(some, keyed_uniform(0, np.arange(5), 0, DRAWS), WHOLE, (24, 24))
    torch.testing.assert_close(seen, plain(some), rtol=0, atol=3e-6)
    assert seen.dtype == torch.float32
    assert seen.is_contiguous(memory_format=torch.channels_last)


def test_a_mirrored_image_is_mirrored() -> None:
    some, views = images(40), Views(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=True)
    numbers = keyed_uniform(0, np.arange(40), 0, DRAWS)
    seen, whole = random_views(some, numbers, views, (24, 24)), plain(some)
    mirrored = torch.from_numpy(numbers[:, 4] < 0.5)
    assert mirrored.any()
    assert not mirrored.all()
    torch.testing.assert_close(seen[mirrored], whole[mirrored].flip(-1), rtol=0, atol=3e-6)
    torch.testing.assert_close(seen[~mirrored], whole[~mirrored], rtol=0, atol=3e-6)


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


def test_crops_never_leave_the_image_and_reach_its_borders() -> None:
    _, _, seen = crops(Views(scale=(0.3, 0.9), hflip=False), 300, side=64)
    left, right, top, bottom = seen[:, 0, 0, 0], seen[:, 0, 0, -1], seen[:, 1, 0, 0], seen[:, 1, -1, 0]
    assert left.min() < 2
    assert right.max() > 61
    assert top.min() < 2
    assert bottom.max() > 61
    # One pixel of a crop spans at least its share of the image: none is stuck in the padded border.
    assert (seen[:, 0, 0, 1:] - seen[:, 0, 0, :-1])[:, 8:-8].min() > 0.3


def test_a_crop_that_would_be_longer_than_the_image_is_cut_to_it() -> None:
    width, height, _ = crops(Views(scale=(1.0, 1.0), ratio=(1.25, 1.25), hflip=False), 5)
    np.testing.assert_allclose(width, 1.0, atol=0.01)
    np.testing.assert_allclose(height, np.sqrt(1 / 1.25), atol=0.01)


# What today's recipes see must never change: the formula as it was before rotation and colours came.
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (7, 33)])
@pytest.mark.parametrize("shape", [(73, 73), (40, 56)])
def test_crops_are_bit_for_bit_what_they_always_were(shape: tuple[int, int], size: tuple[int, int]) -> None:
    some, numbers = images(6, *shape), keyed_uniform(0, np.arange(6), 0, DRAWS)
    area, aspect = 0.5 + 0.5 * numbers[:, 0], np.exp(np.log(0.8) + (np.log(1.25) - np.log(0.8)) * numbers[:, 1])
    width, height = np.minimum(np.sqrt(area * aspect), 1.0), np.minimum(np.sqrt(area / aspect), 1.0)
    theta = np.zeros((6, 2, 3), np.float32)
    theta[:, 0, 0] = width * np.where(numbers[:, 4] < 0.5, -1.0, 1.0)
    theta[:, 0, 2] = (2 * numbers[:, 2] - 1) * (1 - width)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (2 * numbers[:, 3] - 1) * (1 - height)
    grid = F.affine_grid(torch.from_numpy(theta), [6, 3, *size], align_corners=False)
    pixels = some.permute(0, 3, 1, 2).float().div_(255)
    expected = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    assert torch.equal(random_views(some, numbers, Views(), size), expected)


def test_views_stay_the_same_from_version_to_version() -> None:
    """Answers of teachers that were kept must hold. The sums were written down when these settings were made."""
    seen = random_views(smooth(3, 40, 56), keyed_uniform(0, np.arange(3), 0, DRAWS), EVERYTHING, (32, 32))
    found = (seen.double() * torch.linspace(0, 1, 32)).mean((2, 3))
    expected = [[0.198416, 0.124077, 0.170098], [0.275752, 0.313270, 0.306284], [0.269567, 0.373137, 0.320637]]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("views", [Views(), EVERYTHING])
def test_a_view_is_the_same_at_every_size(views: Views, factor: int) -> None:
    """Within 2 of 255 steps of grey."""
    some, numbers = smooth(40, 96, 128), keyed_uniform(0, np.arange(40), 0, DRAWS)
    small = random_views(some, numbers, views, (40, 48))
    large = random_views(some, numbers, views, (40 * factor, 48 * factor))
    torch.testing.assert_close(F.avg_pool2d(large, factor), small, rtol=0, atol=2 / 255)


@pytest.mark.parametrize("name", ["rotation", "brightness", "contrast", "saturation", "erasing"])
def test_every_setting_has_an_effect_and_is_off_unless_asked_for(name: str) -> None:
    some, numbers = images(16), keyed_uniform(0, np.arange(16), 0, DRAWS)
    off = random_views(some, numbers, Views(), (24, 24))
    assert torch.equal(random_views(some, numbers, Views.model_validate(OFF), (24, 24)), off)
    on = random_views(some, numbers, Views.model_validate({name: 20.0 if name == "rotation" else 1.0}), (24, 24))
    changed = (on - off).abs().amax((1, 2, 3))
    assert changed.min() > 1e-4
    assert changed.mean() > 0.1
    assert on.min() >= 0
    assert on.max() <= 1


def test_all_settings_are_off_unless_asked_for() -> None:
    assert Views().model_dump().items() >= OFF.items()


# Rotation


@pytest.mark.parametrize("shape", [(60, 60), (48, 80), (80, 48)])
@pytest.mark.parametrize("angle", [-40.0, 10.0, 90.0])
def test_rotation_is_pillows(shape: tuple[int, int], angle: float) -> None:
    """Of oblong images too: the middle of the image, which both see whole. Pillow turns counter-clockwise."""
    height, width = shape
    some = smooth(1, height, width)
    turned = Image.fromarray(some[0].numpy()).rotate(angle, Image.Resampling.BILINEAR)
    views, numbers = TURNED, draws(1, ROTATION=(angle / 180 + 1) / 2)
    seen = random_views(some, numbers, views, shape)[0].permute(1, 2, 0) * 255
    y, x = np.mgrid[:height, :width]
    middle = (y - (height - 1) / 2) ** 2 + (x - (width - 1) / 2) ** 2 < (min(shape) / 2 - 2) ** 2
    np.testing.assert_allclose(seen.numpy()[middle], np.asarray(turned, np.float32)[middle], atol=1.5)


def test_half_a_turn_is_both_mirrors() -> None:
    some, views = images(2, 20, 30), TURNED
    seen = random_views(some, draws(2, ROTATION=0.0), views, (20, 30))
    torch.testing.assert_close(seen, plain(some).flip(-1, -2), rtol=0, atol=1e-5)


def test_rotation_keeps_right_angles_and_is_uniform_about_the_crops_middle() -> None:
    """In an oblong image and an oblong crop: read off the pixels where the neighbours of the middle lie."""
    views, count = Views(scale=(0.05, 0.1), ratio=(0.5, 2.0), hflip=True, rotation=30), 300
    numbers = keyed_uniform(1, np.arange(count), 0, DRAWS)
    across = coordinates(256)[:128].expand(count, -1, -1, -1)  # 128 high, 256 wide
    seen = random_views(across, numbers, views, (9, 9))[:, :2].double().numpy() * 255
    along_x, along_y = seen[:, :, 4, 5] - seen[:, :, 4, 3], seen[:, :, 5, 4] - seen[:, :, 3, 4]
    cosine = (along_x * along_y).sum(1) / np.linalg.norm(along_x, axis=1) / np.linalg.norm(along_y, axis=1)
    assert np.abs(cosine).max() < 0.01
    angle = np.degrees(np.arctan2(along_y[:, 0], along_y[:, 1]))
    np.testing.assert_allclose(angle, -30 * (2 * numbers[:, Draw.ROTATION] - 1), atol=0.5)
    assert angle.min() < -29
    assert angle.max() > 29
    still = random_views(across, numbers, views.model_copy(update={"rotation": 0.0}), (9, 9))[:, :2, 4, 4] * 255
    np.testing.assert_allclose(seen[:, :, 4, 4], still.numpy(), atol=0.05)


def test_what_a_turned_view_sees_outside_repeats_the_edge() -> None:
    seen = random_views(torch.full((1, 20, 40, 3), 77, dtype=torch.uint8), draws(1, ROTATION=0.9), TURNED, (16, 16))
    torch.testing.assert_close(seen, torch.full_like(seen, 77 / 255), rtol=0, atol=1e-6)


# Colours


@pytest.mark.parametrize("number", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "enhance"), [("brightness", ImageEnhance.Brightness), ("saturation", ImageEnhance.Color)]
)
def test_brightness_and_saturation_are_pillows(name: str, enhance: Enhance, number: float) -> None:
    some, views = images(1), WHOLE.model_copy(update={name: 0.8})
    factor = 1 + 0.8 * (2 * number - 1)
    expected = np.asarray(enhance(Image.fromarray(some[0].numpy())).enhance(factor), np.float32)
    seen = random_views(some, draws(1, **{name.upper(): number}), views, (24, 24))[0].permute(1, 2, 0) * 255
    np.testing.assert_allclose(seen.numpy(), expected, atol=1.5)  # Pillow rounds


def test_contrast_is_about_mid_grey() -> None:
    some, views = images(2), WHOLE.model_copy(update={"contrast": 0.5})
    seen = random_views(some, draws(2, CONTRAST=np.array([0.0, 1.0])), views, (24, 24))
    factor = torch.tensor([0.5, 1.5]).view(2, 1, 1, 1)
    torch.testing.assert_close(seen, (0.5 + (plain(some) - 0.5) * factor).clamp(0, 1), rtol=0, atol=1e-5)


def test_colours_are_changed_in_order_and_cut_once() -> None:
    some, views = images(3), WHOLE.model_copy(update={"brightness": 1.0, "contrast": 1.0, "saturation": 1.0})
    seen = random_views(some, draws(3, BRIGHTNESS=0.9, CONTRAST=0.3, SATURATION=0.8), views, (24, 24))
    bright = plain(some) * 1.8
    contrast = 0.5 + (bright - 0.5) * 0.6
    grey = (contrast * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(seen, (grey + (contrast - grey) * 1.6).clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colours_change_as_far_as_asked_for(name: str) -> None:
    """Factors from an image of one colour: uniform in [0.6, 1.4]."""
    views, colour = WHOLE.model_copy(update={name: 0.4}), torch.tensor([102, 153, 127], dtype=torch.uint8)
    numbers = keyed_uniform(0, np.arange(400), 0, DRAWS)
    seen = random_views(colour.expand(400, 2, 2, 3), numbers, views, (2, 2))[:, :, 0, 0]
    if name == "brightness":
        factors = seen[:, 0] / 0.4
    elif name == "contrast":
        factors = (seen[:, 0] - 0.5) / -0.1
    else:
        factors = (seen[:, 1] - seen[:, 0]) / 0.2
    np.testing.assert_allclose(factors.numpy(), 0.6 + 0.8 * numbers[:, Draw[name.upper()]], atol=1e-4)
    assert factors.min() < 0.61
    assert factors.max() > 1.39


# Erasing


def rectangles(views: Views, count: int, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The erased share of each pixel [N, h, w], and the greys [N], of views of white images."""
    numbers = keyed_uniform(0, np.arange(count), 0, DRAWS)
    seen = random_views(torch.full((count, 4, 4, 3), 255, dtype=torch.uint8), numbers, views, size)
    assert torch.equal(seen[:, 0], seen[:, 1])  # grey
    assert torch.equal(seen[:, 0], seen[:, 2])
    grey = numbers[:, Draw.ERASED_GREY]
    return (1 - seen[:, 0].double().numpy()) / (1 - grey[:, None, None]), grey


def test_as_many_views_are_erased_as_asked_for() -> None:
    share, _ = rectangles(Views(erasing=0.25), 1000, (8, 8))
    assert 0.22 < (share.max((1, 2)) > 0.01).mean() < 0.28
    assert (rectangles(Views(erasing=1.0), 300, (8, 8))[0].sum((1, 2)) > 1).all()


@pytest.mark.parametrize("size", [(64, 64), (40, 56)])
def test_erased_rectangles_have_the_papers_area_and_aspect(size: tuple[int, int]) -> None:
    share, grey = rectangles(Views(erasing=1.0), 1000, size)
    known = grey < 0.95  # a nearly white rectangle in a white image cannot be read off
    share, area = share[known], share[known].mean((1, 2))
    assert 0.019 < area.min() < 0.025
    assert 0.32 < area.max() < 0.331
    assert abs(area.mean() - 0.175) < 0.01
    # The lengths of its sides: of its fullest row and column.
    height, width = share.sum(1).max(1) / size[0], share.sum(2).max(1) / size[1]
    np.testing.assert_allclose(height * width, area, atol=1e-4)  # a rectangle, all of it inside the view
    aspect = height / width
    assert 0.29 < aspect.min() < 0.32
    assert 3.1 < aspect.max() < 3.4
    assert abs(np.log(aspect).mean()) < 0.05  # as often wide as tall


def test_erased_rectangles_reach_every_part_of_the_view() -> None:
    share, _ = rectangles(Views(erasing=1.0), 1000, (16, 16))
    often = (share > 0.01).mean(0)
    assert often.min() > 0.01
    np.testing.assert_allclose(often, often[::-1], atol=0.06)
    np.testing.assert_allclose(often, often[:, ::-1], atol=0.06)


def test_a_rectangle_is_one_grey_and_the_rest_is_as_it_was() -> None:
    some, numbers = images(1), draws(1, ERASED=0.0, ERASED_GREY=0.7)
    seen = random_views(some, numbers, WHOLE.model_copy(update={"erasing": 0.5}), (24, 24))
    inside = seen.eq(float(np.float32(0.7))).all(1)[0]
    assert abs(inside.float().mean() - 0.175) < 0.05  # the border's pixels are grey in part
    outside = ~F.max_pool2d(inside[None].float(), 3, 1, 1).bool()
    torch.testing.assert_close(seen[:, :, outside[0]], plain(some)[:, :, outside[0]], rtol=0, atol=3e-6)


@pytest.mark.parametrize("aspect", [0.0, 1.0])
def test_the_largest_rectangles_fit_into_the_view(aspect: float) -> None:
    """33 % at an aspect of 1/0.3 would be longer than the view."""
    numbers = draws(1, ERASED=0.0, ERASED_AREA=1.0, ERASED_ASPECT=aspect, ERASED_GREY=0.0)
    seen = random_views(torch.full((1, 4, 4, 3), 255, dtype=torch.uint8), numbers, Views(erasing=1.0), (64, 64))
    assert 1 - seen.mean().item() == pytest.approx(0.33, abs=1e-5)


def test_coverage_is_exact_at_every_size() -> None:
    low, high = np.array([0.0, 0.25, 0.3, 0.9, 0.5]), np.array([1.0, 0.75, 0.31, 1.0, 0.5])
    for length in (1, 4, 7, 224):
        found = coverage(low, high, length)
        np.testing.assert_allclose(found.mean(1), high - low, atol=1e-12)
        assert found.min() >= 0
        assert found.max() <= 1
    np.testing.assert_allclose(coverage(low, high, 4)[1], [0, 1, 1, 0])
    np.testing.assert_allclose(coverage(low, high, 4)[3], [0, 0, 0, 0.4])


# Contract


def test_nothing_reads_the_device() -> None:
    """The meta device has no values: whatever would wait for some fails there."""
    seen = random_views(images(3).to("meta"), keyed_uniform(0, np.arange(3), 0, DRAWS), EVERYTHING, (16, 12))
    assert seen.shape == (3, 3, 16, 12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_views_are_the_same_on_cuda() -> None:
    some, numbers = images(40, 60, 80), keyed_uniform(0, np.arange(40), 0, DRAWS)
    there = some.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        seen = random_views(there, numbers, EVERYTHING, (48, 48))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(seen.cpu(), random_views(some, numbers, EVERYTHING, (48, 48)), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("shape", "width"), [((3, 8, 8, 3), 5), ((2, 8, 8, 3), DRAWS), ((3, 3, 8, 8), DRAWS)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...], width: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"numbers [B, {DRAWS}], found {shape} and (3, {width})")):
        random_views(torch.zeros(shape, dtype=torch.uint8), keyed_uniform(0, np.arange(3), 0, width), Views(), (8, 8))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rotation", 181, "views.rotation: should be less than or equal to 180, found 181"),
        ("rotation", -1, "should be greater than or equal to 0, found -1"),
        ("brightness", 1.1, "views.brightness: should be less than or equal to 1, found 1.1"),
        ("contrast", -0.1, "views.contrast: should be greater than or equal to 0"),
        ("saturation", 2, "views.saturation: should be less than or equal to 1"),
        ("erasing", math.nan, "views.erasing: should be a finite number, found nan"),
        ("mixup", -0.2, "views.mixup: should be greater than or equal to 0"),
        ("mixup", math.inf, "views.mixup: should be a finite number"),
        ("cutmix", 101, "views.cutmix: should be less than or equal to 100"),
        ("mix_probability", 1.5, "views.mix_probability: should be less than or equal to 1"),
        ("distinct", 0, "views.distinct: should be greater than or equal to 1, found 0"),
        ("distinct", 1.5, "views.distinct: should be a valid integer"),
        ("rotation", True, "views.rotation: true and false are not permitted here"),
        ("rotate", 10, "unknown key views.rotate; did you mean views.rotation?"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(key: str, value: object, message: str) -> None:
    with pytest.raises(KdcError, match=re.escape(message)):
        parse(Recipe, {"losses": [{"name": "kd"}], "views": {key: value}}, "recipe")
