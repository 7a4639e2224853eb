"""What a command asks of a profile: which of its targets and precisions, and how the device's int8 kernels round."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressor import pipeline
from compressor.assets import asset_dir
from compressor.errors import EXIT_USAGE, KdcError
from compressor.files.bundle_folder import UNMEASURED
from compressor.narrowing import narrow
from compressor.pipeline import _retraining, scheme_for
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.schema.profile import Profile
from compressor.schema.quantization import Scheme

TARGETS = (
    "targets=[{runtime: onnxruntime, precisions: [fp32, fp16, int8]}, {runtime: openvino, precisions: [f32, int8]}]"
)


@pytest.fixture
def profile() -> Profile:
    return load_profile("x86-avx2", [TARGETS])


def asked(profile: Profile) -> dict[str, tuple[str, ...]]:
    return {target.runtime: target.precisions for target in profile.targets}


@pytest.mark.parametrize(
    ("targets", "precisions", "left"),
    [
        ([], [], {"onnxruntime": ("fp32", "fp16", "int8"), "openvino": ("f32", "int8")}),
        (["openvino"], [], {"openvino": ("f32", "int8")}),
        (["openvino-int8"], [], {"openvino": ("int8",)}),
        # In the profile's order, whatever the order of the words.
        (["openvino-f32", "onnxruntime"], [], {"onnxruntime": ("fp32", "fp16", "int8"), "openvino": ("f32",)}),
        (["openvino-int8", "openvino-f32"], [], {"openvino": ("f32", "int8")}),
        (["onnxruntime-int8", "onnxruntime"], [], {"onnxruntime": ("fp32", "fp16", "int8")}),
        ([], ["int8"], {"onnxruntime": ("int8",), "openvino": ("int8",)}),
        ([], ["int8", "fp32"], {"onnxruntime": ("fp32", "int8"), "openvino": ("int8",)}),
        ([], ["fp16"], {"onnxruntime": ("fp16",)}),  # a target that has none of them drops out, since nobody named it
        (["openvino"], ["f32"], {"openvino": ("f32",)}),
        (["openvino", "onnxruntime"], ["int8"], {"onnxruntime": ("int8",), "openvino": ("int8",)}),
        (["openvino", "onnxruntime-fp32"], ["f32", "fp32"], {"onnxruntime": ("fp32",), "openvino": ("f32",)}),
    ],
)
def test_a_profile_is_narrowed_to_what_is_named(
    profile: Profile, targets: list[str], precisions: list[str], left: dict[str, tuple[str, ...]]
) -> None:
    before = profile.model_dump()
    chosen = narrow(profile, targets, precisions)
    assert list(asked(chosen).items()) == list(left.items())
    assert profile.model_dump() == before, "the profile itself was changed"
    assert {**chosen.model_dump(), "targets": None} == {**before, "targets": None}


@pytest.mark.parametrize(
    ("targets", "precisions", "said", "can"),
    [
        (["tensorrt"], [], "--target tensorrt: profile x86-avx2 does not have it", "onnxruntime, openvino, "),
        (["openvino-f23"], [], "did you mean openvino-f32?", "openvino-f32, openvino-int8"),
        (["openvino-fp16"], [], "--target openvino-fp16", "openvino-f32, openvino-int8"),
        (["openvino", "ncnn"], [], "--target ncnn", "onnxruntime-int8"),
        ([], ["int4"], "--precision int4: no target of profile x86-avx2 has it", "openvino (f32, int8)"),
        ([], ["int8", "fp61"], "--precision fp61", "onnxruntime (fp32, fp16, int8)"),
        ([], ["fp61"], "did you mean fp16?", "onnxruntime (fp32, fp16, int8)"),
        (["openvino"], ["fp16"], "--precision fp16: no target", "openvino (f32, int8)"),
        (["openvino-f32"], ["int8"], "--precision int8: no target", "openvino (f32)"),
        (["openvino", "onnxruntime"], ["fp16"], "--target names openvino, which has none of", "(f32, int8)"),
        (["onnxruntime-fp32", "openvino"], ["int8"], "--target names onnxruntime, which", "onnxruntime (fp32)"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_with_what_can(
    profile: Profile, targets: list[str], precisions: list[str], said: str, can: str
) -> None:
    with pytest.raises(KdcError) as caught:
        narrow(profile, targets, precisions)
    assert said in caught.value.message
    assert can in caught.value.hint
    assert caught.value.exit_code == EXIT_USAGE


class Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def written(folder: Path, **changes: Any) -> str:
    """x86-avx512-vnni with other values."""
    values = yaml.safe_load((asset_dir("profiles") / "x86-avx512-vnni.yaml").read_text(encoding="utf-8"))
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("profile", "runtime", "scheme"),
    [
        ("x86-avx2", "onnxruntime", Scheme(activations="uint8", weight_bits=7)),
        ("x86-avx512-vnni", "onnxruntime", Scheme(activations="uint8")),
        ("raspberry-pi-5", "onnxruntime", Scheme(activations="uint8")),
        ("jetson-orin-nano", "tensorrt", Scheme(activations="int8")),  # its first target has no int8
        ("rtx-ada", "tensorrt-rtx", Scheme(activations="int8")),
    ],
)
def test_a_student_is_trained_for_the_first_int8_target(profile: str, runtime: str, scheme: Scheme) -> None:
    progress = Listening()
    assert scheme_for(load_profile(profile), progress) == scheme
    words = f"--qat: for int8 on {runtime}: {scheme.activations} activations, {scheme.weight_bits}-bit weights"
    assert progress.said == [words]


def test_the_order_of_the_targets_decides_where_they_round_otherwise(tmp_path: Path) -> None:
    """onnxruntime and TensorRT in one profile: a student can be trained for one of them, and it says which."""
    row = {name: {"runtime": name, "precisions": ["int8"]} for name in ("onnxruntime", "tensorrt")}
    found = {}
    for first, second in (("onnxruntime", "tensorrt"), ("tensorrt", "onnxruntime")):
        progress = Listening()
        found[first] = scheme_for(load_profile(written(tmp_path, targets=[row[first], row[second]])), progress)
        assert f"on {first}:" in progress.said[0]
    assert found == {"onnxruntime": Scheme(activations="uint8"), "tensorrt": Scheme(activations="int8")}


def test_there_is_no_scheme_without_an_int8_target(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="--qat needs a profile") as caught:
        scheme_for(None, Silent())
    assert caught.value.hint == "--profile NAME"
    in_float = written(tmp_path, targets=[{"runtime": "openvino", "precisions": ["f32", "f16"]}])
    with pytest.raises(KdcError, match="has no target with int8") as caught:
        scheme_for(load_profile(in_float), Silent())
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("ends", "left"),
    [(None, False), (KdcError("the disk is full"), False), (ValueError("a bug"), False), (KeyboardInterrupt(), True)],
)
def test_what_an_export_trained_stays_only_where_it_was_interrupted(
    ends: BaseException | None, left: bool, tmp_path: Path
) -> None:
    """Then the same command goes on with it. Of another bundle beside it nothing is touched."""
    trained = tmp_path / "bundle" / ".kdc-qat-0123456789ab" / "uint8-8"
    others = tmp_path / "bundle2" / ".kdc-qat-0123456789ab"
    others.mkdir(parents=True)
    said: list[str] = []

    class Hearing(Silent):
        def warn(self, text: str) -> None:
            said.append(text)

    with (
        suppress(KdcError, ValueError, KeyboardInterrupt),
        _retraining(tmp_path / "run", tmp_path / "bundle", None, Hearing()),
    ):
        trained.mkdir(parents=True)
        (trained / "run.json").touch()
        if ends is not None:
            raise ends
    assert trained.exists() == trained.parent.exists() == left
    assert others.exists()
    goes_on = f"what was trained for int8 is kept in {tmp_path / 'bundle'}: the same kdc export goes on from there"
    assert said == ([f"stopped; {goes_on}"] if left else [])


def test_an_export_that_is_interrupted_before_it_trains_says_nothing_of_training(tmp_path: Path) -> None:
    class Deaf(Silent):
        def warn(self, text: str) -> None:
            raise AssertionError(text)

    with pytest.raises(KeyboardInterrupt), _retraining(tmp_path / "run", tmp_path / "bundle", None, Deaf()):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("before", "told"), [(True, 1), (False, 0)])
def test_kdc_measure_tells_of_an_export_that_waits_beside_the_bundle(
    before: bool, told: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / UNMEASURED, *([tmp_path] if before else [])):
        folder.mkdir(exist_ok=True)
        (folder / "bundle.json").touch()
    said: list[str] = []

    class Hearing(Silent):
        def note(self, text: str) -> None:
            said.append(text)

    monkeypatch.setattr(pipeline, "_measured_in_place", lambda bundle, how, progress: None)
    pipeline.measure(tmp_path, pipeline.Measuring(), progress=Hearing())
    assert len([line for line in said if "holds a newer export that was not measured yet" in line]) == told
