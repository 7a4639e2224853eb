"""Synthetic bundles: every number in them is known, nothing in them is a model."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.files.atomic import file_sha256

N = 200
ROUNDS = 40
FACT = {"source": "made up"}
PREPROCESS = {"input_size": [32, 32], "resize": [32, 32], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
MACHINE: dict[str, Any] = {
    "arch": "x86_64",
    "system": "Linux 6.1",
    "cpu": "Intel(R) Processor N100",
    "isa": ["avx2", "avx_vnni"],
    "cores": 4,
    "usable_cores": 4,
    "affinity": [0, 1, 2, 3],
    "quota_cores": None,
    "quota_throttled_s": 0.0,
    "memory_gb": 8.0,
    "memory_available_gb": 6.0,
    "python": "3.11.2",
    "load_1m": 0.1,
    "steal_s": 0.0,
    "governor": "performance",
    "mhz": 3400.0,
    "max_mhz": 3400.0,
    "temperature_c": 50.0,
    "throttle_count": 0,
    "throttled": None,
    "power_mode": None,
    "gpus": [],
}
# 0.2 s, in which two runners' threads kept 2 of 4 cores busy, and the rest of the machine 0.5 % of it.
PLAYED: dict[str, Any] = {"wall_s": 0.2, "own_cpu_s": 0.4, "busy_cpu_s": 0.404, "steal_s": 0.0, "mhz": 3400.0}
THROUGHPUT: list[dict[str, Any]] = [
    {"streams": 1, "threads": 4, "windows": [{"seconds": 2.0, "calls": calls, "joules": None} for calls in (900, 960)]},
    {
        "streams": 4,
        "threads": 1,
        "windows": [{"seconds": 2.0, "calls": calls, "joules": calls / 80} for calls in (1000, 1040, 1200)],
    },
]
Values = dict[str, Any]


def profile(budget: Values, **changes: Any) -> Values:
    values = {
        "schema": 1,
        "name": "mini-pc",
        "device": {
            "kind": "x86",
            "cpu": {"value": "Intel N100", **FACT},
            "isa": {"value": ["avx2"], **FACT},
            "cores": {"value": 4, **FACT},
        },
        "targets": [{"runtime": "onnxruntime", "precisions": ["fp32"]}],
        "threads": 2,
        "budget": budget,
        "fingerprint": {"arch": "amd64", "cpu": "n100", "isa": ["avx2"], "cores": 4},
    }
    return {**values, **changes}


def student(classes: int) -> Values:
    weights = {"source": "timm:big", "architecture": "big", "sha256": "0" * 64, "licence": "mit", "parameters": 11}
    accuracy = {"split": "val", "n": 9, "correct": 9, "accuracy": 1, "low": 0.7, "high": 1, "balanced": 1}
    return {
        "schema": 1,
        "task": "image-classification",
        "made_by": "distill",
        "family": "timm",
        "architecture": "small_net",
        "init": "pretrained",
        "weights": {**weights, "source": "run", "architecture": "small_net"},
        "class_names": [f"class {index}" for index in range(classes)],
        "preprocess": PREPROCESS,
        "teacher": weights,
        "data": {"source": "folder:flowers", "fingerprint": "0" * 64, "class_names": [], "counts": {}},
        "recipe": {"losses": [{"name": "kd"}]},
        "kept_epoch": 7,
        "kept_rule": "highest validation accuracy",
        "validation": accuracy,
        "test": {**accuracy, "split": "test"},
        "teacher_validation": None,
        "environment": {
            "kdc": "0.1.0",
            "python": "3.11",
            "packages": {},
            "platform": "Linux",
            "cpu": "N100",
            "device": "cpu",
        },
    }


def logits_for(labels: NDArray[np.int64], classes: int, wrong: int) -> NDArray[np.float32]:
    """Logits that are right but for the first `wrong` samples, each sample's a little different."""
    rng = np.random.default_rng(0)
    answers = labels.copy()
    answers[:wrong] = (answers[:wrong] + 1) % classes
    logits = rng.normal(0, 0.2, (len(labels), classes)) + 5 * np.eye(classes)[answers]
    return logits.astype(np.float32)


