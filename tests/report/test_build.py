import contextlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.report import build_report
from compressor.spec.report import Estimate
from compressor.statistics import auc, percentile, retention, wilson_interval

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]


def estimate(figure: Any, of: str) -> Estimate:
    return Estimate(value=figure.value, low=figure.low, high=figure.high, n=figure.n, of=of)


def test_figures_are_those_of_the_raw_samples(make_bundle: Make) -> None:
    report = build_report(make_bundle())
    student, teacher = report.rows
    assert student.accuracy == estimate(wilson_interval(190, 200), "test samples")
    assert teacher.accuracy == estimate(wilson_interval(194, 200), "test samples")
    wrong = np.arange(200)
    assert student.retention == estimate(retention(wrong >= 10, wrong >= 6), "test samples")
    assert student.agreement == estimate(wilson_interval(196, 200), "test samples")
    assert (teacher.retention, teacher.agreement, teacher.p50_ratio) == (None, None, None)
    assert student.p50_ratio is not None
    assert student.p50_ratio.low < 3 < student.p50_ratio.high
    assert (student.p50_ratio.n, student.p50_ratio.of) == (40, "rounds")
    assert student.balanced_accuracy is not None
    assert student.balanced_accuracy.value == pytest.approx(np.mean([63 / 67, 64 / 67, 63 / 66]), abs=1e-9)
    assert student.worst_class is not None
    assert (student.worst_class.class_name, student.worst_class.recall.n) == ("class 0", 67)
    assert student.parity_cosine == pytest.approx(1)
    assert (student.parity_agreement, student.not_finite) == (1.0, 0)
    assert (student.size_bytes, student.calls, student.auc) == (800_000, 240, None)
    assert report.session is not None
    assert (report.session.rounds, report.session.block_length, report.session.batch) == (40, 8, 1)


def test_latencies_are_those_of_the_blocks(make_bundle: Make) -> None:
    bundle = make_bundle()
    blocks = json.loads((bundle / "measurements/measurement.json").read_text())["blocks"]
    times = [block["wall_ms"] for block in blocks if block["variant"] == "ort-fp32"]
    row = build_report(bundle).rows[0]
    assert row.p50_ms == estimate(percentile(times, 0.5), "blocks of 6 calls")
    assert row.p90_ms == estimate(percentile(times, 0.9), "blocks of 6 calls")


def test_two_classes_have_an_auc(make_bundle: Make) -> None:
    labels = np.arange(200) % 2
    logits = np.stack([np.zeros(200), labels + np.linspace(-1, 1, 200)], axis=1).astype(np.float32)
    report = build_report(make_bundle({"s": {"logits": logits, "reference": logits}}, classes=2))
    assert report.rows[0].auc == estimate(auc(logits[:, 1].astype(float), labels == 1), "test samples")
    one_class = build_report(make_bundle({"s": {}}, classes=2, labels=np.zeros(200, np.int64)))
    assert one_class.rows[0].auc is None


def test_without_a_measurement_nothing_is_known_but_sizes(make_bundle: Make) -> None:
    report = build_report(make_bundle(measured=False, budget={"size_mb": 1, "p50_ms": 2}))
    row = report.rows[0]
    assert (row.measured, row.accuracy, row.p50_ms, row.parity_cosine, row.threads) == (False, None, None, None, None)
    assert (report.session, report.matches, report.verdict) == (None, False, "unmeasured")
    assert {check.line: check.verdict for check in report.checks}["size_mb"] == "pass"
    assert any("Nothing was measured" in note for note in report.notes)


def test_a_report_repeats_itself_and_survives_json(make_bundle: Make) -> None:
    bundle = make_bundle(notes=("a note",))
    report = build_report(bundle)
    assert build_report(bundle) == report
    assert type(report).model_validate_json(report.model_dump_json()) == report
    assert report.notes[0] == "a note"


def test_classes_without_samples_and_tiny_test_sets(make_bundle: Make) -> None:
    report = build_report(make_bundle(classes=4, labels=np.array([0, 1, 0])))
    assert report.rows[0].accuracy is not None
    assert report.rows[0].accuracy.n == 3
    assert any("2 of 4 classes have no test sample (class 2, class 3)" in note for note in report.notes)
    assert build_report(make_bundle(labels=np.array([2]))).test_n == 1


