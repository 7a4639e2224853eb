from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.report import build_report, read_unmeasured, results_with
from compressor.report.read import read_results
from compressor.schema.measurement import Measurement

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Change = Callable[[dict[str, Any]], object]


def copy_of(found: dict[str, Any]) -> dict[str, Any]:
    [copy] = [one for one in found["contestants"] if one.get("copy_of")]
    return dict(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["contestants"][0].update(variant="x"), "variant x, which bundle.json does not have"),
        (lambda found: found["contestants"].append(found["contestants"][0]), "measures variant ort-fp32 twice"),
        (lambda found: found["contestants"][0].update(requested_precision="f16"), "for precision f16"),
        (lambda found: found["contestants"][2].update(requested_precision="f16"), "ort-fp32-again for precision f16"),
        (lambda found: found["contestants"][0].update(artefact_sha256="0" * 64), "other files of ort-fp32 than those"),
        (lambda found: found["contestants"][2].update(artefact_sha256=None), "other files of ort-fp32-again than"),
        (
            lambda found: found["contestants"][2].update(copy_of="teacher"),
            "second copy of teacher, but bundle.json's reference is ort-fp32",
        ),
        (
            lambda found: found["contestants"].append({**copy_of(found), "variant": "third"}),
            "more than one second copy",
        ),
        (
            lambda found: found["contestants"].__setitem__(1, {**copy_of(found), "variant": "teacher"}),
            "but it is a variant of its own",
        ),
        (lambda found: found["contestants"][2].pop("copy_of"), "ort-fp32-again, which bundle.json does not have"),
        (lambda found: found["blocks"][0].update(variant="other"), "block of other"),
        (lambda found: found["blocks"].append(found["blocks"][0]), "two blocks of ort-fp32 in round 0"),
        (lambda found: found["blocks"][0].update(round=40), "in round 40, which is none of its rounds"),
        (lambda found: found["rounds"].pop(3), "in round 3, which is none of its rounds"),
        (lambda found: found["rounds"].append(found["rounds"][3]), "lists round 3 twice"),
        (lambda found: found["rounds"][3].update(wall_s=-1), "round 3 that took less than no time"),
        (lambda found: found["blocks"][0]["wall_ms"].__setitem__(5, 0), "not above 0 in round 0 of ort-fp32"),
        (lambda found: found["blocks"][0]["cpu_ms"].__setitem__(5, -1), "not above 0 in round 0 of ort-fp32"),
        (lambda found: found["blocks"][0]["dropped_ms"].__setitem__(0, 0), "not above 0 in round 0 of ort-fp32"),
        (lambda found: found["blocks"][0]["wall_ms"].pop(), "2 dropped, 5 wall and 6 CPU times in round 0"),
        (lambda found: found["blocks"][0]["dropped_ms"].pop(), "1 dropped, 6 wall and 6 CPU times in round 0"),
        (lambda found: found.update(block_length=9), "but blocks of 9, 2 dropped"),
        (lambda found: found.update(batch=0), "has a batch of 0"),
        (lambda found: found.update(looks=0), "looks"),
        (lambda found: found["contestants"][0]["starts"][0].update(load_ms=0), "start of ort-fp32 with a time"),
        (
            lambda found: found["contestants"][0]["throughput"][0].update(streams=0),
            "throughput of ort-fp32 with 0 streams on 4 threads",
        ),
        (
            lambda found: found["contestants"][0]["throughput"][0]["windows"][0].update(seconds=0),
            "impossible throughput of ort-fp32: 900 calls in 0 s",
        ),
        (
            lambda found: found["contestants"][0]["throughput"][0]["windows"][0].update(joules=-1),
            "impossible throughput of ort-fp32",
        ),
        (lambda found: found.update(surprise=1), "unknown key surprise"),
        (lambda found: found.update(schema=1), "schema"),
    ],
)
def test_a_measurement_that_does_not_fit_is_refused(
    make_bundle: Make, edit_json: Edit, change: Change, said: str
) -> None:
    bundle = make_bundle()
    edit_json(bundle / "measurements/measurement.json", change)
    with pytest.raises(KdcError, match=said) as caught:
        build_report(bundle)
    assert "measurement.json" in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["variants"].append(found["variants"][0]), "names variant ort-fp32 twice"),
        (lambda found: found.update(reference="gone"), "names gone as its reference, which is none of its variants"),
        (lambda found: found.update(reference="teacher"), "teacher as its reference, which has the role teacher"),
        (lambda found: found.update(baseline=None), "says nothing of that baseline"),
        (lambda found: found["variants"][2].update(name="old"), "old of a baseline, whose name must begin"),
        (lambda found: found["variants"][2].update(precision="f16"), "which is f16 on onnxruntime, not fp32 on"),
        (lambda found: found["baseline"].update(class_names=["a", "b", "c"]), "baseline with other classes"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    make_bundle: Make, edit_json: Edit, change: Change, said: str
) -> None:
    variants = {"ort-fp32": {}, "teacher": {"role": "teacher"}, "baseline-ort-fp32": {"role": "baseline"}}
    bundle = make_bundle(variants, measured=False)
    assert len(build_report(bundle).rows) == 3
    edit_json(bundle / "bundle.json", change)
    with pytest.raises(KdcError, match=said) as caught:
        build_report(bundle)
    assert "bundle.json" in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.update(teacher=None), "a table of a teacher's answers, but says nothing of that teacher"),
        (lambda found: found["variants"][1].update(role="teacher"), "both a table .* and a variant of the teacher"),
        (lambda found: found["teacher_table"].update(missing="gone"), "either its kind and where they are, or why"),
        (lambda found: found["teacher_table"].update(kind=None), "either its kind and where they are, or why"),
        (lambda found: found["teacher_table"].update(answers=None), "either its kind and where they are, or why"),
        (lambda found: found.update(teacher_table={}), "either its kind and where they are, or why"),
        (lambda found: found["teacher_table"].update(kind="guesses"), "teacher_table.kind"),
        (lambda found: found["teacher_table"].update(answers="../table.npy"), "which is refused"),
        (lambda found: found["teacher_table"].update(kind="top-k"), "expected 200 integer labels"),
    ],
)
def test_a_table_that_contradicts_the_rest_is_refused(
    make_bundle: Make, edit_json: Edit, change: Change, said: str
) -> None:
    bundle = make_bundle({"a": {}, "b": {}}, table=("logits", np.zeros((200, 3), np.float32)), measured=False)
    assert build_report(bundle).teacher_table is not None
    edit_json(bundle / "bundle.json", change)
    with pytest.raises(KdcError, match=said) as caught:
        build_report(bundle)
    assert "bundle.json" in caught.value.message or "table.npy" in caught.value.message


