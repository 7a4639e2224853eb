"""Commands that reports name: whole, however long, and such as help."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, summary, to_html, to_markdown
from compressor.report.next_step import next_step
from compressor.report.render.head import MOST_LINES
from compressor.report.render.markdown import command
from compressor.schema.report import Report
from compressor.terminal.console import rendered_text
from tests.report.conftest import N
from tests.report.test_html import Page

Make = Callable[..., Path]


def many(count: int) -> dict[str, Any]:
    """So many sound variants, and one that ran in another precision."""
    pairs = [(runtime, precision) for runtime in ("onnxruntime", "openvino", "tensorrt", "executorch", "litert")
             for precision in ("fp32", "fp16", "bf16", "int8")]  # fmt: skip
    sound = {f"{runtime}-{precision}": {"runtime": runtime, "precision": precision, "executed": precision}
             for runtime, precision in pairs[:count]}  # fmt: skip
    return {**sound, "bad": {"runtime": "tensorrt-rtx", "precision": "int8", "executed": "fp32"}}


@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_command_is_whole_however_long_it_is(make_bundle: Make, count: int) -> None:
    bundle = make_bundle({**many(count), "t": {"role": "teacher", "p50": 6.0}}, {"p50_ms": 1.0})
    report = build_report(bundle)
    step = next_step(report)
    assert step is not None
    assert step.command.count("--target ") == count
    assert (len(step.command) > 120) == (count > 1)
    text = to_markdown(report)
    assert f"**Next:** `{step.command}`: without what is at fault" in text.splitlines()
    assert text[: text.index("<details>")].rstrip().count("\n") + 1 <= MOST_LINES
    assert step.command in " ".join(Page(to_html(bundle, report)).words.split())
    typed = [line.strip().removesuffix("\\").strip() for line in rendered_text(summary(report, "BUNDLE")).splitlines()]
    assert step.command in " ".join(typed).replace("next ", "")


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("kdc measure a|b", "`kdc measure a|b`"),
        ("kdc measure 'a`b'", "`` kdc measure 'a`b' ``"),
        ("kdc measure 'a``b`'", "``` kdc measure 'a``b`' ```"),
        ("x" * 5_000, f"`{'x' * 5_000}`"),
    ],
)
def test_what_is_typed_is_what_is_shown(typed: str, shown: str) -> None:
    assert command(typed) == shown


def told(report: Report) -> tuple[str, str]:
    step = next_step(report)
    assert step is not None
    return step.command, step.why


def test_of_a_teacher_that_is_a_table_the_line_is_taken_out(make_bundle: Make) -> None:
    """Measuring again, as was said before, would never judge it. Without it, the same bundle passes."""
    table = ("labels", np.arange(N) % 3)
    budget = {"min_speedup": 2, "p50_ms": 9}
    report = build_report(make_bundle({"s": {}}, budget, table=table))
    assert report.verdict == "unmeasured"
    assert told(report) == (
        "kdc export RUN --profile PROFILE.yaml --out BUNDLE --overwrite --set budget.min_speedup=null",
        "min_speedup cannot be judged, since the teacher is a table of answers, which has no latency; p50_ms can",
    )
    assert build_report(make_bundle({"s": {}}, {"p50_ms": 9}, table=table)).verdict == "pass"
    # What fails is said first: taking the line out would not help.
    assert told(build_report(make_bundle({"s": {}}, {"min_speedup": 2, "p50_ms": 0.1}, table=table)))[0].startswith(
        "kdc students"
    )


def test_a_table_that_does_not_answer_the_test_cannot_be_measured_either(make_bundle: Make) -> None:
    why = "outputs:t.csv has 12 of 200 test samples"
    step = told(build_report(make_bundle({"s": {}}, {"min_retention": 0.5, "min_speedup": 2}, table=why)))
    assert step[0].endswith("--set budget.min_speedup=null --set budget.min_retention=null")
    assert step[1] == (
        "min_speedup, min_retention cannot be judged, since the teacher is a table of answers, which has no latency "
        f"and the teacher is a table of answers: {why}; p50_ms can"
    )