def test_blocks_of_a_contestant_that_broke_off_do_not_count(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle()
    edit_json(
        bundle / "measurements/measurement.json", lambda found: found["contestants"][0].update(error="died in round 9")
    )
    row = build_report(bundle).rows[0]
    assert (row.measured, row.error, row.p50_ms, row.accuracy, row.calls) == (False, "died in round 9", None, None, 0)


@pytest.mark.parametrize("shape", [(200, 4), (199, 3), (200,), (200, 3, 1), (0, 3)])
def test_logits_of_another_shape_are_refused(make_bundle: Make, shape: tuple[int, ...]) -> None:
    for key, name in (("logits", "measurements/s.npy"), ("reference", "eval/s-logits.npy")):
        with pytest.raises(KdcError, match=rf"{name}.*(expected float logits of shape \[200, 3\]|damaged)"):
            build_report(make_bundle({"s": {key: np.zeros(shape, np.float32)}}))


def test_hostile_arrays_are_refused(make_bundle: Make) -> None:
    bundle = make_bundle()
    labels = bundle / "eval/labels.npy"
    whole = labels.read_bytes()
    for content in (b"", b"no array", whole[:-9], whole.replace(b"(200,)", b"(2000000000000,)".ljust(6))):
        labels.write_bytes(content)
        with pytest.raises(KdcError, match=r"labels\.npy"):
            build_report(bundle)
    with labels.open("wb") as file:
        np.savez(file, np.arange(200))
    with pytest.raises(KdcError, match="damaged"):
        build_report(bundle)
    np.save(labels, np.array([print] * 200, dtype=object), allow_pickle=True)
    with pytest.raises(KdcError, match="expected plain numbers"):
        build_report(bundle)
    for array, said in (
        (np.zeros(199, np.int64), "expected 200 integer labels"),
        (np.zeros(200), "expected 200 integer labels"),
        (np.full(200, 3), r"labels must lie in 0\.\.2"),
        (np.full(200, -1), r"labels must lie in 0\.\.2"),
    ):
        np.save(labels, array)
        with pytest.raises(KdcError, match=said):
            build_report(bundle)


def test_damaged_headers_never_end_the_process(make_bundle: Make) -> None:
    bundle = make_bundle()
    labels = bundle / "eval/labels.npy"
    whole = labels.read_bytes()
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 may have written
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[rng.integers(128)] = rng.choice(bytearray(b"(){}[],:0123456789<>fiuOV'\x00\xff"))
            labels.write_bytes(damaged)
            with contextlib.suppress(KdcError):
                build_report(bundle)
        header = b"{'descr': '|V0', 'fortran_order': False, 'shape': (9,), }\n"
        labels.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        with pytest.raises(KdcError, match="expected plain numbers"):
            build_report(bundle)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda found: found["contestants"][0].update(variant="other"),
            "variant other, which bundle.json does not have",
        ),
        (lambda found: found["contestants"].append(found["contestants"][0]), "measures variant ort-fp32 twice"),
        (lambda found: found["contestants"][0].update(requested_precision="f16"), "for precision f16"),
        (lambda found: found["blocks"][0].update(variant="other"), "block of other"),
        (lambda found: found["blocks"].append(found["blocks"][0]), "two blocks of ort-fp32 in round 0"),
        (lambda found: found["blocks"][0].update(wall_ms=[1.0, 0.0]), "not above 0 in round 0"),
        (lambda found: found.update(surprise=1), "unknown key surprise"),
    ],
)
def test_a_measurement_that_does_not_fit_is_refused(
    make_bundle: Make, edit_json: Edit, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    bundle = make_bundle()
    edit_json(bundle / "measurements/measurement.json", change)
    with pytest.raises(KdcError, match=said) as caught:
        build_report(bundle)
    assert "measurement.json" in caught.value.message


def test_variants_have_names_of_their_own(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle()
    edit_json(bundle / "bundle.json", lambda found: found["variants"].append(found["variants"][0]))
    with pytest.raises(KdcError, match="variant ort-fp32 twice"):
        build_report(bundle)


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "timm", "transformers", "onnxruntime", "openvino", "scipy", "sklearn")
    code = f"import compressor.report, sys; sys.exit(', '.join(set({heavy}) & set(sys.modules)) or None)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
