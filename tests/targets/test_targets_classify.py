"""The example programs: images come out as kdc's own, to the last bit, and the right label is printed."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from compressor.deploy import write_best
from compressor.files.atomic import file_sha256
from compressor.schema.bundle import FileEntry
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.preprocessing import decode, normalise, resize_and_crop
from compressor.tasks.image_classification.shipping import cpp_header, model_input

if TYPE_CHECKING:
    from tests.targets.harness import Environment, LoadScript
    from tests.targets.tiny_bundle import MEAN, STD, Tiny, variant, write_bundle
else:
    from tiny_bundle import MEAN, STD, variant, write_bundle

Pixels = npt.NDArray[np.uint8]
TARGETS = Path(__file__).resolve().parents[2] / "targets"
FILTERS = ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
HOWS: list[dict[str, Any]] = [
    {"input_size": (56, 56), "resize": (64, 64)},
    {"input_size": (24, 32), "resize": (25, 35)},  # oblong: timm's own rule
    {"input_size": (75, 31), "resize": (64, 31), "resize_mode": "squash"},  # and higher than the image: padded
    {"input_size": (120, 120), "resize": (120, 120)},  # enlarged
]
SIZES = [(97, 61), (37, 113), (64, 64)]


def photo(height: int, width: int) -> Pixels:
    """Smooth colours with a hard edge and noise, so that filters overshoot and every value occurs."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 64, (height, width, 3))
    smooth = np.stack([x * 190 // width, y * 190 // height, (x > y) * 190], axis=2)
    return (smooth + noise).astype(np.uint8)


def preprocess(**how: Any) -> ImagePreprocess:
    return ImagePreprocess(**{"mean": MEAN, "std": STD, **how})


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("how", HOWS, ids=["square", "oblong", "squash", "larger"])
def test_images_are_prepared_exactly_as_kdc_does(load: "LoadScript", how: dict[str, Any], interpolation: str) -> None:
    chosen = preprocess(**how, interpolation=interpolation)
    for size in SIZES:
        expected = resize_and_crop(Image.fromarray(photo(*size)), chosen)
        found = load("classify_images").prepare(photo(*size), chosen.model_dump())
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_the_input_is_what_kdc_feeds(load: "LoadScript", kind: Any) -> None:
    chosen = preprocess(input_size=(16, 24), resize=(16, 24))
    given = model_input(chosen, 3, pixels=kind == "uint8").model_dump()
    found = load("classify_images").as_input(photo(16, 24), given)
    pixels = np.stack([photo(16, 24)] * 3)
    np.testing.assert_array_equal(found, normalise(pixels, chosen) if kind == "float32" else pixels)
    assert (str(found.dtype), found.flags.c_contiguous) == (kind, True)


def encoded(pixels: Pixels, mode: str, kind: str = "PNG") -> bytes:
    image = Image.fromarray(pixels)
    out = io.BytesIO()
    (image.quantize(100) if mode == "P" else image.convert(mode)).save(out, kind)
    return out.getvalue()


def png_filtered(pixels: Pixels, filters: list[int]) -> bytes:
    """A PNG whose row y has the filter filters[y % 5], written here by section 9 of its specification."""
    height, width = pixels.shape[:2]
    wide = np.zeros((height + 1, width + 1, 3), np.int64)
    wide[1:, 1:] = pixels
    a, b, c, x = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1], wide[1:, 1:]
    p = a + b - c
    near = np.abs(p - a), np.abs(p - b), np.abs(p - c)
    paeth = np.where((near[0] <= near[1]) & (near[0] <= near[2]), a, np.where(near[1] <= near[2], b, c))
    guesses = (np.zeros_like(x), a, b, (a + b) // 2, paeth)
    rows = [
        bytes([kind]) + ((x - guesses[kind])[y] % 256).astype(np.uint8).tobytes()
        for y, kind in ((y, filters[y % len(filters)]) for y in range(height))
    ]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"".join(rows))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", data[:50]) + chunk(b"IDAT", data[50:]) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA"])
def test_plain_png_without_pillow(load: "LoadScript", mode: str) -> None:
    content = encoded(photo(23, 31), mode)
    np.testing.assert_array_equal(load("classify_files").png(content), np.asarray(decode(content, "it")))


@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 1, 3, 2, 0]])
def test_every_filter_of_png(load: "LoadScript", filters: list[int]) -> None:
    content = png_filtered(photo(12, 17), filters)
    np.testing.assert_array_equal(np.asarray(decode(content, "it")), photo(12, 17))  # Pillow reads it alike
    np.testing.assert_array_equal(load("classify_files").png(content), photo(12, 17))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_ppm_and_pgm_without_pillow(load: "LoadScript", mode: str) -> None:
    content = encoded(photo(23, 31), mode, "PPM")
    commented = content.replace(b"\n", b"\n# by hand\n", 1)
    for one in (content, commented):
        np.testing.assert_array_equal(load("classify_files").pnm(one), np.asarray(decode(content, "it")))


