"""What is for language models alone does not reach classifiers."""

import json
from pathlib import Path

import pytest

from compressor import KdcError
from compressor.export.builders import builder_of
from compressor.export.bundle.build import sources_of
from compressor.export.bundle.variants import Delivery
from compressor.profiles import load_profile, write_new_profile
from compressor.runtimes import RUNTIMES
from compressor.schema.measurement import Machine
from compressor.schema.profile import Budget
from tests.report.conftest import MACHINE, student

GENERATING = [name for name, row in RUNTIMES.items() if row.generates]


@pytest.mark.parametrize("runtime", GENERATING)
def test_a_classifier_is_not_built_for_a_runtime_that_generates_text(runtime: str) -> None:
    with pytest.raises(KdcError, match=f"{runtime} generates text, and runs language models alone") as caught:
        builder_of(runtime)
    assert "onnxruntime, openvino" in caught.value.hint
    target = f"targets=[{{runtime: {runtime}, precisions: [int8]}}]"
    with pytest.raises(KdcError, match="runs language models alone"):
        Delivery().require_possible(load_profile("x86-avx2", [target]))


def test_what_can_be_baked_is_told_without_them() -> None:
    profile = load_profile("x86-avx2", ["targets=[{runtime: litert, precisions: [fp32]}]"])
    for delivery in (Delivery(bake=True), Delivery(dynamic_batch=True)):
        with pytest.raises(KdcError, match="possible: onnxruntime") as caught:
            delivery.require_possible(profile)
        assert "genai" not in caught.value.message


def test_a_budget_of_tokens_a_second_is_refused_for_classifiers(tmp_path: Path) -> None:
    (tmp_path / "student.json").write_text(json.dumps(student(4)))
    profile = load_profile("x86-avx2", ["budget.min_tokens_per_s=5"])
    with pytest.raises(KdcError, match="min_tokens_per_s: of language models alone") as caught:
        sources_of(tmp_path, profile, teacher=None, retrain=None, delivery=Delivery())
    assert caught.value.hint == "--set budget.min_tokens_per_s=null"


def test_which_lines_of_a_budget_are_of_which_models() -> None:
    budget = Budget(p50_ms=1, size_mb=1, min_retention=0.9, min_tokens_per_s=3, min_class_recall=None, min_accuracy=0.5)
    assert budget.of_classifiers == ("min_accuracy", "p50_ms")
    assert budget.of_generation == ("min_tokens_per_s",)


def test_a_new_profile_names_runtimes_of_classifiers(tmp_path: Path) -> None:
    """Language models go by the same rows."""
    working = {"onnxruntime": ["fp32", "int8"], "onnxruntime-genai": ["fp32", "int8", "int4"]}
    path = write_new_profile("here", tmp_path, Machine.model_validate(MACHINE), working)
    assert [target.runtime for target in load_profile(str(path)).targets] == ["onnxruntime"]
