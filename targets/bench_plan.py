"""The plan of a measuring session, read from the command line and the bundle; and what can go wrong with it.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK_DROPPED = 2  # of a block, the first calls: they pay for the caches that the contestant before left behind
SCHEMA = 2
LANGUAGE, LANGUAGE_SCHEMA = "causal-lm", 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a variant: it becomes a file's name
EXIT_USAGE, EXIT_BUSY, EXIT_MISSING = 2, 3, 4


class BenchError(Exception):
    """The bundle, the command or the place on disk is not in order: nothing can be measured."""

    code = EXIT_USAGE


class BusyError(BenchError):
    """Another measurement runs on this machine."""

    code = EXIT_BUSY


class MissingError(BenchError):
    """A runtime, or numpy, cannot be imported. The message begins with the line that installs it."""

    code = EXIT_MISSING


class AskerGoneError(Exception):
    """Whoever decides with --ask how long to measure has closed the pipe."""


@dataclass(frozen=True)
class Entry:
    """One contestant: a variant of the bundle, or with `copy_of` a second copy of that variant under another name."""

    name: str
    variant: dict[str, Any]
    copy_of: str | None = None


@dataclass(frozen=True)
class Plan:
    """What to measure and how long. `arch`: of the profile's device. `rounds`: in this process, numbered from
    `first_round` on; with `ask` until the first look. `seconds` caps the rounds, once there are enough for a p90.
    `length`: tokens of every sample that the rounds time, where samples vary in that; None: as they are. `lengths`: at
    which latency is measured beside that; 0: each sample as long as it is.
    `fresh_starts`: of each contestant, beside the one that runs the blocks. `window`: seconds of a throughput window;
    None: no throughput. `explain`: calls in which layers are timed, 0: they are not.
    `language`: of a language model's bundle, what its manifest says of corpora and answers; None: of another.
    `out`: where the logits go instead of being published. `wait`: seconds for the machine."""

    bundle: Path
    arch: str
    threads: int
    batch: int
    length: int | None
    lengths: list[int]
    entries: list[Entry]
    rounds: int
    first_round: int
    seconds: float
    seed: int
    block_length: int
    ask: bool
    predict: bool
    fresh_starts: int
    window: float | None
    explain: int
    python: str
    out: Path | None
    wait: float
    language: dict[str, Any] | None = None


def read_plan(args: argparse.Namespace) -> Plan:
    """The command line and BUNDLE/bundle.json together; BenchError where they are not in order."""
    path = Path(args.bundle) / "bundle.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        of_language = manifest.get("task") == LANGUAGE
        if manifest["schema"] != (LANGUAGE_SCHEMA if of_language else SCHEMA):
            read = f"{SCHEMA}, or {LANGUAGE_SCHEMA} of language models"
            raise BenchError(f"{path} has schema {manifest['schema']}, this script reads schema {read}")
        threads, batch = int(manifest["profile"]["threads"]), int(manifest["profile"]["batch"])
        arch = str(manifest["profile"]["fingerprint"]["arch"])
        length = manifest.get("sequence_length")
        lengths = [int(value) for value in manifest.get("lengths", ())]
        if (length is not None and int(length) < 1) or min(lengths, default=0) < 0:
            raise BenchError(f"{path} is damaged: sequence_length {length}, lengths {lengths}")
        for variant in manifest["variants"]:
            (_check_names if of_language else _check)(variant, path)
        language = _language(manifest, args) if of_language else None
        entries = _entries(manifest, args.variant, path)
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BenchError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return Plan(
        bundle=path.parent.resolve(),
        arch=arch,
        threads=threads,
        batch=batch,
        length=length,
        lengths=lengths,
        entries=entries,
        rounds=args.rounds,
        first_round=args.first_round,
        seconds=args.seconds,
        seed=args.seed,
        block_length=args.block_length,
        ask=args.ask,
        predict=not args.no_predict,
        fresh_starts=args.fresh_starts,
        window=None if args.no_throughput else args.window,
        explain=args.explain,
        python=args.python,
        out=_existing(args.out),
        wait=args.wait,
        language=language,
    )


def _language(manifest: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """What is scored, and the prompts that are answered. Raises BenchError for what means nothing there."""
    if args.explain or args.ask:
        raise BenchError("--explain and --ask are not for language models")
    answers = manifest["answers"]
    return {
        "corpora": [(str(corpus["split"]), str(corpus["blocks"])) for corpus in manifest["corpora"]],
        "prompts": str(answers["prompts"]),
        "prompt_tokens": int(answers["prompt_tokens"]),
        "new_tokens": int(answers["new_tokens"]),
        "score_batch": int(manifest["score_batch"]),
    }


def _entries(manifest: dict[str, Any], chosen: list[str] | None, path: Path) -> list[Entry]:
    """The variants asked for, and right after the reference its copy, which tells noise from effects (A/A)."""
    names = [variant["name"] for variant in manifest["variants"]]
    if not names or len(set(names)) != len(names):
        raise BenchError(f"{path} is damaged: it needs variants with names that differ, found {names}")
    unknown = [name for name in chosen or [] if name not in names]
    if unknown:
        raise BenchError(f"{path} has no variant {unknown[0]}; it has: {', '.join(names)}")
    reference = manifest["reference"]
    again = f"{reference}-again"
    if reference not in names or again in names:
        raise BenchError(f"{path} is damaged: the reference {reference!r} is no variant, or {again!r} is one")
    entries = []
    for variant in manifest["variants"]:
        if chosen and variant["name"] not in chosen:
            continue
        entries.append(Entry(variant["name"], variant))
        if variant["name"] == reference:
            entries.append(Entry(again, variant, copy_of=reference))
    return entries


def _existing(out: str | None) -> Path | None:
    if out is None:
        return None
    if not Path(out).is_dir():
        raise BenchError(f"--out {out}: there is no such folder")
    return Path(out).resolve()  # the runners work in the bundle, not here


def _check_names(variant: dict[str, Any], path: Path, *more: str) -> None:
    for key in ("name", "role", "precision", "runner", "model", *more):
        if not isinstance(variant[key], str):
            raise BenchError(f"{path} is damaged: variants[].{key} is not a text")
    if not NAME.fullmatch(variant["name"]):
        raise BenchError(f"{path}: the variant name {variant['name']!r} may have only letters, digits, . _ and -")
    if not re.fullmatch(r"run_\w+\.py", variant["runner"]):
        raise BenchError(f"{path}: variant {variant['name']}: a runner is run_*.py, found {variant['runner']!r}")


def _check(variant: dict[str, Any], path: Path) -> None:
    _check_names(variant, path, "inputs")
    build = variant.get("build")
    if build is not None and not (isinstance(build, str) and re.fullmatch(r"build_\w+\.py", build)):
        raise BenchError(f"{path}: variant {variant['name']}: what builds a model is build_*.py, found {build!r}")
    if build is not None and not isinstance(variant["runtime"], str):
        raise BenchError(f"{path} is damaged: variants[].runtime is not a text")
    files = variant.get("raw")
    if not isinstance(variant.get("mask") or "", str):
        raise BenchError(f"{path} is damaged: variants[].mask is not a text")
    if files is not None and not (isinstance(files["samples"], str) and isinstance(files.get("tokenizer") or "", str)):
        raise BenchError(f"{path} is damaged: variants[].raw does not name files")
    preprocess = variant["preprocess"]
    if any(len(preprocess[key]) != 3 for key in ("mean", "std") if isinstance(preprocess.get(key), list)):
        raise BenchError(f"{path}: variant {variant['name']}: preprocess needs three means and three deviations")
