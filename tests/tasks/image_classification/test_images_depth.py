"""Images of more than 8 bits a channel: which values become black and white, and what is said of it."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from compressor.errors import KdcError
from compressor.schema.base import parse
from compressor.schema.recipe import Recipe
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.depth import Census, Seen
from compressor.tasks.image_classification.preprocessing import decode, read
from tests.data.hand_made import png, tiff
from tests.kit import Hearing

RAMP = np.arange(256, dtype=np.uint8)[None]


def grey(encoded: bytes, pixel_range: tuple[float, float] | None = None) -> list[int]:
    rgb = np.asarray(decode(encoded, "x", pixel_range))
    assert (rgb[..., :1] == rgb).all()
    values: list[int] = rgb[0, :, 0].tolist()
    return values


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_white_that_is_zero_is_white(order: str) -> None:
    """PhotometricInterpretation 0: the ramp rises from white to black, in 8 and in 16 bits."""
    assert grey(tiff(RAMP, 0)) == list(range(255, -1, -1))
    sixteen = tiff((RAMP.astype(order) * 257).astype(order), 0)
    if order == ">u2":  # Pillow has no reader for it: never a negative, in silence
        with pytest.raises(KdcError, match="it is a TIFF of a kind that Pillow does not read"):
            grey(sixteen)
    else:
        assert grey(sixteen) == list(range(255, -1, -1))
    assert grey(tiff((RAMP.astype(order) * 257).astype(order), 1)) == list(range(256))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_white_that_is_zero_in_compressed_tiffs(compression: str) -> None:
    file = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(file, "TIFF", compression=compression, tiffinfo={262: 0})
    assert grey(file.getvalue()) == list(range(255, -1, -1))


def test_a_tiff_of_12_bits_has_a_range_of_12_bits() -> None:
    """0, 4095, 2048 and 16, packed two in three bytes; by hand: 2048 * 255 / 4095 = 127.53, 16 * 255 / 4095 = 0.996."""
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x10])
    assert grey(tiff(np.zeros((1, 4), np.uint16), 1, bits=12, raw=packed)) == [0, 255, 128, 1]


def test_a_stated_range_is_black_to_white_and_what_is_outside_is_cut_off() -> None:
    values = np.array([[0, 900, 1100, 1300, 4095, 65535]], np.uint16)
    assert grey(png(values)) == [0, 4, 4, 5, 16, 255]  # round(v / 257)
    assert grey(png(values), (0, 4095)) == [0, 56, 68, 81, 255, 255]  # round(v * 255 / 4095)
    assert grey(png(values), (900, 1300)) == [0, 0, 128, 255, 255, 255]  # 127.5 rounds up
    assert grey(tiff(values.astype("<u2"), 0), (900, 1300)) == [255, 255, 127, 0, 0, 0]


@pytest.mark.parametrize(
    ("pixels", "sample_format"),
    [
        (np.array([[-1000, -300, 400]], "<i2"), 2),
        (np.array([[-1000, -300, 400]], ">i2"), 2),
        (np.array([[-1000, -300, 400]], "<i4"), 2),
        (np.array([[-1000, -300, 400]], "<f4"), 3),
    ],
)
def test_pixels_without_a_range_of_their_own_are_read_with_a_stated_one(
    pixels: NDArray[np.generic], sample_format: int
) -> None:
    encoded = tiff(pixels, 1, sample_format=sample_format)
    with pytest.raises(KdcError, match="of unknown range, not 8 bit: pixel_range in the recipe states it"):
        grey(encoded)
    assert grey(encoded, (-1000, 400)) == [0, 128, 255]


def test_pixels_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(KdcError, match="some of its pixels are no finite numbers"):
        grey(tiff(np.array([[0, np.nan]], "<f4"), 1, sample_format=3), (0, 1))


def test_signed_bytes_are_refused() -> None:
    with pytest.raises(KdcError, match="its pixels are signed 8-bit integers"):
        grey(tiff(RAMP, 1, sample_format=2))


COLOURS_16 = np.array([[[0, 255, 256], [900, 1100, 1300], [4095, 40000, 65535]]], np.uint16)


@pytest.mark.parametrize(
    "kind", ["png", "png with alpha", "tiff <u2", "tiff >u2", "tiff <u2 deflated", "tiff >u2 deflated"]
)
def test_of_colour_the_upper_bytes_are_read_unless_a_range_is_stated(kind: str) -> None:
    encoded = {
        "png": lambda: png(COLOURS_16),
        "png with alpha": lambda: png(np.concatenate([COLOURS_16, COLOURS_16[..., :1]], axis=2)),
        "tiff <u2": lambda: tiff(COLOURS_16.astype("<u2"), 2),
        "tiff >u2": lambda: tiff(COLOURS_16.astype(">u2"), 2),
        "tiff <u2 deflated": lambda: tiff(COLOURS_16.astype("<u2"), 2, deflate=True),
        "tiff >u2 deflated": lambda: tiff(COLOURS_16.astype(">u2"), 2, deflate=True),
    }[kind]()
    assert np.asarray(decode(encoded, "x"))[0].tolist() == [[0, 0, 1], [3, 4, 5], [15, 156, 255]]
    seen = read(encoded, "x")[1]
    assert (seen.low, seen.high, seen.black, seen.white) == (0, 65535, 0, 65535)
    image, seen = read(encoded, "x", (0, 4095))
    # round(v * 255 / 4095): 900 -> 56.04, 1100 -> 68.5, 1300 -> 80.95
    assert np.asarray(image)[0].tolist() == [[0, 16, 16], [56, 68, 81], [255, 255, 255]]
    assert (seen.low, seen.high, seen.black, seen.white) == (0, 65535, 0, 4095)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("kind", ["u2", "u1"])
def test_channels_that_lie_apart(order: str, deflate: bool, kind: str) -> None:
    """Pillow alone takes 16 bits for 8 where each channel lies for itself, as tifffile writes [3, h, w]."""
    values = (COLOURS_16 if kind == "u2" else COLOURS_16 >> 8).astype(order + kind)
    image, seen = read(tiff(values, 2, deflate=deflate, apart=True), "x")
    assert np.asarray(image)[0].tolist() == [[0, 0, 1], [3, 4, 5], [15, 156, 255]]
    assert seen.white == (65535 if kind == "u2" else 255)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize(("kind", "sample_format"), [("i2", 2), ("i4", 2), ("f4", 3)])
def test_packed_values_of_either_byte_order(order: str, deflate: bool, kind: str, sample_format: int) -> None:
    """Pillow alone turns those of the other byte order twice, where libtiff unpacks them."""
    values = np.array([[-1000, -300, 400]], order + kind)
    encoded = tiff(values, 1, sample_format=sample_format, deflate=deflate)
    assert grey(encoded, (-1000, 400)) == [0, 128, 255]


@pytest.mark.parametrize("deflate", [False, True])
def test_integers_of_32_bits_without_a_sign_are_no_negative_ones(deflate: bool) -> None:
    values = np.array([[0, 1 << 31, (1 << 32) - 1]], "<u4")
    image, seen = read(tiff(values, 1, deflate=deflate), "x", (0, (1 << 32) - 1))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 128, 255]
    assert (seen.low, seen.high) == (0, (1 << 32) - 1)
    assert seen.shown is not None
    assert np.asarray(seen.shown).tobytes() == values.tobytes()


def test_grey_of_16_bits_with_alpha_and_a_range_is_refused() -> None:
    encoded = png(COLOURS_16[..., :2])
    assert np.asarray(decode(encoded, "x"))[0, :, 0].tolist() == [0, 3, 15]
    with pytest.raises(KdcError, match=r"16 bits a channel.* pixel_range \[0, 4095\] cannot be applied"):
        decode(encoded, "x", (0, 4095))


def test_a_deep_ppm_in_colour_has_a_range_of_its_own() -> None:
    encoded = b"P6 2 1 4095\n" + struct.pack(">6H", 0, 0, 0, 4095, 4095, 2048)
    assert np.asarray(decode(encoded, "x"))[0].tolist() == [[0, 0, 0], [255, 255, 128]]
    with pytest.raises(KdcError, match="cannot be applied"):
        decode(encoded, "x", (0, 4095))


def test_8_bits_have_no_other_range() -> None:
    assert grey(png(RAMP), (0, 4095)) == list(range(256))


def twelve_bits(root: Path, times: int = 1) -> str:
    """Three levels of 12-bit data in 16-bit files, 789 to 1420, two values a class."""
    for seed, (name, level) in enumerate((("dark", 900), ("mid", 1160), ("light", 1420))):
        (root / name).mkdir(parents=True)
        for number in range(12):
            rng = np.random.default_rng([seed, number])
            pixels = ((level - 111 * rng.integers(0, 2, (8, 8))) * times).astype(np.uint16)
            (root / name / f"{number:02}.png").write_bytes(png(pixels))
    return f"folder:{root}"


def test_a_small_part_of_the_range_is_said_with_numbers(tmp_path: Path) -> None:
    info = open_data(twelve_bits(tmp_path / "12")).info
    (note,) = [note for note in info.notes if "16-bit" in note]
    assert note.startswith("16-bit images use at most 2.2 % of their range: values 789–1420 of 65535 (n = 36)")
    assert "pixel_range: [0, 2047]" in note
    # 789 / 257 = 3.07, 900 / 257 = 3.502, …
    images = open_data(f"folder:{tmp_path / '12'}").train
    levels = {value for number in range(len(images)) for value in np.unique(np.asarray(images.read(number)))}
    assert levels == {3, 4, 5, 6}


def test_the_whole_range_needs_no_word(tmp_path: Path) -> None:
    assert not [note for note in open_data(twelve_bits(tmp_path / "16", times=16)).info.notes if "16-bit" in note]


def test_a_stated_range_is_told_and_belongs_to_the_data(tmp_path: Path) -> None:
    reference = twelve_bits(tmp_path / "12")
    plain, stated = open_data(reference), open_data(reference, pixel_range=(800, 1400))
    assert "pixel_range [800, 1400] becomes black to white in 36 images of more than 8 bits a channel, which hold " \
        "values 789–1420" in stated.info.notes  # fmt: skip
    assert any(note.startswith("24 of 36 images") and note.endswith("e.g. dark/00.png") for note in stated.info.notes)
    brightest = max(np.asarray(stated.train.read(number)).max() for number in range(len(stated.train)))
    assert brightest == 255
    assert stated.info.counts == plain.info.counts


def test_the_range_is_said_before_images_that_look_alike_are_refused(tmp_path: Path) -> None:
    """Where so little is left of them that they are copies of each other: of colours the upper bytes are compared."""
    for name, level in (("dark", 900), ("light", 901)):
        (tmp_path / name).mkdir()
        for number in range(12):
            (tmp_path / name / f"{number}.png").write_bytes(png(np.full((4, 4, 3), level + 2 * number, np.uint16)))
    hearing = Hearing()
    with pytest.raises(KdcError, match="copies of one"):
        open_data(f"folder:{tmp_path}", progress=hearing)
    assert any("16-bit images use at most 1.6 % of their range" in note for note in hearing.notes)


def test_images_that_only_look_alike_in_8_bits_are_no_copies(tmp_path: Path) -> None:
    """An image is known by its own values, so that its split does not hang on the range; what is lost is said."""
    for name, level in (("dark", 900), ("light", 901)):
        (tmp_path / name).mkdir()
        for number in range(12):
            (tmp_path / name / f"{number}.png").write_bytes(png(np.full((4, 4), level + 2 * number, np.uint16)))
    hearing = Hearing()
    data = open_data(f"folder:{tmp_path}", progress=hearing)
    assert any("16-bit images use at most 1.4 % of their range" in note for note in hearing.notes)
    assert open_data(f"folder:{tmp_path}", pixel_range=(800, 1000)).train.ids == data.train.ids


def test_a_range_without_effect_is_said(make_folder: Callable[..., Path]) -> None:
    notes = open_data(f"folder:{make_folder({'a': 12, 'b': 12})}", pixel_range=(0, 4095)).info.notes
    assert "pixel_range [0, 4095]: every image has 8 bits a channel, so it changes nothing" in notes


def test_unlabelled_images_are_read_alike(tmp_path: Path) -> None:
    reference = twelve_bits(tmp_path / "12")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(png(np.full((4, 4), 1234, np.uint16)))
    data = open_data(reference, unlabelled=f"folder:{tmp_path / 'more'}", pixel_range=(0, 4095))
    assert np.asarray(data.train.read(len(data.train) - 1)).max() == 77  # 1234 * 255 / 4095 = 76.8


def test_several_frames_are_said(make_folder: Callable[..., Path], make_image: Callable[..., Image.Image]) -> None:
    root = make_folder({"a": 12, "b": 12})
    frames = [make_image(seed) for seed in (91, 92)]
    for name, kind in (("a/x.gif", "GIF"), ("a/y.tif", "TIFF"), ("b/z.png", "PNG"), ("b/w.webp", "WEBP")):
        frames[0].save(root / name, kind, save_all=True, append_images=frames[1:])
    (note,) = [note for note in open_data(f"folder:{root}").info.notes if "frames" in note]
    assert note == "4 images hold several frames or pages, of which the first counts, e.g. a/x.gif"


def test_a_census_keeps_the_extremes() -> None:
    census = Census()
    for low, high in ((10.0, 20.0), (5.0, 12.0)):
        census.add(Seen(low, high, 0, 4095), "x")
    assert (census.deep, census.low, census.high, census.white) == (2, 5, 20, 4095)


@pytest.mark.parametrize("wrong", [[0], [0, 1, 2], [], 4095, "0-4095", {"black": 0, "white": 1}])
def test_a_range_is_two_numbers(wrong: object) -> None:
    said = r"^recipe: pixel_range: must be two numbers, \[black, white\], found "
    with pytest.raises(KdcError, match=said) as caught:
        parse(Recipe, {"losses": [{"name": "kd"}], "pixel_range": wrong}, "recipe")
    assert "more:" not in caught.value.message


@pytest.mark.parametrize("wrong", [[4095, 0], [5, 5], ["a", 1], [0, float("nan")], [0, float("inf")]])
def test_ranges_that_are_none(wrong: list[object]) -> None:
    with pytest.raises(KdcError, match="pixel_range"):
        parse(Recipe, {"losses": [{"name": "kd"}], "pixel_range": wrong}, "recipe")
