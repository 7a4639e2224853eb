"""Decoding: every mode to RGB, damaged images to KdcError."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from compressor.errors import KdcError
from compressor.tasks.image_classification.preprocessing import MOST_PIXELS, decode, pillow_warnings_ignored
from tests.data.hand_made import chunk, tiff, with_chunks

MakeImage = Callable[..., Image.Image]


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(encoded: bytes) -> NDArray[np.uint8]:
    image = decode(encoded, "x")
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "1", "P"])
def test_png_modes_go_as_pillow_and_torchvision_convert_them(make_image: MakeImage, mode: str) -> None:
    image = make_image(1).convert(mode)
    assert np.array_equal(decoded(encode(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG"])
def test_formats(make_image: MakeImage, kind: str) -> None:
    assert decoded(encode(make_image(2), kind)).shape == (12, 10, 3)


def test_cmyk_jpeg(make_image: MakeImage) -> None:
    encoded = encode(make_image(3).convert("CMYK"), "JPEG")
    assert np.array_equal(decoded(encoded), np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")))


def test_alpha_is_dropped_not_composited() -> None:
    image = Image.new("RGBA", (2, 1), (200, 10, 30, 0))
    assert decoded(encode(image))[0, 0].tolist() == [200, 10, 30]


def test_palette_with_transparency_warns_nobody() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    encoded = encode(image, transparency=bytes([0, 128, 255]))
    assert decoded(encoded)[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def png16(rows: list[list[int]]) -> bytes:
    """A 16-bit greyscale PNG by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = b"".join(b"\0" + struct.pack(f">{len(row)}H", *row) for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


WIDE = [0, 128, 129, 257, 32768, 65534, 65535]
NARROW = [0, 0, 1, 1, 128, 255, 255]  # by hand: round(x / 257)


def test_16_bit_png_is_scaled_not_clipped() -> None:
    assert decoded(png16([WIDE]))[0].tolist() == [[value] * 3 for value in NARROW]


def test_16_bit_pgm_is_scaled_not_clipped() -> None:
    encoded = b"P5 7 1 65535\n" + struct.pack(">7H", *WIDE)
    assert decoded(encoded)[0, :, 0].tolist() == NARROW


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_tiff_is_scaled_not_clipped(order: str) -> None:
    kind = "I;16" if order == "<u2" else "I;16B"
    image = Image.frombytes(kind, (7, 1), np.array(WIDE, order).tobytes())
    assert decoded(encode(image, "TIFF"))[0, :, 0].tolist() == NARROW


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_tiff_is_refused(mode: str) -> None:
    with pytest.raises(KdcError, match=r"here\.tif cannot be decoded: its pixels are 32-bit"):
        decode(encode(Image.new(mode, (3, 3)), "TIFF"), "here.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(make_image: MakeImage, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(make_image(4), exif=exif.tobytes())
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    assert np.array_equal(decoded(encoded), np.asarray(upright))


def test_a_turned_phone_by_hand() -> None:
    """Orientation 6: the camera was turned, the first row of the file is the right edge of the scene."""
    image = Image.new("RGB", (2, 1))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoded(encode(image, exif=exif.tobytes()))[:, 0].tolist() == [[255, 0, 0], [0, 0, 0]]


def test_the_first_frame_of_an_animation(make_image: MakeImage) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decoded(encoded)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(make_image: MakeImage, kind: str, share: float) -> None:
    encoded = encode(make_image(5, 64, 64), kind)
    with pytest.raises(KdcError, match=r"^a/b\.jpg cannot be decoded: "):
        decode(encoded[: int(len(encoded) * share)], "a/b.jpg")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_flipped_bytes_never_raise_anything_else(make_image: MakeImage) -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"):
        whole = np.frombuffer(encode(make_image(6), kind), np.uint8)
        for _ in range(40):
            damaged = whole.copy()
            damaged[rng.integers(0, len(whole), 4)] = rng.integers(0, 256, 4)
            with pillow_warnings_ignored(), contextlib.suppress(KdcError):
                decode(damaged.tobytes(), "x")


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>404</html>", "it is no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
    ],
)
def test_no_image(encoded: bytes, reason: str) -> None:
    with pytest.raises(KdcError, match=reason):
        decode(encoded, "a.jpg")


def test_decompression_bomb(monkeypatch: pytest.MonkeyPatch, make_image: MakeImage) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(KdcError, match=r"a\.png cannot be decoded: it has more than 178,956,970 pixels"):
        decode(encode(make_image(7)), "a.png")


