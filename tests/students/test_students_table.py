"""What is said of measured candidates: the budget, ranks, the front, as text and as CSV. Right values by hand."""

import csv
import io
from typing import Any

import pytest

from compressor.schema.profile import Budget
from compressor.schema.report import Estimate
from compressor.schema.students import Figures, Students
from compressor.students.table import answered, over_budget, rank_agreement, to_csv, to_text, unjudged


def estimate(value: float, around: float = 0.1) -> Estimate:
    return Estimate(value=value, low=value - around, high=value + around, n=12, of="blocks")


def figures(name: str = "net", p50: float | None = 5.0, macs: int = 100, **changes: Any) -> Figures:
    values: dict[str, Any] = {
        "student": f"timm:{name}", "family": "Nets", "input_size": 224, "classes": 10, "runtime": "onnxruntime",
        "runtime_version": "1.32.0", "precision": "fp32", "executed_precision": "fp32", "parameters": 1000,
        "macs": macs, "size_mb": 4.0, "p50_ms": None if p50 is None else estimate(p50),
        "p90_ms": None if p50 is None else estimate(p50 + 1), "peak_rss_mb": 90.0, "model_rss_mb": 20.0, "error": None,
        "measured": "2026-11-29",
    }  # fmt: skip
    return Figures(**values | changes)


@pytest.mark.parametrize(
    ("budget", "admitted", "over"),
    [
        ({}, True, ()),
        ({"p50_ms": 5.1}, True, ()),
        ({"p50_ms": 5.0}, None, ()),
        ({"p50_ms": 4.8}, False, ("p50_ms 4.9 > 4.8",)),
        ({"p90_ms": 5.8, "size_mb": 3.0}, False, ("p90_ms 5.9 > 5.8", "size_mb 4 > 3")),
        ({"model_rss_mb": 20.0, "peak_rss_mb": 90.0}, True, ()),
        ({"model_rss_mb": 19.0}, False, ("model_rss_mb 20 > 19",)),
        ({"min_retention": 0.99}, True, ()),
    ],
)
def test_the_budget_before_training(budget: dict[str, float], admitted: bool | None, over: tuple[str, ...]) -> None:
    """An interval that holds the limit leaves the line open; what needs training is not judged."""
    assert over_budget(figures(), Budget(**budget)) == (admitted, over)


def test_what_was_not_measured_holds_no_line() -> None:
    assert over_budget(figures(model_rss_mb=None), Budget(model_rss_mb=50)) == (
        False,
        ("model_rss_mb was not measured",),
    )
    broken = figures(p50=None, error="it takes 3 dimensions")
    assert over_budget(broken, Budget()) == (False, ("it takes 3 dimensions",))


def test_what_only_training_can_tell() -> None:
    assert unjudged(Budget(p50_ms=3, min_retention=0.9, min_speedup=2)) == (
        "min_speedup", "min_retention", "min_balanced_retention", "min_class_retention",
    )  # fmt: skip
    assert unjudged(Budget(min_balanced_retention=None, min_class_retention=None)) == ()


def test_ranks_and_the_front_are_those_of_a_variant() -> None:
    rows = [
        figures("slow", 9.0, macs=50),  # beaten by all
        figures("middle", 5.0, macs=100),
        figures("large", 7.0, macs=300),
        figures("fast", 2.0, macs=80),
        figures("wasteful", 6.0, macs=90),  # "middle" computes more in less time
        figures("fast", 8.0, macs=80, precision="int8"),
        figures("broken", None, error="no"),
    ]
    answer = answered(rows, Budget(p50_ms=6.5))
    told = [(row.figures.student[5:], row.rank, row.on_front, row.admitted) for row in answer]
    assert told == [
        ("fast", 1, True, True),
        ("middle", 2, True, True),
        ("wasteful", 3, False, True),
        ("large", 4, True, False),
        ("fast", 1, True, False),
        ("slow", 5, False, False),
        ("broken", None, False, False),
    ]


def test_two_as_fast_and_as_large_are_both_on_the_front() -> None:
    assert [row.on_front for row in answered([figures("a"), figures("b")], Budget())] == [True, True]


def test_rank_agreement_is_spearmans() -> None:
    fp32 = [figures(name, time) for name, time in (("a", 1), ("b", 2), ("c", 3), ("d", 4))]
    int8 = [figures(name, time, precision="int8") for name, time in (("a", 2), ("b", 1), ("c", 3), ("e", 9))]
    # Of a, b and c the ranks are 1 2 3 and 2 1 3: 1 - 6 * (1 + 1 + 0) / (3 * 8).
    assert rank_agreement([*fp32, *int8]) == {"onnxruntime-int8": (0.5, 3)}
    assert rank_agreement([*fp32, *int8[:2]]) == {}


@pytest.fixture
def answer() -> Students:
    nothing: dict[str, Any] = {"error": "cannot, be exported", "parameters": None, "macs": None, "size_mb": None}
    rows = [figures("b", 2.0), figures("a", 1.0), figures("c", None, **nothing)]
    long = "it takes long"
    not_screened = {"litert-fp32": long, "litert-int8": long, "tensorrt-fp16": "fp32 stands for it"}
    return Students(
        profile="here", device="this machine", machine="a CPU", batch=1, threads=2, classes=10,
        rows=answered(rows, Budget(p50_ms=1.5)), not_judged=("min_retention",), not_screened=not_screened,
        ranked_against="onnxruntime-fp32", rank_agreement={"openvino-f32": (0.98, 41)}, kept=2, sessions=2, drift=1.04,
    )  # fmt: skip


def test_the_table(answer: Students) -> None:
    lines = to_text(answer).splitlines()
    assert lines[0].split()[:4] == ["student", "px", "variant", "rank"]
    assert lines[1].split() == ["timm:a", "224", "onnxruntime-fp32", "1*", "1", "[0.9,", "1.1]", "2", "4.00", "0.00",
                                "0", "20", "holds"]  # fmt: skip
    assert lines[2].endswith("p50_ms 1.9 > 1.5")
    assert lines[3].startswith("timm:c")
    assert lines[3].endswith("cannot, be exported")
    rest = "\n".join(lines[4:])
    for word in (
        "not screened: litert-fp32, litert-int8: it takes long.", "not screened: tensorrt-fp16: fp32 stands for it.",
        "1.040", "min_retention", "a CPU", "batch 1, 2 threads, 10 classes", "no accuracy",
        "of 12 blocks", "against onnxruntime-fp32, Spearman: openvino-f32 0.980 (n = 41)",
        "2 of 3 rows were kept from an earlier call; measured 2026-11-29.",
    ):  # fmt: skip
        assert word in rest


def test_csv_has_every_figure(answer: Students) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(answer))))
    assert [row["student"] for row in rows] == ["timm:a", "timm:b", "timm:c"]
    first = rows[0]
    assert (first["p50_ms"], first["p50_low"], first["p50_high"], first["blocks"]) == ("1.0", "0.9", "1.1", "12")
    assert (first["admitted"], first["on_front"], first["rank"]) == ("True", "True", "1")
    assert rows[2]["error"] == "cannot, be exported"
    assert (rows[2]["p50_ms"], rows[2]["size_mb"], rows[2]["macs"]) == ("", "", "")
