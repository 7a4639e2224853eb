"""The bundle of a language model: every variant that the profile asks for, and all that is needed to measure them."""

import importlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor import __version__
from compressor.assets import runner_scripts
from compressor.errors import KdcError, needs, os_error
from compressor.export.bundle.identity import without_paths
from compressor.export.bundle.variants import entry
from compressor.export.language import build
from compressor.export.quiet import quiet
from compressor.files.atomic import TEMPORARY
from compressor.files.bundle_change import deliver, new_folder
from compressor.models import LoadedModel, load_run
from compressor.models.lineage import data_of, teacher_of
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import FileEntry
from compressor.schema.language.bundle import LanguageBundle, LanguageVariant
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.profile import Profile
from compressor.schema.student import Request, Student
from compressor.tasks.table import TASKS

__all__ = ["asked_of", "export_language_bundle"]

WORK = f"{TEMPORARY}work"
FULL = ("fp32", "f32")
"""Precisions in which a model answers as it does in torch."""
NO_TEACHER = "there is no teacher that can be run: retention cannot be told"


@dataclass(frozen=True)
class Wanted:
    """A variant to build. `judged`: the profile asks for it; else it runs along as the reference."""

    runtime: str
    precision: str
    judged: bool

    @property
    def name(self) -> str:
        return f"{self.runtime}-{self.precision}"


