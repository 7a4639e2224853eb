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
from compressor.schema.report import Estimate, Spread, Throughput
from compressor.stats import (
    Interval,
    auc,
    difference,
    look_confidence,
    percentile,
    retention,
    smallest_detectable,
    wilson_interval,
)
from tests.report.conftest import THROUGHPUT

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
    assert (student.worst_class.class_name, student.worst_class.share.n) == ("class 0", 67)
    assert student.parity_cosine == pytest.approx(1)
    assert (student.parity_agreement, student.not_finite) == (1.0, 0)
    assert (student.size_bytes, student.calls, student.auc) == (800_000, 240, None)
    assert (student.weight_bytes, student.compressed_bytes) == ({"float32": 600_000, "int64": 64}, 500_000)
    assert (student.idle_rss_mb, student.peak_rss_mb) == (40.0, 61.25)
    assert report.session is not None
    assert (report.session.rounds, report.session.block_length, report.session.batch) == (40, 8, 1)


def test_latencies_are_those_of_the_blocks(make_bundle: Make) -> None:
    bundle = make_bundle()
    blocks = json.loads((bundle / "measurements/measurement.json").read_text())["blocks"]
    times = [block["wall_ms"] for block in blocks if block["variant"] == "ort-fp32"]
    row = build_report(bundle).rows[0]
    assert row.p50_ms == estimate(percentile(times, 0.5), "blocks of 6 calls")
    assert row.p90_ms == estimate(percentile(times, 0.9), "blocks of 6 calls")


def test_what_is_kept_of_the_teacher(make_bundle: Make) -> None:
    """The teacher is wrong on samples 0–5, the student on 0–9, the baseline on 0–13, of classes 0, 1, 2, 0, …"""
    variants = {
        "ort-fp32": {"wrong": 10},
        "teacher": {"role": "teacher", "wrong": 6},
        "baseline-ort-fp32": {"role": "baseline", "wrong": 14},
    }
    student, teacher, baseline = build_report(make_bundle(variants)).rows
    sample = np.arange(200)
    assert student.difference == estimate(difference(sample >= 10, sample >= 6), "test samples")
    assert student.difference is not None
    assert student.difference.value == pytest.approx(-0.02)
    assert student.mcnemar_p == pytest.approx(1 / 2**4)  # mid-p of 0 to 4: only the teacher is right on 6–9
    assert student.baseline_difference == estimate(difference(sample >= 10, sample >= 14), "test samples")
    assert student.worst_retention is not None
    assert student.worst_retention.class_name == "class 0"
    assert student.worst_retention.share.value == pytest.approx(63 / 65)  # class 1: 64 / 65, class 2: 63 / 64
    assert (student.worst_retention.share.n, student.worst_retention.share.of) == (67, "test samples of the class")
    assert baseline.difference is not None
    assert baseline.difference.value == pytest.approx(-0.04)
    compared = ("difference", "mcnemar_p", "worst_retention", "retention", "agreement", "baseline_difference")
    assert [getattr(teacher, field) for field in compared] == [None] * 6
    assert baseline.baseline_difference is None


def test_a_teacher_that_knows_no_class_retains_none(make_bundle: Make) -> None:
    row = build_report(make_bundle({"s": {}, "teacher": {"role": "teacher", "wrong": 200}})).rows[0]
    assert (row.retention, row.worst_retention) == (None, None)
    assert row.difference is not None
    assert row.difference.value == 1


def test_roles_have_the_architecture_of_their_own(make_bundle: Make) -> None:
    roles = {"s": "student", "r": "reference", "teacher": "teacher", "baseline-s": "baseline"}
    report = build_report(make_bundle({name: {"role": role} for name, role in roles.items()}))
    assert [(row.name, row.role) for row in report.rows] == list(roles.items())
    assert [row.architecture for row in report.rows] == ["small_net", "small_net", "big", "old_net"]
    assert {check.variant for check in report.checks if check.line != "precision"} == {"s"}
    assert {check.variant for check in report.checks if check.line == "precision"} == {"s", "r", "teacher"}


