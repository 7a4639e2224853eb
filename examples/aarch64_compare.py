"""Compares a bundle's ONNX Runtime models on this machine with the same under another Python, e.g. an emulated one.

    python examples/aarch64_compare.py BUNDLE SAMPLES COMMAND…    # COMMAND… starts the other Python

Both run the bundle's own runner on its first test samples; of texts, the other one makes their tokens, too. Exit code 1
where the answers or the tokens differ; see aarch64.sh.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# Precision -> the largest difference / the largest logit, and the share of samples with the same top-1. int8 rounds to
# steps: another kernel's last bit can push a value to the next one, and a sample that was near a border over it.
TOLERANCE = {"fp32": (1e-4, 1.0), "fp16": (0.02, 0.99), "int8": (0.05, 0.99)}


def main(bundle: Path, most: int, other: list[str]) -> int:
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    roles = ("student", "reference")
    variants = [one for one in manifest["variants"] if one["runtime"] == "onnxruntime" and one["role"] in roles]
    if not variants:
        print(f"aarch64: {bundle} has no student for onnxruntime", file=sys.stderr)
        return 2
    differ = [one["name"] for one in variants if not same(bundle, one, manifest["profile"]["batch"], most, other)]
    print("Latency is not reported: this machine emulates the processor.")
    return 1 if differ else 0


def same(bundle: Path, variant: dict[str, Any], batch: int, most: int, other: list[str]) -> bool:
    """Whether the variant answers alike; prints a line."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npy"
        np.save(inputs, np.load(bundle / variant["inputs"], mmap_mode="r", allow_pickle=False)[:most])
        if (variant.get("raw") or {}).get("tokenizer"):
            texts = json.loads((bundle / variant["raw"]["samples"]).read_text(encoding="utf-8"))[:most]
            (Path(folder) / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        here, _ = answers(bundle, variant, batch, inputs, [sys.executable])[:2]
        there, executed, tokens = answers(bundle, variant, batch, inputs, other)
    agree = int((here.argmax(axis=1) == there.argmax(axis=1)).sum())
    difference = float(np.abs(here - there).max() / np.abs(here).max())
    most_different, least_agreement = TOLERANCE[variant["precision"]]
    alike = difference <= most_different and agree >= least_agreement * len(here) and not (tokens or {}).get("differ")
    said = f"; {tokens['n'] - tokens['differ']} of {tokens['n']} have the same tokens there" if tokens else ""
    print(
        f"{'same' if alike else 'DIFFERENT'}  {variant['name']}: {agree} of {len(here)} samples have the same top-1; "
        f"logits differ by at most {difference:.1e} of the largest; ran there as {executed}{said}"
    )
    return alike


def answers(
    bundle: Path, variant: dict[str, Any], batch: int, inputs: Path, python: list[str]
) -> tuple[Floats, str, dict[str, Any] | None]:
    """The logits [n, classes] for the samples in `inputs`, the precision that really ran, and of texts, what came of
    their tokens."""
    how, out, texts = variant["preprocess"], inputs.with_name("logits.npy"), inputs.with_name("texts.json")
    fed = {key: how[key] for key in ("mean", "std") if key in how}
    fed |= {"mask": variant["mask"]} if variant.get("mask") else {}
    requests: list[dict[str, Any]] = [
        {"op": "load", "model": str(bundle / variant["model"]), "threads": 1, "precision": variant["precision"]},
        {
            "op": "predict",
            "inputs": str(inputs),
            "batch": batch,
            "out": str(out),
            **fed,
        },
        {"op": "executed"},
    ]
    if texts.exists():
        tokenizer = str(bundle / variant["raw"]["tokenizer"])
        asked = {"task": variant["task"], "samples": str(texts), "inputs": str(inputs), "tokenizer": tokenizer}
        requests.append({"op": "preprocess", "preprocess": how, **asked})
    requests.append({"op": "quit"})
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    command = [*python, str(bundle / "runners" / variant["runner"])]
    ended = subprocess.run(command, input=lines, capture_output=True, text=True)
    replies = [json.loads(line) for line in ended.stdout.splitlines()]
    refused = next((reply for reply in replies if not reply["ok"]), None)
    if refused is not None or len(replies) < len(requests):
        said = refused["message"] if refused else (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise SystemExit(f"aarch64: {variant['name']} does not run with {' '.join(python[-1:])}: {said}")
    logits: Floats = np.load(out, allow_pickle=False)
    return logits, str(replies[2]["executed_precision"]), replies[3] if texts.exists() else None


if __name__ == "__main__":
    if len(sys.argv) < 4 or not sys.argv[2].isdigit() or sys.argv[2] == "0":
        raise SystemExit("usage: python aarch64_compare.py BUNDLE SAMPLES COMMAND…")
    sys.exit(main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), sys.argv[3:]))