def test_the_second_copy_is_a_contestant_but_no_variant(make_bundle: Make) -> None:
    bundle = make_bundle()
    results, report = read_results(bundle), build_report(bundle)
    assert results.measurement is not None
    assert [one.variant for one in results.measurement.contestants] == ["ort-fp32", "teacher", "ort-fp32-again"]
    assert list(results.contestants) == ["ort-fp32", "teacher"]
    assert [row.name for row in report.rows] == ["ort-fp32", "teacher"]
    assert {check.variant for check in report.checks} == {"ort-fp32", "teacher"}


def test_a_measurement_in_memory_is_held_to_the_same(make_bundle: Make) -> None:
    bundle = make_bundle()
    results = read_results(bundle)
    assert results.measurement is not None
    assert results_with(results, results.measurement).answers == {}
    unmeasured = read_unmeasured(bundle)
    assert (unmeasured.measurement, unmeasured.contestants, unmeasured.answers) == (None, {}, {})
    values = results.measurement.model_dump()
    values["contestants"][0]["variant"] = "stranger"
    with pytest.raises(KdcError, match="the session measures variant stranger"):
        results_with(unmeasured, Measurement.model_validate(values), "the session")
    (bundle / "measurements/measurement.json").write_text("{}")  # of an older version of kdc, say
    assert read_unmeasured(bundle).measurement is None