def test_starts_are_told_as_they_spread(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle()
    row = build_report(bundle).rows[0]
    assert row.start_ms == Spread(median=138, lowest=120, highest=156, n=5)
    assert row.load_ms == Spread(median=14, lowest=12, highest=16, n=5)
    assert row.first_ms == Spread(median=8, lowest=8, highest=8, n=5)
    edit_json(bundle / "measurements/measurement.json", lambda found: found["contestants"][0].update(starts=[]))
    row = build_report(bundle).rows[0]
    assert (row.start_ms, row.load_ms, row.first_ms) == (None, None, None)


def test_throughput_is_the_fastest_way(make_bundle: Make) -> None:
    """1 stream: 450 and 480 calls a second; 4 streams: 500, 520 and 600, with 1/80 J a call."""
    fastest = build_report(make_bundle()).rows[0].throughput
    assert fastest == Throughput(
        images_per_s=Spread(median=520, lowest=500, highest=600, n=3),
        streams=4,
        threads=1,
        joules_per_image=Spread(median=1 / 80, lowest=1 / 80, highest=1 / 80, n=3),
    )
    row = build_report(make_bundle({"s": {"throughput": THROUGHPUT[:1]}}, session={"batch": 8})).rows[0]
    assert row.throughput is not None
    assert row.throughput.images_per_s == Spread(median=8 * 465, lowest=8 * 450, highest=8 * 480, n=2)
    assert row.throughput.joules_per_image is None
    none = {"streams": 1, "threads": 4, "windows": [{"seconds": 2.0, "calls": 0, "joules": 3.0}]}
    stuck = build_report(make_bundle({"s": {"throughput": [none]}})).rows[0].throughput
    assert stuck is not None
    assert (stuck.images_per_s.median, stuck.joules_per_image) == (0, None)
    empty = [{"streams": 1, "threads": 4, "windows": []}]
    for throughput in ([], empty):
        assert build_report(make_bundle({"s": {"throughput": throughput}})).rows[0].throughput is None


def test_the_cpu_time_is_that_of_the_same_calls(make_bundle: Make) -> None:
    row = build_report(make_bundle()).rows[0]
    assert row.cpu_p50_ms is not None
    assert row.p50_ms is not None
    assert row.cpu_p50_ms.value == pytest.approx(1.5 * row.p50_ms.value)
    assert (row.cpu_p50_ms.n, row.cpu_p50_ms.of) == (40, "blocks of 6 calls")


def test_the_slowdown_is_beside_the_same_variant_of_the_baseline(make_bundle: Make) -> None:
    variants = {
        "ort": {"p50": 2.0},
        "ov": {"p50": 3.0},
        "baseline-ov": {"role": "baseline", "p50": 2.4},
        "baseline-gone": {"role": "baseline", "p50": 9.0},
    }
    rows = build_report(make_bundle(variants, spread=0.0)).rows
    assert [row.slowdown for row in rows if row.name != "ov"] == [None] * 3
    assert rows[1].slowdown is not None
    assert rows[1].slowdown.value == pytest.approx(1.25)
    assert (rows[1].slowdown.n, rows[1].slowdown.of) == (40, "rounds")


def test_the_session_tells_its_noise(make_bundle: Make) -> None:
    lost = {"looks": 3, "device": "ssh", "connections": 2, "lost": "the cable"}
    session = build_report(make_bundle(aa=1.01, spread=0.0, session=lost)).session
    assert session is not None
    assert session.aa is not None
    assert session.aa.value == pytest.approx(1.01)
    assert (session.aa.n, session.aa.of) == (40, "rounds")
    aa = Interval(session.aa.value, session.aa.low, session.aa.high, session.aa.n)
    assert session.smallest_effect == smallest_detectable(aa) == pytest.approx(0.01)
    assert (session.looks, session.confidence) == (3, look_confidence(3))
    assert (session.device, session.connections, session.lost) == ("ssh", 2, "the cable")
    without = build_report(make_bundle(aa=None))
    assert without.session is not None
    assert (without.session.aa, without.session.smallest_effect) == (None, None)
    assert any("ran no second copy of the reference" in note for note in without.notes)


def test_what_the_others_are_compared_with_did_not_run(make_bundle: Make) -> None:
    wrong = np.ones((200, 3), np.float32)
    variants = {
        "r": {"role": "reference", "error": "no memory"},
        "s": {},
        "baseline-s": {"role": "baseline", "reference": wrong},
    }
    notes = build_report(make_bundle(variants)).notes
    assert "r did not run, so nothing is compared with it: no memory" in notes
    assert any(note.startswith("baseline-s fails its own parity: ") for note in notes)
    assert any("the reference did not run twice: no memory" in note for note in notes)
    few = build_report(make_bundle(rounds=9)).notes
    assert any("No A/A: it needs 10 rounds, found 9" in note for note in few)


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


def test_nothing_heavy_is_imported() -> None:
    heavy = ("torch", "timm", "transformers", "onnxruntime", "openvino", "scipy", "sklearn")
    code = f"import compressor.report, sys; sys.exit(', '.join(set({heavy}) & set(sys.modules)) or None)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_waiting_and_idle_power_are_told_where_there_was_any(make_bundle: Make) -> None:
    told = build_report(make_bundle(session={"waited_s": 41.6, "idle_watts": 3.25})).notes
    assert "It waited 42 s for another measurement on this machine to end." in told
    assert "Power before the first model was loaded: 3.25 W (over 1 s)." in told
    assert not any("waited" in note or "Power" in note for note in build_report(make_bundle()).notes)
