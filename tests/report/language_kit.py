"""A language model's bundle in which every number is known, and nothing is a model."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.files.atomic import file_sha256
from compressor.schema.language.bundle import LanguageBundle
from tests.report.conftest import MACHINE, PLAYED, profile, student

__all__ = ["NATS", "SIZES", "write_bundle"]

Values = dict[str, Any]
NATS = {"validation": [1.0, 2.0, 1.5], "test": [1.0, 2.0, 3.0, 4.0, 2.0]}
"""What each token of each document costs torch: documents of 4 tokens that count, in a block each."""
SIZES = {"validation": [10, 12, 14], "test": [8, 16, 8, 16, 12]}
ROUNDS = 30
TARGETS = [{"runtime": "onnxruntime-genai", "precisions": ["fp32", "int8"]}]
PREPROCESS = {"tokenizer": "0" * 64, "vocabulary": 50, "max_length": 8, "start_id": 1, "end_id": 0}


class Writer:
    """Writes files into a bundle and lists them as its manifest does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.entries = folder, list[Values]()

    def file(self, path: str, content: bytes) -> Values:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)
        entry = {"path": path, "sha256": file_sha256(self.folder / path), "bytes": len(content)}
        self.entries.append(entry)
        return entry

    def array(self, path: str, values: NDArray[Any]) -> str:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / path, values)
        self.file(path, (self.folder / path).read_bytes())
        return path