def blocks_of(name: str, p50: float, rounds: int, spread: float) -> list[Values]:
    """Six timed calls a round, log-normal around `p50` with `spread`; the CPU takes 1.5 times as long as the wall."""
    rng = np.random.default_rng(sum(map(ord, name)))
    times = p50 * np.exp(spread * rng.standard_normal((rounds, 6)))
    return [
        {
            "round": index,
            "variant": name,
            "dropped_ms": [3 * p50, 1.5 * p50],
            "wall_ms": row.tolist(),
            "cpu_ms": (1.5 * row).tolist(),
        }
        for index, row in enumerate(times)
    ]


def second_copy(contestants: list[Values], reference: str) -> Values:
    """The record of the A/A copy: as the reference's, but it predicts nothing and is not run at full tilt."""
    [first] = [contestant for contestant in contestants if contestant["variant"] == reference]
    kept = {key: value for key, value in first.items() if key not in ("throughput", "logits", "logits_sha256")}
    return {**kept, "variant": f"{reference}-again", "copy_of": reference}


class Builder:
    """Writes a bundle: `variants` name -> what differs from a good student (see `contestant`)."""

    def __init__(self, bundle_dir: Path, labels: NDArray[np.int64], classes: int) -> None:
        self.dir, self.labels, self.classes = bundle_dir, labels, classes
        self.artefacts: dict[str, str] = {}

    def file(self, path: str, content: bytes) -> Values:
        (self.dir / path).parent.mkdir(parents=True, exist_ok=True)
        (self.dir / path).write_bytes(content)
        return {"path": path, "sha256": file_sha256(self.dir / path), "bytes": len(content)}

    def array(self, path: str, values: NDArray[Any]) -> Values:
        (self.dir / path).parent.mkdir(parents=True, exist_ok=True)
        np.save(self.dir / path, values)
        return self.file(path, (self.dir / path).read_bytes())

    def json(self, path: str, values: Values) -> None:
        self.file(path, json.dumps(values, indent=1).encode())

    def variant(self, name: str, changes: Values) -> tuple[Values, list[Values]]:
        role = changes.get("role", "student")
        model = self.file(f"{name}/model.onnx", name.encode() * changes.get("repeat", 100_000))
        listed = f"{model['sha256']}  {model['path']}\n"
        self.artefacts[name] = hashlib.sha256(listed.encode()).hexdigest()
        reference = changes.get("reference", logits_for(self.labels, self.classes, changes.get("wrong", 0)))
        inputs = self.array(f"eval/{name}-inputs.npy", np.zeros((2, 4, 4, 3), np.uint8))
        torchs = self.array(f"eval/{name}-logits.npy", reference)
        values = {
            "task": "image-classification",
            "name": name,
            "role": role,
            "runtime": changes.get("runtime", "onnxruntime"),
            "precision": changes.get("precision", "fp32"),
            "runner": "run_ort.py",
            "model": model["path"],
            "files": [model],
            "inputs": inputs["path"],
            "reference_logits": torchs["path"],
            "preprocess": PREPROCESS,
            "parameters": 1_530_000,
            "macs": 56_500_000,
            "made": "exported",
            "weight_bytes": changes.get("weights", {"float32": 600_000, "int64": 64}),
            "compressed_bytes": changes.get("compressed", 500_000),
            **{str(key): changes[key] for key in ("score", "rungs") if key in changes},
        }
        return values, [inputs, torchs]

    def contestant(self, name: str, changes: Values) -> Values:
        base: Values = {
            "variant": name,
            "requested_precision": changes.get("precision", "fp32"),
            "threads": changes.get("threads", 2),
        }
        if "error" in changes:
            return {**base, "error": changes["error"]}
        logits = changes.get("logits", logits_for(self.labels, self.classes, changes.get("wrong", 0)))
        entry = self.array(f"measurements/{name}.npy", logits)
        return {
            **base,
            "artefact_sha256": self.artefacts[name],
            "runtime_version": "1.22.0",
            "executed_precision": changes.get("executed", "fp32"),
            "starts": [{"start_ms": 120.0 + 9 * turn, "load_ms": 12.0 + turn, "first_ms": 8.0} for turn in range(5)],
            "idle_rss_mb": 40.0,
            "peak_rss_mb": changes.get("rss", 61.25),
            "throughput": changes.get("throughput", THROUGHPUT),
            "logits": f"{name}.npy",
            "logits_sha256": entry["sha256"],
        }


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """make_bundle(variants, budget, ...) -> an unsealed bundle. A variant: role, wrong, p50, precision, executed,
    logits, reference, rss, threads, error, runtime, repeat, unmeasured, throughput, weights, compressed, score, rungs,
    role baseline.

    The reference is the first variant that may be one; a second copy of it runs along, `aa` times as long (None: no
    copy). `played`: what every round's record says; `after`: how the machine differs after the session. `table`: of a
    teacher that is one, its kind, and its answers as the array that they are, or why they are missing. `digests`: of
    the test samples, which an earlier kdc did not keep; `ids`: their names."""

    def make(
        variants: dict[str, Values] | None = None,
        budget: Values | None = None,
        *,
        classes: int = 3,
        labels: NDArray[np.int64] | None = None,
        machine: Values | None = None,
        measured: bool = True,
        rounds: int = ROUNDS,
        spread: float = 0.02,
        profile_changes: Values | None = None,
        session: Values | None = None,
        aa: float | None = 1.0,
        played: Values | None = None,
        after: Values | None = None,
        notes: tuple[str, ...] = (),
        table: tuple[str, NDArray[Any]] | str | None = None,
        digests: NDArray[np.uint64] | None = None,
        ids: list[str] | None = None,
    ) -> Path:
        if variants is None:
            variants = {"ort-fp32": {"wrong": 10}, "teacher": {"role": "teacher", "wrong": 6, "p50": 6.0}}
        shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
        build = Builder(tmp_path / "bundle", np.arange(N) % classes if labels is None else labels, classes)
        made = {name: build.variant(name, changes) for name, changes in variants.items()}
        support = [entry for _, entries in made.values() for entry in entries]
        support.append(build.file("runners/run_ort.py", b"print('a runner')"))
        support.append(build.array("eval/labels.npy", build.labels))
        names = ["id"] * len(build.labels) if ids is None else ids
        support.append(build.file("eval/ids.txt", "\n".join(names).encode()))
        tested: Values = {"split": "test", "n": len(build.labels), "labels": "eval/labels.npy", "ids": "eval/ids.txt"}
        if digests is not None:
            support.append(build.array("eval/digests.npy", digests))
            tested |= {"digests": "eval/digests.npy", "contents": hashlib.sha256(digests.tobytes()).hexdigest()}
        teacher_table: Values | None = {"missing": table} if isinstance(table, str) else None
        if isinstance(table, tuple):
            support.append(build.array("eval/table.npy", table[1]))
            teacher_table = {"kind": table[0], "answers": "eval/table.npy"}
        own = [name for name, changes in variants.items() if changes.get("role", "student") in ("student", "reference")]
        old = {**student(classes), "architecture": "old_net"}
        bundle = {
            "schema": 2,
            "profile": profile(budget or {}, **(profile_changes or {})),
            "student": student(classes),
            "teacher": student(classes)["teacher"],
            "baseline": old if any(changes.get("role") == "baseline" for changes in variants.values()) else None,
            "reference": own[0],
            "eval": tested,
            "variants": [values for values, _ in made.values()],
            "support": support,
            "notes": list(notes),
            **({} if teacher_table is None else {"teacher_table": teacher_table}),
        }
        build.json("bundle.json", bundle)
        if not measured:
            return build.dir
        ran = {name: changes for name, changes in variants.items() if not changes.get("unmeasured")}
        contestants = [build.contestant(name, changes) for name, changes in ran.items()]
        if aa is not None and own[0] in ran:
            first = ran[own[0]]
            copy = {**first, "p50": aa * first.get("p50", 2.0)}
            ran[f"{own[0]}-again"] = copy
            contestants.append(second_copy(contestants, own[0]))
        blocks = [
            block
            for name, changes in ran.items()
            if "error" not in changes
            for block in blocks_of(name, changes.get("p50", 2.0), rounds, spread)
        ]
        measurement = {
            "schema": 2,
            "started": "2026-11-24T07:00:00Z",
            "finished": "2026-11-24T07:01:00Z",
            "batch": 1,
            "block_length": 8,
            "block_dropped": 2,
            "distinct_inputs": 32,
            "seed": 0,
            "machine_before": {**MACHINE, **(machine or {})},
            "machine_after": {**MACHINE, **(machine or {}), **(after or {})},
            "contestants": contestants,
            "rounds": [{"number": number, **PLAYED, **(played or {})} for number in range(rounds)],
            "blocks": blocks,
        }
        build.json("measurements/measurement.json", {**measurement, **(session or {})})
        return build.dir

    return make


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[Values], object]], None]:
    """edit_json(path, change): parse, let `change` mutate, write."""

    def edit(path: Path, change: Callable[[Values], object]) -> None:
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values, indent=1))

    return edit
