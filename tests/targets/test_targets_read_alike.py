"""What training reads, the example programs read to the same bytes; what it refuses, they refuse."""

import contextlib
import io
import os
import struct
import subprocess
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from compressor.errors import KdcError
from compressor.schema.manifest import ModelInput
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.preprocessing import decode, pillow_warnings_ignored, resize_and_crop
from compressor.tasks.image_classification.shipping import cpp_header, model_input
from tests.data.hand_made import chunk, png, tiff, with_chunks
from tests.tasks.image_classification.test_images_reading import broken_metadata

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript

TARGETS = Path(__file__).resolve().parents[2] / "targets"
RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 65536, (9, 11), np.uint16)
COLOURS = RNG.integers(0, 256, (9, 11, 3), np.uint8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def corpus() -> Iterator[tuple[str, bytes]]:
    image = Image.fromarray(COLOURS)
    for mode, kind in product(("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr", "LAB"), ("PNG", "TIFF", "JPEG")):
        try:
            converted = image.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else None
            if mode != "LAB":
                yield f"{mode} {kind}", saved(converted or image.convert(mode), kind)
        except OSError:
            continue  # a combination that is not written
    for kind in ("BMP", "GIF", "WEBP", "PPM", "JPEG2000"):
        yield kind, saved(image, kind)
    yield "palette with transparency", saved(image.quantize(8), "PNG", transparency=bytes([0, 90, 255]))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"turned {orientation}", saved(image, "PNG", exif=exif.tobytes())
        yield f"turned jpeg {orientation}", saved(image, "JPEG", exif=exif.tobytes())
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    yield "turned by XMP", with_chunks(saved(image, "PNG"), chunk(b"iTXt", xmp))
    for photometric, order in product((0, 1), "<>"):
        yield f"tiff 16 bit {photometric}{order}", tiff(WIDE.astype(f"{order}u2"), photometric)
        yield f"tiff 8 bit {photometric}{order}", tiff(COLOURS[..., 0].astype(f"{order}u1"), photometric)
        yield f"tiff signed 16 bit {photometric}{order}", tiff(WIDE.astype(f"{order}i2"), photometric, sample_format=2)
        yield f"tiff 32 bit {photometric}{order}", tiff(WIDE.astype(f"{order}u4"), photometric)
        yield f"tiff float {photometric}{order}", tiff(WIDE.astype(f"{order}f4"), photometric, sample_format=3)
    yield "tiff 12 bit", tiff(np.zeros((2, 4), np.uint16), 1, bits=12, raw=bytes(range(0, 240, 20)))
    yield "tiff signed 8 bit", tiff(COLOURS[..., 0], 1, sample_format=2)
    yield "tiff of NaN", tiff(np.full((2, 2), np.nan, "<f4"), 1, sample_format=3)
    yield "tiff Lab", tiff(COLOURS, 8)
    yield "tiff RGB 16", tiff(np.stack([WIDE] * 3, axis=2), 2)
    for order in "<>":
        yield f"tiff RGB 16 deflated {order}", tiff(np.stack([WIDE] * 3, axis=2).astype(f"{order}u2"), 2, deflate=True)
        yield f"tiff white is zero deflated {order}", tiff(WIDE.astype(f"{order}u2"), 0, deflate=True)
        yield f"tiff RGB 16 apart {order}", tiff(np.stack([WIDE] * 3, axis=2).astype(f"{order}u2"), 2, apart=True)
        for kind, what in (("i2", 2), ("i4", 2), ("f4", 3)):
            wide = tiff(WIDE.astype(f"{order}{kind}"), 1, sample_format=what, deflate=True)
            yield f"tiff {kind} deflated {order}", wide
    yield "tiff 32 bit, large", tiff(WIDE.astype("<u4") << 16, 1)
    yield "tiff CMYK 16", tiff(np.stack([WIDE] * 4, axis=2), 5)
    yield from ((f"png 16 bit {n}", png(np.stack([WIDE] * n, axis=2) if n > 1 else WIDE)) for n in (1, 2, 3, 4))
    yield from ((f"broken metadata: {name}", content) for name, content in broken_metadata().items())
    yield "pgm of 12 bits", b"P5 2 2 4095\n" + struct.pack(">4H", 0, 900, 2048, 4095)
    yield "ppm of 12 bits", b"P6 1 1 4095\n" + struct.pack(">3H", 0, 900, 4095)
    yield "pgm of 4 bits", b"P5 3 1 15\n\0\7\x0f"
    frames = [image, image.rotate(180)]
    yield from ((f"several {kind}", saved(frames[0], kind, save_all=True, append_images=frames[1:])) for kind in
                ("GIF", "TIFF", "WEBP", "PNG"))  # fmt: skip
    whole = saved(image, "PNG")
    yield from ((f"cut at {n}", whole[:n]) for n in (0, 8, 20, 40, len(whole) // 2, len(whole) - 20))
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    yield "bomb", whole[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    yield "text", b"<html>404</html>"
    yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"


CORPUS = dict(corpus())


def outcome(read: Any) -> Any:
    try:
        return np.asarray(read())
    except KdcError:
        return None


@pytest.mark.parametrize("pixel_range", [None, (100.0, 4095.0)])
@pytest.mark.parametrize("name", list(CORPUS))
def test_with_pillow(load: "LoadScript", tmp_path: Path, name: str, pixel_range: tuple[float, float] | None) -> None:
    files = load("classify_files")
    (tmp_path / "it").write_bytes(CORPUS[name])
    with pillow_warnings_ignored():
        expected = outcome(lambda: decode(CORPUS[name], "it", pixel_range))
    if expected is None:
        with pytest.raises(files.ImageError) as caught:
            files.read_image(tmp_path / "it", pixel_range)
        assert "\n" not in str(caught.value)
    else:
        np.testing.assert_array_equal(files.read_image(tmp_path / "it", pixel_range), expected)


@pytest.mark.parametrize("name", list(CORPUS))
def test_without_pillow(load: "LoadScript", tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads less, but nothing otherwise."""
    files = load("classify_files")
    (tmp_path / "it").write_bytes(CORPUS[name])
    monkeypatch.setattr(files, "find_pillow", lambda: None)
    with pillow_warnings_ignored():
        expected = outcome(lambda: decode(CORPUS[name], "it"))
    found = None
    with contextlib.suppress(files.ImageError):
        found = files.read_image(tmp_path / "it")
    if found is not None:
        assert expected is not None
        np.testing.assert_array_equal(found, expected)


def test_what_the_plain_reader_reads(load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = load("classify_files")
    monkeypatch.setattr(files, "find_pillow", lambda: None)
    for name in ("RGB PNG", "L PNG", "P PNG", "RGBA PNG", "LA PNG", "PPM", "broken metadata: colour profile"):
        (tmp_path / "it").write_bytes(CORPUS[name])
        assert files.read_image(tmp_path / "it").shape[2] == 3, name


@pytest.mark.parametrize("pillow", [True, False])
def test_what_is_no_file_is_refused(
    load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pillow: bool
) -> None:
    files = load("classify_files")
    if not pillow:
        monkeypatch.setattr(files, "find_pillow", lambda: None)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "endless.png", "."):
        with pytest.raises(files.ImageError, match="is no regular file"):
            files.read_image(tmp_path / name)
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(100_000_000_000)
    with pytest.raises(files.ImageError, match="is larger than 1,000,000,000 bytes"):
        files.read_image(tmp_path / "sparse.png")


def how_of(**others: Any) -> ImagePreprocess:
    values = {"input_size": (24, 32), "resize": (32, 32), "mean": (0, 0, 0), "std": (1, 1, 1), **others}
    return ImagePreprocess.model_validate(values)


STRIPS = [(1, 3000), (3000, 1), (2, 50_000), (1, 1)]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
@pytest.mark.parametrize("shape", STRIPS)
def test_strips_are_prepared_alike(load: "LoadScript", shape: tuple[int, int], interpolation: str) -> None:
    """Where training asks Pillow for the whole, and where it computes the crop alone."""
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    for how in (how_of(interpolation=interpolation), how_of(interpolation=interpolation, resize=(16, 48))):
        expected = resize_and_crop(Image.fromarray(pixels), how)
        np.testing.assert_array_equal(load("classify_images").prepare(pixels, how.model_dump()), expected)


def test_the_range_ships_in_preprocess_json() -> None:
    given = model_input(how_of(pixel_range=(0, 4095)), 1, pixels=False)
    assert ModelInput.model_validate_json(given.model_dump_json()).pixel_range == (0, 4095)
    assert "0 becomes 0 and 4095 becomes 255" in given.steps[0]
    assert "black = 0.0, white = 4095.0;" in cpp_header(given, "model.onnx")
    assert "0 becomes 0 and 65535 becomes 255" in model_input(how_of(), 1, pixels=False).steps[0]


# In C++: PPM of 8 bit, and PGM of 8 and 16.

CXX = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=off"]
SHOW = """
#include "classify_images.hpp"
int main(int, char** arguments) {
    try {
        const auto prepared = images::prepare(images::read_ppm(arguments[1]));
        std::fwrite(prepared.pixels.data(), 1, prepared.pixels.size(), stdout);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\\n", error.what());
        return 2;
    }
}
"""
DEEP = {
    "pgm of 16 bits": b"P5 11 9 65535\n" + WIDE.astype(">u2").tobytes(),
    "pgm of 12 bits": b"P5 11 9 4095\n" + (WIDE % 4096).astype(">u2").tobytes(),
    "pgm of 9 bits": b"P5 11 9 300\n" + (WIDE % 301).astype(">u2").tobytes(),
    "pgm of 8 bits": b"P5 11 9 255\n" + COLOURS[..., 0].tobytes(),
    "pgm of 4 bits": b"P5 # by hand\n11 9 15\n" + (COLOURS[..., 0] % 16).tobytes(),
    "ppm of 8 bits": b"P6 11 9 255\n" + COLOURS.tobytes(),
    "ppm of 7 bits": b"P6 11 9 100\n" + (COLOURS % 101).tobytes(),
}


@pytest.mark.slow
@pytest.mark.skipif(os.system("g++ --version > /dev/null 2>&1") != 0, reason="no g++")
@pytest.mark.parametrize("pixel_range", [None, (100.0, 4095.0)])
def test_in_cpp(tmp_path: Path, pixel_range: tuple[float, float] | None) -> None:
    how = how_of(pixel_range=pixel_range)
    (tmp_path / "preprocess.h").write_text(cpp_header(model_input(how, 1, pixels=False), "model.onnx"))
    (tmp_path / "show.cpp").write_text(SHOW)
    build = [*CXX, "-I", str(TARGETS), "-I", str(tmp_path), "show.cpp", "-o", "show"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=120)

    def shown(name: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run([tmp_path / "show", name], cwd=tmp_path, capture_output=True, timeout=20)

    strips = {
        f"strip {shape}": saved(Image.fromarray(RNG.integers(0, 256, (*shape, 3), np.uint8)), "PPM")
        for shape in (*STRIPS, (1, 1_000_000), (1_000_000, 1))
    }
    for name, content in (DEEP | strips).items():
        (tmp_path / "it").write_bytes(content)
        expected = resize_and_crop(decode(content, "it", pixel_range), how)
        np.testing.assert_array_equal(np.frombuffer(shown("it").stdout, np.uint8), expected.ravel(), err_msg=name)
    os.mkfifo(tmp_path / "pipe")
    for name, content, said in (
        ("pipe", b"", b"is no regular file"),
        ("wide", b"P6 1 1 65535\n" + bytes(6), b"is no PPM of 8 bit, and no PGM of 8 or 16"),
        ("bomb", b"P6 20000 20000 255\n", b"more than 178,956,970"),
        ("cut", b"P6 2 2 255\n" + bytes(11), b"ends too early"),
        ("many", b"P6 99999999999999999999 2 255\n", b"header is damaged"),
        ("none", b"P6 0 2 255\n", b"has no pixels"),
    ):
        if name != "pipe":
            (tmp_path / name).write_bytes(content)
        ended = shown(name)
        assert (ended.returncode, said in ended.stderr) == (2, True), (name, ended.stderr)