def broken_metadata() -> dict[str, bytes]:
    plain = encode(IMAGE)
    huge = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(3_000_000))
    wrong_sum = bytearray(with_chunks(plain, chunk(b"tEXt", b"Comment\0hello")))
    wrong_sum[33 + 8] ^= 1
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(IMAGE, exif=exif.tobytes())
    jpeg = encode(IMAGE, "JPEG")
    return {
        "eXIf": with_chunks(plain, chunk(b"eXIf", b"garbagegarbage")),
        "eXIf, cut": with_chunks(plain, chunk(b"eXIf", exif.tobytes()[6:10])),
        "raw profile": with_chunks(plain, chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 12\n4578zz\n")),
        "raw profile of other bytes": with_chunks(
            plain, chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 12\n" + b"b'Exif\\x00\\x00".hex().encode() + b"\n")
        ),
        "a text of 3 MB": with_chunks(plain, chunk(b"iTXt", huge)),
        "many texts": with_chunks(plain, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 80),
        "colour profile": with_chunks(plain, chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3_000_000)))),
        "colour profile, damaged": with_chunks(plain, chunk(b"iCCP", b"x\0\0garbage")),
        "a text with a wrong checksum": bytes(wrong_sum),
        "eXIf with a wrong checksum": with_chunks(plain, chunk(b"eXIf", exif.tobytes()[6:])[:-1] + b"x"),
        "a short cHRM": with_chunks(plain, chunk(b"cHRM", b"x")),
        "a short gAMA": with_chunks(plain, chunk(b"gAMA", b"x")),
        "turned, with a short pHYs": with_chunks(turned, chunk(b"pHYs", b"x")),
        "turned, with a text of 3 MB": with_chunks(turned, chunk(b"iTXt", huge)),
        "jpeg with a short JFIF": jpeg[:2] + b"\xff\xe0\x00\x07JFIF\0" + jpeg[2:],
        "jpeg with a damaged index of images": jpeg[:2] + b"\xff\xe2\x00\x0aMPF\0MM\0*" + jpeg[2:],
        "jpeg with a short 8BIM": jpeg[:2] + b"\xff\xed\x00\x14Photoshop 3.0\0008BIM" + jpeg[2:],
        "jpeg": jpeg[:2] + b"\xff\xe1\x00\x12Exif\0\0garbage..." + jpeg[2:],
        "jpeg with XMP in Latin-1": jpeg[:2]
        + b"\xff\xe1\x00\x25http://ns.adobe.com/xap/1.0/\0\xe9\xe8\xe7=x"
        + jpeg[2:],
    }


IMAGE = Image.fromarray(np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3))


@pytest.mark.parametrize("name", list(broken_metadata()))
def test_damaged_metadata_are_no_reason_to_refuse_sound_pixels(name: str) -> None:
    """Read, and not turned; where EXIF itself is sound, it counts."""
    encoded = broken_metadata()[name]
    plain = np.asarray(Image.open(io.BytesIO(encode(IMAGE, "JPEG"))) if "jpeg" in name else IMAGE)
    with pillow_warnings_ignored():
        found = decoded(encoded)
    assert np.array_equal(found, np.rot90(plain, -1) if name.startswith("turned") else plain)


def test_damaged_pixels_are_refused_whatever_the_metadata() -> None:
    whole = with_chunks(encode(IMAGE), chunk(b"eXIf", b"garbagegarbage"))
    with pytest.raises(KdcError, match="cannot be decoded"):
        decode(whole[:-40], "x")


def test_the_bound_on_pixels_is_pillows_own() -> None:
    """A header alone that promises more than 178,956,970 is refused before anything is unpacked."""
    for width, height in ((178_956_971, 1), (1, 178_956_971), (20_000, 20_000)):
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        with pytest.raises(KdcError, match=r"x cannot be decoded: it has more than 178,956,970 pixels"):
            decode(bomb, "x")
    assert MOST_PIXELS == 178_956_970


def test_a_tiff_that_is_not_read_is_still_called_one() -> None:
    with pytest.raises(KdcError, match="it is a TIFF of a kind that Pillow does not read"):
        decode(tiff(np.zeros((2, 2), np.float16), 1, sample_format=3), "x")


def test_lab_comes_out_in_its_colour() -> None:
    """CIE L*a*b* (53.2, 80.1, 67.2) is red (sRGB)."""
    lab = np.array([[[136, 80, 67]]], np.uint8)  # L in 255ths of 100, a and b signed
    red, green, blue = np.asarray(decode(tiff(lab, 8), "x"))[0, 0].tolist()
    assert red > 245
    assert max(green, blue) < 15


def test_one_is_black_in_a_bitmap() -> None:
    assert decoded(b"P4 8 1\n\xaa")[0, :, 0].tolist() == [0, 255] * 4  # 1 is black in a PBM
