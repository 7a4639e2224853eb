"""Before anything is exported: how many samples choices rest on, which ones, and what can be built in."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from compressor.data.samples import Split
from compressor.errors import EXIT_USAGE, KdcError
from compressor.export.bundle import build, items
from compressor.export.bundle.eval_set import eval_set, part_of
from compressor.export.bundle.items import validation_size
from compressor.export.bundle.variants import Delivery
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.runtimes import RUNTIMES
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.quantization import Scheme


def preprocess(height: int, width: int) -> ImagePreprocess:
    return ImagePreprocess(input_size=(height, width), resize=(height, width), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize(
    ("height", "width", "n"),
    [
        (32, 32, 10_000),
        (122, 122, 10_000),  # 10,000 of them are 148,840,000 pixels
        (123, 123, 9_914),
        (224, 224, 2_989),
        (224, 448, 1_494),
        (512, 512, 572),
    ],
)
def test_choices_rest_on_as_many_images_as_their_size_permits(height: int, width: int, n: int) -> None:
    assert validation_size(preprocess(height, width)) == n
    assert n * height * width <= 150_000_000


def split(n: int) -> Split:
    """Sample i has the name, the label and the grey of i."""
    labels = np.arange(n, dtype=np.int64)
    names = tuple(f"sample {number}" for number in range(n))
    contents = np.arange(n, dtype=np.uint64)
    return Split("validation", names, labels, lambda number: Image.new("RGB", (1, 1), (number,) * 3), contents)


def test_a_split_that_is_small_enough_is_taken_whole() -> None:
    whole = split(20)
    assert part_of(whole, 20) is whole
    assert part_of(whole, 21) is whole


def test_part_of_a_split_is_always_the_same_samples_each_with_its_own_label_and_image() -> None:
    whole = split(200)
    part, again = part_of(whole, 50), part_of(whole, 50)
    assert len(part) == len(set(part.ids)) == len(part.labels) == 50
    assert part.ids == again.ids
    assert part.name == "validation"
    for number, name in enumerate(part.ids):
        own = int(name.removeprefix("sample "))
        assert part.labels[number] == own
        assert part.read(number).getpixel((0, 0)) == (own, own, own)
    # Drawn from everywhere: splits are often sorted by class, and their beginning would be one class.
    assert part.labels.min() < 20
    assert part.labels.max() >= 180
    assert list(part.labels) != sorted(part.labels)
    assert set(part_of(whole, 10).ids) < set(part.ids), "a smaller part is the beginning of a larger one"


def test_the_test_split_says_what_each_of_its_samples_shows(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    shown = np.array([3, 1, 2**64 - 1, 1], np.uint64)
    told = eval_set(replace(split(4), contents=shown), tmp_path)
    assert told.digests is not None
    digests = np.load(tmp_path / told.digests)
    assert (digests.dtype, digests.tolist()) == (np.uint64, shown.tolist())
    assert told.contents == hashlib.sha256(digests.tobytes()).hexdigest()


BAKE, DYNAMIC, BOTH = Delivery(bake=True), Delivery(dynamic_batch=True), Delivery(bake=True, dynamic_batch=True)


@pytest.mark.parametrize(
    ("delivery", "runtime", "precisions"),
    [
        (Delivery(), "tensorrt", ("fp32", "int8")),
        (BAKE, "onnxruntime", ("fp32", "fp16", "int8")),
        (BAKE, "openvino", ("f32", "f16", "bf16", "int8")),
        (DYNAMIC, "onnxruntime", ("fp32", "fp16", "int8")),
        (BOTH, "openvino", ("f32", "f16", "bf16")),
    ],
)
def test_what_can_be_built_in_is_permitted(delivery: Delivery, runtime: str, precisions: tuple[str, ...]) -> None:
    delivery.require_possible(load_profile("x86-avx2", [targets(runtime, precisions)]))


@pytest.mark.parametrize(
    ("delivery", "runtime", "precisions", "flag", "able"),
    [
        (BAKE, "tensorrt", ("fp32",), "--bake-preprocessing: not for tensorrt", "onnxruntime, openvino"),
        (BAKE, "tensorrt-rtx", ("fp16",), "--bake-preprocessing: not for tensorrt-rtx", "onnxruntime, openvino"),
        (BAKE, "executorch", ("fp32",), "--bake-preprocessing: not for executorch", "onnxruntime, openvino"),
        (BAKE, "litert", ("int8",), "--bake-preprocessing: not for litert", "onnxruntime, openvino"),
        (DYNAMIC, "openvino", ("f32", "int8"), "--dynamic-batch: not for openvino", "openvino but for int8"),
        (DYNAMIC, "tensorrt", ("fp32",), "--dynamic-batch: not for tensorrt", "openvino but for int8"),
        (BOTH, "litert", ("fp32",), "--bake-preprocessing: not for litert", "onnxruntime, openvino"),
    ],
)
def test_what_cannot_be_built_in_is_refused_with_what_can(
    delivery: Delivery, runtime: str, precisions: tuple[str, ...], flag: str, able: str
) -> None:
    """Also where another target could have it: nothing that was asked for is left out without a word."""
    profile = load_profile("x86-avx2", [targets(runtime, precisions)])
    with pytest.raises(KdcError, match=f"^{flag} as the profile asks for it; possible: .*{able}") as caught:
        delivery.require_possible(profile)
    assert (caught.value.exit_code, "--target" in caught.value.hint) == (EXIT_USAGE, True)
    first = load_profile("x86-avx2", [targets("onnxruntime", ("fp32",))]).targets
    both = profile.model_copy(update={"targets": (*first, *profile.targets)})
    with pytest.raises(KdcError, match=flag):
        delivery.require_possible(both)
    replace(delivery, bake=False, dynamic_batch=False).require_possible(both)


def targets(runtime: str, precisions: tuple[str, ...]) -> str:
    return f"targets=[{{runtime: {runtime}, precisions: [{', '.join(precisions)}]}}]"


def test_a_student_is_trained_on_once_for_each_way_of_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtimes that round alike share it. What a run becomes is test_export_qat's."""
    monkeypatch.setattr(items, "qat_model", lambda run, profile, batch, folder: (run, batch, folder.name))
    asked: list[Scheme] = []

    def train(scheme: Scheme) -> Path:
        asked.append(scheme)
        return tmp_path / f"run-{len(asked)}"

    place = items.Workspace(tmp_path, tmp_path, load_profile("x86-avx2"), cast(Any, None), cast(Any, None), Silent())
    first, second = Scheme(activations="uint8", weight_bits=7), Scheme(activations="int8")
    trained = items.retraining(place, 1, train)
    found = [cast(Any, trained(scheme)) for scheme in (first, second, first, second)]
    assert asked == [first, second]
    assert found == 2 * [(tmp_path / "run-1", 1, "qat-uint8-7"), (tmp_path / "run-2", 1, "qat-int8-8")]
    assert items.retraining(place, 1, None)(first) is None, "--no-qat"


def test_what_importing_an_exporter_says_reaches_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """TensorFlow, which LiteRT's converter imports, says that results may differ slightly, from C++."""
    chatty = "import os, warnings\nos.write(2, b'results may differ')\nprint('hello')\nwarnings.warn('old')\n"
    (tmp_path / "kdc_chatty.py").write_text(chatty)
    (tmp_path / "kdc_broken.py").write_text("import kdc_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    profile = load_profile("x86-avx2")
    for module in ("kdc_chatty", "kdc_broken"):
        row = replace(RUNTIMES["onnxruntime"], exports_with=(module,))
        monkeypatch.setitem(RUNTIMES, "onnxruntime", row)
        if module == "kdc_chatty":
            build.require_exporters(profile)
            assert capfd.readouterr() == ("", "")
        else:
            with pytest.raises(KdcError, match="needs kdc_broken, which cannot be imported: No module named 'kdc_not"):
                build.require_exporters(profile)