def turned() -> bytes:
    """A PNG that a camera took lying on its side: EXIF orientation 6."""
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(10, 20)).save(out, "PNG", exif=exif)
    return out.getvalue()


def deep() -> bytes:
    out = io.BytesIO()
    Image.fromarray(photo(10, 20)[:, :, 0].astype(np.uint16) * 257).save(out, "PNG")
    return out.getvalue()


OTHERS = {"jpeg": encoded(photo(10, 20), "RGB", "JPEG"), "turned": turned(), "16 bit": deep()}


@pytest.mark.parametrize("content", list(OTHERS.values()), ids=list(OTHERS))
def test_other_images_need_pillow_and_come_out_as_kdc_reads_them(
    load: "LoadScript", content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = load("classify_files")
    path = tmp_path / "image"
    path.write_bytes(content)
    np.testing.assert_array_equal(files.read_image(path), np.asarray(decode(content, "it")))
    monkeypatch.setattr(files, "find_pillow", lambda: None)
    with pytest.raises(files.ImageError, match="pip install pillow"):
        files.read_image(path)


@pytest.mark.parametrize("pillow", [True, False])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_damaged_images_are_an_error_in_one_line(
    load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, pillow: bool
) -> None:
    files = load("classify_files")
    path = tmp_path / "image.png"
    if damage != "missing":
        path.write_bytes(encoded(photo(23, 31), "RGB")[: 200 if damage == "cut" else 0])
    if not pillow:
        monkeypatch.setattr(files, "find_pillow", lambda: None)
    with pytest.raises(files.ImageError, match=r"image\.png") as caught:
        files.read_image(path)
    assert "\n" not in str(caught.value)


def best_of(tiny: "Tiny", folder: Path, runtime: str) -> Path:
    """A bundle's best/ of the tiny net, for batches of 3."""
    models = {
        "onnxruntime": ("fp32", "model.onnx", ["model.onnx"]),
        "openvino": ("f32", "f32.xml", ["f32.xml", "f32.bin"]),
    }
    precision, model, files = models[runtime]
    shutil.copytree(tiny.folder, folder)
    entries = tuple(
        FileEntry(path=name, sha256=file_sha256(folder / name), bytes=(folder / name).stat().st_size) for name in files
    )
    chosen = variant("it", runtime, precision, model).model_copy(update={"files": entries})
    write_best(folder, write_bundle(folder, (chosen,)), chosen)
    return folder / "best"


def classify(best: Path, image: Path, environment: dict[str, str], *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(best / "classify.py"), str(image), *options]
    return subprocess.run(command, env=environment, cwd=image.parent, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_program_prints_the_likeliest_labels(
    tiny: "Tiny", bare: "Environment", tmp_path: Path, runtime: str
) -> None:
    """In an environment without Pillow, torch or kdc; the label is the one of the net computed in numpy."""
    best = best_of(tiny, tmp_path / "bundle", runtime)
    powers = np.exp(tiny.logits.astype(np.float64))
    for index in range(3):
        Image.fromarray(tiny.images[index]).save(tmp_path / "it.png")
        ended = classify(best, tmp_path / "it.png", bare("PIL"), "--top", "2")
        assert (ended.returncode, ended.stderr) == (0, "")
        rows = [line.split() for line in ended.stdout.splitlines()]
        order = np.argsort(-tiny.logits[index])[:2]
        assert [label for _, label in rows] == ["abcd"[at] for at in order]
        shares = [float(share.rstrip("%")) / 100 for share, _ in rows]
        np.testing.assert_allclose(shares, powers[index][order] / powers[index].sum(), atol=1e-4)
    assert not list(best.rglob("__pycache__"))


@pytest.mark.slow
def test_what_the_program_says_when_it_cannot(tiny: "Tiny", bare: "Environment", tmp_path: Path) -> None:
    best = best_of(tiny, tmp_path / "bundle", "onnxruntime")
    (tmp_path / "it.jpg").write_bytes(OTHERS["jpeg"])
    Image.fromarray(tiny.images[0]).save(tmp_path / "it.png")
    for image, missing, code, said in (
        ("it.jpg", "PIL", 2, "pip install pillow"),
        ("none.png", "PIL", 2, "cannot read"),
        ("it.png", "onnxruntime", 4, "pip install onnxruntime"),
    ):
        ended = classify(best, tmp_path / image, bare(missing))
        assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (code, "", 1)
        assert said in ended.stderr


def test_labels_end_at_line_feeds_alone(load: "LoadScript", tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    for content, labels in (
        ("cat\nsea\u2028lion\n\x85dog\x0b\n", ["cat", "sea\u2028lion", "\x85dog\x0b"]),
        ("cat\r\ndog\r\n", ["cat", "dog"]),  # edited on Windows
        ("cat\rdog\n", ["cat\rdog"]),
        ("cat\n\ndog", ["cat", "", "dog"]),
    ):
        path.write_bytes(content.encode())
        assert load("classify_images").labels_in(path) == labels


@pytest.mark.parametrize("labels", ["a\nb\nc\nd\ne\n", "a\nb\nc\n", "a\nb\n\nc\nd\n", "", None])
def test_the_program_refuses_labels_that_are_another_models(
    load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    labels: str | None,
) -> None:  # fmt: skip
    """A name with a line break made five lines for four outputs, and the wrong one was printed, with 99.9 %."""
    script = load("classify_images")
    given = model_input(preprocess(input_size=(16, 16), resize=(16, 16)), 2, pixels=False)
    (tmp_path / "preprocess.json").write_text(given.model_dump_json())
    (tmp_path / "manifest.json").write_text(json.dumps({"model": "it", "precision": "fp32", "install": "-"}))
    Image.fromarray(photo(16, 16)).save(tmp_path / "it.png")
    monkeypatch.setattr(script, "__file__", str(tmp_path / "classify_images.py"))
    monkeypatch.setattr(sys, "argv", ["classify.py", str(tmp_path / "it.png")])

    def logits(model: Path, batch: npt.NDArray[Any], precision: str) -> npt.NDArray[np.float32]:
        return np.repeat(np.array([[0, 9, 0, 0]], np.float32), len(batch), 0)

    for text, code, out in ((labels, 2, ""), ("a\nb\nc\nd\n", 0, "b")):
        if text is not None:
            (tmp_path / "labels.txt").write_text(text)
        assert script.main(logits) == code
        said = capsys.readouterr()
        assert out == (said.out.split()[1] if said.out else "")
        count = None if text is None else len(text.splitlines())
        if code:
            expected = (
                "cannot read labels.txt" if count is None else f"labels.txt names {count} classes, the model answers 4"
            )
            assert expected in said.err
            assert len(said.err.splitlines()) == 1


# In C++. What a compiler finds here is compiled for real; the rest is held against declarations.

CXX = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

SHOW = """
#include "classify_images.hpp"
int main(int, char** arguments) {
    const auto prepared = images::prepare(images::read_ppm(arguments[1]));
    std::fwrite(prepared.pixels.data(), 1, prepared.pixels.size(), stdout);
    const auto planes = images::normalized(prepared);
    std::fwrite(planes.data(), sizeof(float), planes.size(), stdout);
}
"""


TELL = """
#include "classify_images.hpp"
int main() {
    const float logits[4] = {0, 9, 0, 0};
    try {
        images::tell(logits, 4, "./", 1);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\\n", error.what());
        return 2;
    }
}
"""


def test_names_cannot_act_on_the_terminal(load: "LoadScript") -> None:
    shown = load("classify_images").shown
    assert shown("\x1b[31mé\x9b\u202e数\x7f\n") == r"\x1b[31mé\x9b\u202e数\x7f\n"


@pytest.mark.slow
@needs_gxx
def test_the_cpp_program_refuses_labels_that_are_another_models(tmp_path: Path) -> None:
    chosen = preprocess(input_size=(16, 16), resize=(16, 16))
    (tmp_path / "preprocess.h").write_text(cpp_header(model_input(chosen, 1, pixels=False), "model.onnx"))
    (tmp_path / "tell.cpp").write_text(TELL)
    build = [*CXX, "-I", str(TARGETS), "-I", str(tmp_path), "tell.cpp", "-o", "tell"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=120)
    for labels, code, said in (
        ("a\nb\nc\nd\n", 0, "99.96%  b\n"),
        ("a\r\nsea\u2028lion\r\nc\r\nd", 0, "99.96%  sea\\u2028lion\n"),
        ("a\n\x1b[31mé\x9b\u202e数\x7f\nc\nd", 0, "99.96%  \\x1b[31mé\\x9b\\u202e数\\x7f\n"),
        ("a\nb\nc\nd\ne\n", 2, "labels.txt names 5 classes, the model answers 4\n"),
        ("a\nb\nc\n", 2, "labels.txt names 3 classes, the model answers 4\n"),
        ("", 2, "cannot read ./labels.txt\n"),
    ):
        (tmp_path / "labels.txt").write_bytes(labels.encode())
        ended = subprocess.run([tmp_path / "tell"], cwd=tmp_path, capture_output=True, timeout=60)
        assert (ended.returncode, (ended.stderr if code else ended.stdout).decode().lstrip()) == (code, said)
        assert code == 0 or not ended.stdout


@pytest.mark.slow
@needs_gxx
@pytest.mark.parametrize(("interpolation", "how"), list(zip(FILTERS, cycle(HOWS), strict=False)), ids=FILTERS)
def test_the_same_images_in_cpp(tmp_path: Path, interpolation: str, how: dict[str, Any]) -> None:
    chosen = preprocess(**how, interpolation=interpolation)
    (tmp_path / "preprocess.h").write_text(cpp_header(model_input(chosen, 2, pixels=False), "model.onnx"))
    (tmp_path / "show.cpp").write_text(SHOW)
    build = [*CXX, "-ffp-contract=off", "-I", str(TARGETS), "-I", str(tmp_path), "show.cpp", "-o", "show"]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=120)
    for size in SIZES:
        Image.fromarray(photo(*size)).save(tmp_path / "it.ppm")
        out = subprocess.run([tmp_path / "show", "it.ppm"], cwd=tmp_path, check=True, capture_output=True).stdout
        expected = resize_and_crop(Image.fromarray(photo(*size)), chosen)
        np.testing.assert_array_equal(np.frombuffer(out, np.uint8, expected.size), expected.ravel())
        planes = np.frombuffer(out, np.float32, offset=expected.size)
        np.testing.assert_allclose(planes, normalise(np.stack([expected] * 2), chosen).ravel(), rtol=1e-6, atol=1e-6)


def onnxruntime_headers() -> Path | None:
    """Debian 13's libonnxruntime-dev, or the include/ of a release that KDC_ONNXRUNTIME_INCLUDE names."""
    named = os.environ.get("KDC_ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime")
    return Path(named) if (Path(named) / "onnxruntime_cxx_api.h").is_file() else None


@pytest.mark.slow
@needs_gxx
@pytest.mark.skipif(onnxruntime_headers() is None, reason="no onnxruntime_cxx_api.h: set KDC_ONNXRUNTIME_INCLUDE")
@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake")
def test_the_cpp_program_prints_the_likeliest_labels(tiny: "Tiny", tmp_path: Path) -> None:
    """Built by the CMakeLists.txt that ships, against the shared library in onnxruntime's wheel."""
    import onnxruntime

    root = tmp_path / "onnxruntime"
    (root / "lib").mkdir(parents=True)
    headers = onnxruntime_headers()
    assert headers is not None
    (root / "include").symlink_to(headers)
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(library)
    best = best_of(tiny, tmp_path / "bundle", "onnxruntime")
    flags = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror"
    for command in (
        ["cmake", "-B", "build", f"-DONNXRUNTIME_ROOT={root}", flags], ["cmake", "--build", "build"]
    ):  # fmt: skip
        subprocess.run(command, cwd=best, check=True, capture_output=True, timeout=200)
    for index in range(3):
        Image.fromarray(tiny.images[index]).save(tmp_path / "it.ppm")
        ended = subprocess.run(
            [best / "build" / "classify", tmp_path / "it.ppm", best], check=True, capture_output=True, text=True
        )
        order = np.argsort(-tiny.logits[index])
        assert [line.split()[1] for line in ended.stdout.splitlines()] == ["abcd"[at] for at in order]


# The part of onnxruntime_cxx_api.h that classify_ort.cpp uses, written down from its documentation, for machines that
# have not got the header: it shows that the program is C++.
ORT = """
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>
enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtArenaAllocator };
enum OrtMemType { OrtMemTypeDefault };
struct OrtMemoryInfo;
struct OrtAllocator;
namespace Ort {
struct Env { Env(OrtLoggingLevel level, const char* id); };
struct SessionOptions { SessionOptions(); };
struct RunOptions { RunOptions(); };
struct MemoryInfo {
    static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType);
    operator const OrtMemoryInfo*() const;
};
struct AllocatorWithDefaultOptions { operator OrtAllocator*() const; };
struct AllocatedStringPtr { const char* get() const; };
struct TensorTypeAndShapeInfo { std::vector<std::int64_t> GetShape() const; };
struct Value {
    template <typename T>
    static Value CreateTensor(const OrtMemoryInfo*, T*, std::size_t count, const std::int64_t* shape, std::size_t);
    TensorTypeAndShapeInfo GetTensorTypeAndShapeInfo() const;
    template <typename T> const T* GetTensorData() const;
};
struct Session {
    Session(const Env&, const char* path, const SessionOptions&);
    AllocatedStringPtr GetInputNameAllocated(std::size_t, OrtAllocator*) const;
    AllocatedStringPtr GetOutputNameAllocated(std::size_t, OrtAllocator*) const;
    std::vector<Value> Run(const RunOptions&, const char* const* inputs, const Value* values, std::size_t,
                           const char* const* outputs, std::size_t);
};
}
"""


@pytest.mark.slow
@needs_gxx
@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_the_program_for_onnxruntime_is_cpp(tmp_path: Path, kind: Any) -> None:
    chosen = preprocess(input_size=(16, 16), resize=(16, 16))
    (tmp_path / "preprocess.h").write_text(cpp_header(model_input(chosen, 1, pixels=kind == "uint8"), "model.onnx"))
    headers = onnxruntime_headers()
    if headers is None:
        headers = tmp_path
        (tmp_path / "onnxruntime_cxx_api.h").write_text(ORT)
    includes = ["-I", str(tmp_path), "-I", str(TARGETS), "-isystem", str(headers)]
    command = [*CXX, *includes, "-fsyntax-only", str(TARGETS / "classify_ort.cpp")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


# The part of NvInfer.h (TensorRT 10) and of cuda_runtime_api.h that classify_trt.cpp uses, written down from NVIDIA's
# API documentation: neither header can be had here. It shows that the program is C++, not that it runs.
NV_INFER = """
#pragma once
#include <cstddef>
#include <cstdint>
struct CUstream_st;
using cudaStream_t = CUstream_st*;
namespace nvinfer1 {
struct Dims { std::int32_t nbDims; std::int64_t d[8]; };
struct Dims4 : Dims {
    Dims4(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t e) : Dims{4, {a, b, c, e}} {}
};
enum class TensorIOMode : std::int32_t { kNONE, kINPUT, kOUTPUT };
class ILogger {
  public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
    virtual void log(Severity severity, char const* message) noexcept = 0;
    virtual ~ILogger() = default;
};
class IExecutionContext {
  public:
    virtual ~IExecutionContext() noexcept = default;
    bool setInputShape(char const* name, Dims const& dims) noexcept;
    Dims getTensorShape(char const* name) const noexcept;
    bool setTensorAddress(char const* name, void* data) noexcept;
    bool enqueueV3(cudaStream_t stream) noexcept;
};
class ICudaEngine {
  public:
    virtual ~ICudaEngine() noexcept = default;
    IExecutionContext* createExecutionContext() noexcept;
    char const* getIOTensorName(std::int32_t index) const noexcept;
    TensorIOMode getTensorIOMode(char const* name) const noexcept;
};
class IRuntime {
  public:
    virtual ~IRuntime() noexcept = default;
    ICudaEngine* deserializeCudaEngine(void const* content, std::size_t size) noexcept;
};
IRuntime* createInferRuntime(ILogger& logger) noexcept;
}
"""
CUDA_RUNTIME = """
#pragma once
#include <cstddef>
struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
extern "C" {
char const* cudaGetErrorString(cudaError_t);
cudaError_t cudaMalloc(void**, std::size_t);
cudaError_t cudaFree(void*);
cudaError_t cudaStreamCreate(cudaStream_t*);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaMemcpyAsync(void*, void const*, std::size_t, cudaMemcpyKind, cudaStream_t);
}
"""


@pytest.mark.slow
@needs_gxx
@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_the_program_for_tensorrt_is_cpp(tmp_path: Path, kind: Any) -> None:
    chosen = preprocess(input_size=(16, 16), resize=(16, 16))
    (tmp_path / "preprocess.h").write_text(cpp_header(model_input(chosen, 1, pixels=kind == "uint8"), "model.engine"))
    (tmp_path / "NvInfer.h").write_text(NV_INFER)
    (tmp_path / "cuda_runtime_api.h").write_text(CUDA_RUNTIME)
    includes = ["-I", str(tmp_path), "-I", str(TARGETS)]
    command = [*CXX, *includes, "-fsyntax-only", str(TARGETS / "classify_trt.cpp")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_program_for_tensorrt_says_what_is_missing(
    load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU it cannot go further than this here."""
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "manifest.json").write_text(json.dumps({"runtime": "tensorrt-rtx"}))
    script = load("classify_trt")
    with pytest.raises(script.ImageError, match=r"model\.engine is not there yet: build it on this device"):
        script.logits(tmp_path / "model.engine", np.zeros((1, 3, 16, 16), np.float32), "fp16")
