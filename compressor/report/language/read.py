"""Reads what a report on a language model is made of, and refuses what does not fit together, naming the file."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.report.arrays import open_array
from compressor.report.integrity import MEASUREMENT, inside
from compressor.schema.base import read_json
from compressor.schema.language.bundle import Corpus, LanguageBundle
from compressor.schema.language.measurement import LanguageContestant, LanguageMeasurement
from compressor.stats.intervals import Floats, Ints
from compressor.stats.language import Costs

__all__ = ["LanguageResults", "ReadCorpus", "read_results"]

EXPORT_AGAIN = "make the bundle again with `kdc export`"
MEASURE_AGAIN = "measure the bundle again with `kdc measure BUNDLE`"


@dataclass(frozen=True)
class ReadCorpus:
    """A split's tokens: of which document each is, -1 where it does not count [T]; what torch gives each [T]; and the
    bytes of the documents [N]."""

    documents: Ints
    torch: Floats
    bytes: Ints


@dataclass(frozen=True)
class LanguageResults:
    """A bundle and what was measured of it. `corpora`: by split; `teacher`: what the test documents cost it, where it
    could be run; `contestants`: by variant, without the second copy of the reference; `scores`: by variant and split,
    the log-probabilities of the tokens [T], of those that ran."""

    bundle: LanguageBundle
    corpora: dict[str, ReadCorpus]
    teacher: Costs | None
    measurement: LanguageMeasurement | None
    contestants: dict[str, LanguageContestant]
    scores: dict[tuple[str, str], Floats]


def read_results(bundle_dir: Path) -> LanguageResults:
    """Everything in the bundle that figures are made from. Raises KdcError for anything damaged or contradictory."""
    where = bundle_dir / "bundle.json"
    bundle = read_json(where, LanguageBundle)
    if (problem := next(_bundle_problems(bundle), None)) is not None:
        raise KdcError(f"{where} {problem}", EXPORT_AGAIN)
    corpora: dict[str, ReadCorpus] = {corpus.split: _corpus(bundle_dir, corpus) for corpus in bundle.corpora}
    teacher = _teacher(bundle_dir, bundle, len(corpora["test"].bytes))
    results = LanguageResults(bundle, corpora, teacher, None, {}, {})
    if not (bundle_dir / MEASUREMENT).exists():
        return results
    path = inside(bundle_dir, MEASUREMENT, "kdc")
    measurement = read_json(path, LanguageMeasurement)
    if (problem := next(_measurement_problems(measurement, bundle), None)) is not None:
        raise KdcError(f"{path} {problem}", MEASURE_AGAIN)
    contestants = {each.variant: each for each in measurement.contestants if each.copy_of is None}
    scores: dict[tuple[str, str], Floats] = {}
    for name, contestant in contestants.items():
        for split, file in (("validation", contestant.validation), ("test", contestant.test)):
            if file is not None and contestant.error is None:
                at = inside(bundle_dir, f"measurements/{file}", MEASUREMENT)
                scores[name, split] = _floats(at, (bundle.corpus(split).tokens,))
    return replace(results, measurement=measurement, contestants=contestants, scores=scores)


def _corpus(bundle_dir: Path, corpus: Corpus) -> ReadCorpus:
    tokens, n = corpus.tokens, corpus.n
    documents = _ints(inside(bundle_dir, corpus.documents, "bundle.json"), tokens, -1, n - 1)
    sizes = _ints(inside(bundle_dir, corpus.bytes, "bundle.json"), n, 1)
    if not np.bincount(documents[documents >= 0], minlength=n).all():
        raise KdcError(f"{bundle_dir / corpus.documents}: of a document no token counts", EXPORT_AGAIN)
    torch = _floats(inside(bundle_dir, corpus.torch, "bundle.json"), (tokens,))
    if not np.isfinite(torch).all():
        raise KdcError(f"{bundle_dir / corpus.torch}: torch gives a token no probability", EXPORT_AGAIN)
    return ReadCorpus(documents, torch, sizes)


def _teacher(bundle_dir: Path, bundle: LanguageBundle, n: int) -> Costs | None:
    if bundle.teacher_costs is None:
        return None
    path = inside(bundle_dir, bundle.teacher_costs, "bundle.json")
    costs = _floats(path, (n, 3))
    if not np.isfinite(costs).all() or (costs[:, 1:] < 1).any():
        raise KdcError(f"{path}: a document costs the teacher what cannot be", EXPORT_AGAIN)
    return Costs(costs[:, 0], costs[:, 1].astype(np.int64), costs[:, 2].astype(np.int64))


def _floats(path: Path, shape: tuple[int, ...]) -> Floats:
    file = open_array(path)
    if file.shape != shape or file.dtype.kind != "f":
        raise KdcError(f"{path}: expected floats of shape {list(shape)}, found {file.dtype} of {list(file.shape)}")
    return file.read().astype(np.float64)


def _ints(path: Path, count: int, least: int, most: int | None = None) -> NDArray[np.int64]:
    file = open_array(path)
    if file.shape != (count,) or file.dtype.kind not in "iu":
        raise KdcError(f"{path}: expected {count} integers, found {file.dtype} of shape {list(file.shape)}")
    values = file.read().astype(np.int64)
    if values.min() < least or (most is not None and values.max() > most):
        raise KdcError(f"{path}: expected integers from {least}, found {values.min()} to {values.max()}")
    return values


def _bundle_problems(bundle: LanguageBundle) -> Iterator[str]:
    names = [variant.name for variant in bundle.variants]
    if len(set(names)) != len(names):
        yield "names a variant twice"
    if bundle.reference not in names:
        yield f"names {bundle.reference} as its reference, which is none of its variants"
    if {corpus.split for corpus in bundle.corpora} != {"validation", "test"}:
        yield "must hold the validation and the test split"
    if bundle.teacher_costs is not None and bundle.teacher is None:
        yield "has what the test costs a teacher, but says nothing of that teacher"


def _measurement_problems(measurement: LanguageMeasurement, bundle: LanguageBundle) -> Iterator[str]:
    names = {variant.name: variant for variant in bundle.variants}
    heard = [contestant.variant for contestant in measurement.contestants]
    if len(set(heard)) != len(heard):
        yield "names a contestant twice"
    for contestant in measurement.contestants:
        variant = names.get(contestant.copy_of or contestant.variant)
        if variant is None:
            yield f"is of {contestant.variant}, which the bundle does not hold"
        elif contestant.requested_precision != variant.precision:
            yield f"asked {contestant.requested_precision} of {variant.name}, which is {variant.precision}"
    if {block.variant for block in measurement.blocks} - set(heard):
        yield "has answers of a contestant that it does not name"
    asked = bundle.answers
    if (measurement.prompt_tokens, measurement.new_tokens) != (asked.prompt_tokens, asked.new_tokens):
        yield "is of other prompts or answers than the bundle's"
    if any(len(block.token_ms) != asked.new_tokens - 1 or min(block.token_ms) < 0 for block in measurement.blocks):
        yield "has an answer of impossible times"
    blocks = [(block.round, block.variant) for block in measurement.blocks]
    if len(set(blocks)) != len(blocks):
        yield "has two answers of a contestant in one round"