def export_language_bundle(run: Path, profile: Profile, out: Path, *, teacher: str | None, progress: Progress) -> Path:
    """Export the run's model for `profile` into the folder `out`, which is locked and settled, as `export_bundle` does.

    Returns where it is. `teacher`: where the teacher lies now, if it was moved. Raises KdcError.
    """
    asked, notes = asked_of(profile)
    _require_exporters(profile, asked)
    model, record = load_run(run)
    request = read_json(run / "run.json", Request)
    kit: Any = importlib.import_module(TASKS[record.task].generates)
    kit.require_room(model, profile.generation)
    hint = "if it lies elsewhere now: kdc export … --teacher REFERENCE"
    if record.teacher is None and teacher is not None:
        raise KdcError(
            f"--teacher {teacher}: {run} was made by kdc {record.made_by}, and has no teacher", "leave it out"
        )
    taught = None if record.teacher is None else teacher_of(request, record, teacher, hint)
    if taught is None:
        progress.warn(NO_TEACHER)
    else:
        notes = (*notes, *_apart(model, taught))
    for note in notes:
        progress.note(note)
    temporary = None
    try:
        temporary = new_folder(out, "export")
        bundle = _fill(temporary, profile, _Sources(kit, model, taught, record, request), asked, progress)
        write_json(temporary / "bundle.json", bundle.model_copy(update={"notes": tuple(notes)}))
        return deliver(temporary, out)
    except OSError as error:
        raise os_error(error, f"writing {out}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def asked_of(profile: Profile) -> tuple[tuple[Wanted, ...], tuple[str, ...]]:
    """What a profile asks for of a language model: each runtime's full precision first, which is the reference where it
    is not asked for; and in words what of its precisions is left out. Raises KdcError for a runtime that generates no
    text, and where nothing is left of one."""
    judged: dict[str, dict[str, None]] = {}
    notes = []
    for target in profile.targets:
        row = RUNTIMES[target.runtime]
        runtime = target.runtime if row.generates else row.generator
        if not runtime:
            able = [name for name, each in RUNTIMES.items() if each.generates or each.generator]
            raise KdcError(
                f"profile {profile.name}: {target.runtime} generates no text that kdc could build for",
                f"--target with one of {', '.join(able)}, or another --profile",
            )
        known = RUNTIMES[runtime].precisions
        wanted = _synonyms(profile.generation.precisions, known) or target.precisions
        chosen = [precision for precision in wanted if precision in known]
        if left := [precision for precision in wanted if precision not in known]:
            notes.append(
                f"{target.runtime} {', '.join(left)}: language models run there in {', '.join(known)}: left out"
            )
        if not chosen:
            raise KdcError(
                f"profile {profile.name}: {target.runtime} runs language models in {', '.join(known)}, and it names "
                f"{', '.join(wanted)}",
                "--set generation.precisions=[int8]",
            )
        judged.setdefault(runtime, {}).update(dict.fromkeys(chosen))
    return tuple(_variants(judged)), tuple(notes)


def _apart(model: LoadedModel, taught: LoadedModel) -> Iterator[str]:
    ours, theirs = model.preprocess.most_tokens, taught.preprocess.most_tokens
    if ours != theirs:
        yield f"the teacher reads blocks of {theirs} tokens, the student of {ours}: what stands first in one costs more"


def _synonyms(precisions: Sequence[str], known: dict[str, str]) -> list[str]:
    """As the runtime spells them."""
    return ["f32" if name == "fp32" and "f32" in known else name for name in precisions]


def _variants(judged: dict[str, dict[str, None]]) -> Iterator[Wanted]:
    for runtime, precisions in judged.items():
        full = next(name for name in RUNTIMES[runtime].precisions if name in FULL)
        yield Wanted(runtime, full, full in precisions)
        yield from (Wanted(runtime, name, judged=True) for name in precisions if name != full)


def _require_exporters(profile: Profile, asked: Sequence[Wanted]) -> None:
    """Raise KdcError (exit 4) with the line that installs what is missing."""
    for variant in asked:
        row = RUNTIMES[variant.runtime]
        for module in (*row.exports_with, *(() if variant.precision in FULL else row.quantizes_with)):
            with quiet(f"profile {profile.name} needs {module}, which cannot be imported"):
                needs(module, row.export_install or row.install, f"profile {profile.name}")


@dataclass(frozen=True)
class _Sources:
    """What a bundle is made of. `kit`: what the task does for it."""

    kit: Any
    model: LoadedModel
    teacher: LoadedModel | None
    record: Student
    request: Request


def _fill(
    root: Path, profile: Profile, sources: _Sources, asked: Sequence[Wanted], progress: Progress
) -> LanguageBundle:
    """Everything but bundle.json. The test split is written for whoever measures; no choice here sees it."""
    kit, model, record = sources.kit, sources.model, without_paths(sources.record)
    preprocess = model.preprocess
    assert isinstance(preprocess, LanguagePreprocess)
    data = data_of(sources.request, sources.record, progress)
    (root / "eval").mkdir()
    corpora = tuple(kit.write_corpus(model, data, split, root, progress) for split in ("validation", "test"))
    answers = kit.write_prompts(model, data, profile.generation, root)
    costs = None
    if sources.teacher is not None:
        costs = "eval/teacher_test.npy"
        np.save(root / costs, np.stack(kit.costs_in_torch(sources.teacher, data.test, progress), axis=1))
    variants = tuple(_built(root, profile, sources, asked, progress))
    return LanguageBundle(
        kdc=__version__,
        profile=profile,
        student=record,
        preprocess=preprocess,
        teacher=record.teacher,
        teacher_costs=costs,
        reference=variants[0].name,
        corpora=corpora,
        answers=answers,
        score_batch=kit.score_batch(preprocess),
        most_tokens=kit.limit_of(model),
        variants=variants,
        support=_support(root, variants),
    )


def _built(
    root: Path, profile: Profile, sources: _Sources, asked: Sequence[Wanted], progress: Progress
) -> Iterator[LanguageVariant]:
    folder, model, kit = root / WORK, sources.model, sources.kit
    kit.transformers_folder(model, folder)
    asked_for = profile.generation.prompt_tokens + profile.generation.new_tokens
    most = max(model.preprocess.most_tokens or 0, asked_for)
    for wanted in asked:
        progress.note(f"building {wanted.name}")
        path = f"models/{wanted.name}"
        (root / path).parent.mkdir(exist_ok=True)
        made = build(folder, wanted.runtime, wanted.precision, root / path, max_length=most, progress=progress)
        files = sorted(file.relative_to(root).as_posix() for file in (root / path).rglob("*") if file.is_file())
        yield LanguageVariant(
            name=wanted.name,
            role="student" if wanted.judged else "reference",
            runtime=wanted.runtime,
            precision=wanted.precision,
            runner=RUNTIMES[wanted.runtime].runner,
            model=path,
            files=tuple(entry(root, file) for file in files),
            made=made.made,
            weight_bytes=made.weight_bytes,
        )
    shutil.rmtree(folder)


def _support(root: Path, variants: Sequence[LanguageVariant]) -> tuple[FileEntry, ...]:
    (root / "runners").mkdir()
    for name, script in runner_scripts().items():
        shutil.copyfile(script, root / "runners" / name)
    shipped = {file.path for variant in variants for file in variant.files}
    support = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return tuple(entry(root, path) for path in support if path not in shipped)