def tokens_of(split: str) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Of which document each token is, and its log-probability; the first of each block is asked of nobody."""
    documents = [[-1, *[number] * 4] for number in range(len(NATS[split]))]
    scores = [[0.0, *[-nats] * 4] for nats in NATS[split]]
    return np.array(documents, np.int32).ravel(), np.array(scores, np.float32).ravel()


def corpus(write: Writer, split: str) -> Values:
    documents, scores = tokens_of(split)
    write.file(f"eval/{split}.npz", b"for runners alone")
    return {
        "split": split,
        "n": len(SIZES[split]),
        "tokens": len(documents),
        "blocks": f"eval/{split}.npz",
        "documents": write.array(f"eval/{split}_documents.npy", documents),
        "bytes": write.array(f"eval/{split}_bytes.npy", np.array(SIZES[split])),
        "torch": write.array(f"eval/{split}_torch.npy", scores),
        "contents": "0" * 64,
    }


def variant(write: Writer, name: str, changes: Values) -> Values:
    runtime, _, precision = name.rpartition("-")
    model = write.file(f"models/{name}/model.onnx", name.encode() * changes.get("repeat", 10_000))
    write.entries.pop()
    return {
        "name": name,
        "role": changes.get("role", "student"),
        "runtime": runtime,
        "precision": precision,
        "runner": "run_ort_genai.py",
        "model": f"models/{name}",
        "files": [model],
        "made": "built",
        "weight_bytes": {"float32" if precision == "fp32" else precision: 1000},
    }


def contestant(write: Writer, name: str, changes: Values) -> Values:
    """One that answers as torch, but for `worse` nats a token on both splits, or `test_worse` on test alone."""
    precision = name.removesuffix("-again").rpartition("-")[2]
    base: Values = {"variant": name, "requested_precision": precision, "threads": changes.get("threads", 2)}
    if "error" in changes:
        return {**base, "error": changes["error"]}
    files: Values = {}
    for split in NATS:
        documents, scores = tokens_of(split)
        worse = changes.get("worse", 0.0) + (changes.get("test_worse", 0.0) if split == "test" else 0.0)
        scores[documents >= 0] -= worse
        if changes.get("nan"):
            scores[1] = np.nan
        path = write.array(f"measurements/{name}.{split}.npy", scores)
        write.entries.pop()
        files |= {split: Path(path).name, f"{split}_sha256": file_sha256(write.folder / path)}
    return {
        **base,
        "artefact_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "runtime_version": "0.18.0",
        "executed_precision": changes.get("executed", precision),
        "starts": [{"start_ms": 900, "load_ms": load, "first_ms": 5} for load in (200, 210, 190)],
        "idle_rss_mb": 40.0,
        "peak_rss_mb": changes.get("peak", 100.0),
        **files,
    }


def blocks(name: str, changes: Values, new_tokens: int) -> list[Values]:
    """`rate` tokens a second, and ten times as many of the prompt, each answer a little different."""
    rate = changes.get("rate", 100.0)
    made = []
    for number in range(changes.get("rounds", ROUNDS)):
        off = 1 + 0.002 * ((number * 7) % 11 - 5)
        token = 1000 / rate * off
        made.append(
            {"round": number, "variant": name, "prompt_ms": 1000 * 16 / (10 * rate) * off,
             "token_ms": [token] * (new_tokens - 1)}
        )  # fmt: skip
    return made


def write_bundle(
    folder: Path, budget: Values, variants: dict[str, Values], *, measured: bool = True, teacher: bool = True,
    **changes: Any,
) -> Path:  # fmt: skip
    """`variants`: name -> what differs from one that answers as torch does. `changes`: of the profile."""
    write = Writer(folder)
    record = student(0) | {
        "task": "causal-lm", "family": "hf", "preprocess": PREPROCESS, "architecture": "llama",
    }  # fmt: skip
    score = {"split": "val", "n": 3, "tokens": 12, "bytes": 36, "bits_per_byte": 0.7, "low": None, "high": None,
             "perplexity": 4.5, "perplexity_low": None, "perplexity_high": None}  # fmt: skip
    record |= {"validation": score, "test": {**score, "split": "test"}}
    corpora = [corpus(write, split) for split in ("validation", "test")]
    prompts = write.file("eval/prompts.json", json.dumps([[1] * 16] * 3).encode())["path"]
    costs = None
    if teacher:  # a tenth less than the student, by a tokenizer of its own
        nats = 0.9 * 4 * np.array(NATS["test"])
        costs = write.array(
            "eval/teacher_test.npy", np.stack([nats, np.full(5, 3.0), np.array(SIZES["test"], float)], axis=1)
        )
    write.file("runners/run_ort_genai.py", b"")
    asked = profile(budget, targets=TARGETS, **changes)
    told = [variant(write, name, changed) for name, changed in variants.items()]
    bundle = LanguageBundle.model_validate(
        {
            "kdc": "0.1.0", "profile": asked, "student": record, "preprocess": PREPROCESS, "teacher": record["teacher"],
            "teacher_costs": costs, "reference": next(iter(variants)), "corpora": corpora,
            "answers": {"prompts": prompts, "count": 3, "prompt_tokens": 16, "new_tokens": 8},
            "score_batch": 4, "most_tokens": 64, "variants": told, "support": write.entries,
        }
    )  # fmt: skip
    (folder / "bundle.json").write_text(bundle.model_dump_json())
    if measured:
        write_measurement(write, variants)
    return folder


def write_measurement(write: Writer, variants: dict[str, Values]) -> None:
    first = next(iter(variants))
    ran = {**variants, f"{first}-again": variants[first]}
    told = [contestant(write, name, changed) for name, changed in variants.items()]
    kept = ("validation", "validation_sha256", "test", "test_sha256")
    again = {key: value for key, value in told[0].items() if key not in kept}
    values = {
        "schema": 1, "task": "causal-lm", "started": "2026-11-30T20:00:00Z", "finished": "2026-11-30T20:01:00Z",
        "device": "local", "waited_s": 0.0, "prompts": 3, "prompt_tokens": 16, "new_tokens": 8, "seed": 0,
        "machine_before": MACHINE, "machine_after": MACHINE,
        "contestants": [*told, {**again, "variant": f"{first}-again", "copy_of": first}],
        "rounds": [{"number": number, **PLAYED} for number in range(ROUNDS)],
        "blocks": [
            block for name, changed in ran.items() if "error" not in changed for block in blocks(name, changed, 8)
        ],
    }  # fmt: skip
    write.file("measurements/measurement.json", json.dumps(values).encode())
