"""What ships of a text classifier, at which lengths it is measured, and how figures by length are told."""

import json
from typing import Any

import numpy as np
import pytest

from compressor.data.records import write_records
from compressor.export.bundle.build import _lengths
from compressor.report.render.lengths import smaller
from compressor.report.rows import _mode
from compressor.runtimes import RUNTIMES
from compressor.schema.measurement import Throughput, Window
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.report import Report, Row
from compressor.tasks.table import shipping_of
from compressor.tasks.text_classification.shipping import text_input


def reading(length: int, **changes: Any) -> TextPreprocess:
    return TextPreprocess(**{"tokenizer": "0" * 64, "vocabulary": 9, "max_length": length, **changes})


@pytest.mark.parametrize(
    ("length", "expected"),
    [(512, (16, 64, 128, 256)), (128, (16, 64, 128)), (48, (16, 48)), (16, (16,)), (8, (8,))],
)
def test_lengths_are_at_most_what_the_model_reads(length: int, expected: tuple[int, ...]) -> None:
    assert reading(length).lengths == expected


def test_lengths_of_a_bundle_are_those_that_both_models_read() -> None:
    student, teacher = reading(128), reading(512)
    assert _lengths(student, 128, teacher) == (0, 16, 64)  # at 128 it is timed anyway
    assert _lengths(teacher, 64, student) == (0, 16, 128)
    assert _lengths(student, 128, None) == (0, 16, 64)


def test_programs_are_for_runtimes_that_take_integers_of_64_bits() -> None:
    shipping = shipping_of("text-classification")
    named = {name: shipping.programs(row.example) for name, row in RUNTIMES.items() if row.example is not None}
    assert {name for name, programs in named.items() if programs} == {"onnxruntime", "openvino"}
    assert named["onnxruntime"]["classify.py"] == "classify_texts_ort.py"
    assert not any(script.endswith(".cpp") for programs in named.values() for script in programs)


@pytest.mark.parametrize(("pair", "takes"), [(None, "a text, or a pair"), (False, "a text with"), (True, "a pair of")])
def test_preprocess_json_says_what_to_do(pair: bool | None, takes: str) -> None:
    told = text_input(reading(48, pair=pair, token_types=2 if pair else 0, pad_id=3), 4)
    assert takes in told.steps[0]
    assert [row.name for row in told.inputs] == [
        "input_ids", *(["token_type_ids"] if pair else []), "attention_mask",
    ]  # fmt: skip
    assert json.loads(told.model_dump_json())["inputs"][0]["shape"] == [4, "tokens"]
    assert "more than 48 tokens" in told.steps[1]


def test_records_tell_their_lengths_and_their_mask(tmp_path: Any) -> None:
    rows = [{"ids": np.arange(5), "mask": np.array([1] * count + [0] * (5 - count))} for count in (2, 5, 3)]
    stored = write_records(iter(rows), rows[0], tmp_path / "x.npy", "mask")
    assert stored.lengths is not None
    assert stored.lengths.tolist() == [2, 5, 3]
    assert stored.request["mask"] == "mask"
    plain = write_records(iter(rows), rows[0], tmp_path / "y.npy")
    assert (plain.lengths, "mask" in plain.request) == (None, False)


def test_tokens_a_second_are_calls_times_tokens() -> None:
    windows = tuple(Window(seconds=2.0, calls=calls, joules=None, tokens=32.0) for calls in (10, 20, 30))
    mode = _mode(Throughput(streams=1, threads=1, windows=windows), 1)
    assert mode is not None
    assert mode.tokens_per_s is not None
    assert (mode.tokens_per_s.median, mode.tokens_per_s.lowest, mode.images_per_s.median) == (320.0, 160.0, 10.0)
    images = _mode(Throughput(streams=1, threads=1, windows=(Window(seconds=1.0, calls=5, joules=None),)), 1)
    assert images is not None
    assert images.tokens_per_s is None


@pytest.mark.parametrize(
    ("student", "said"), [(60, "1.67 (40.0 % less)"), (100, "1.00 (0.0 % less)"), (125, "0.800 (25.0 % more)")]
)
def test_smaller_says_times_and_percent(student: int, said: str) -> None:
    rows = tuple(
        Row.model_construct(role=role, size_bytes=size) for role, size in (("teacher", 100), ("student", student))
    )
    report = Report.model_construct(rows=rows)
    assert smaller(report, rows[1], lambda row: row.size_bytes) == said
