"""Writes BUNDLE/best/: the model that was chosen, and all that somebody needs who has only this folder."""

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from compressor import __version__
from compressor.assets import asset_dir
from compressor.deploy.readme import to_readme
from compressor.deploy.sbom import to_cyclonedx
from compressor.errors import KdcError, os_error
from compressor.files.atomic import TEMPORARY, file_sha256
from compressor.files.bundle_change import new_folder
from compressor.files.bundle_folder import BEST, files_of
from compressor.runtimes import RUNTIMES, Example
from compressor.schema.base import Noun, read_json
from compressor.schema.bundle import Bundle, FileEntry, Variant
from compressor.schema.language.manifest import LanguageManifest
from compressor.schema.manifest import Manifest
from compressor.schema.report import Report, Row
from compressor.tasks.table import shipping_of

__all__ = [
    "MANIFEST",
    "clear_best",
    "differences",
    "entries_of",
    "json_of",
    "manifest_of",
    "problems_of_best",
    "put_best",
    "sha256_of",
    "ship",
    "write_best",
]

MANIFEST = "manifest.json"


def ship(bundle_dir: Path, report: Report, device: str = "") -> None:
    """Make BUNDLE/best/ of what the report chose, or best/ in the folder `device` of one of several devices; where it
    chose nothing, there is none. Raises KdcError."""
    if report.winner is None:
        clear_best(bundle_dir, device)
        return
    bundle, variant, row = _chosen(bundle_dir, report, report.winner)
    write_best(bundle_dir, bundle, variant, row=row, why=report.why, device=device)


def clear_best(bundle_dir: Path, device: str = "") -> None:
    """Remove best/, where there is one. Raises KdcError."""
    try:
        if (bundle_dir / device / BEST).exists():
            shutil.rmtree(bundle_dir / device / BEST)
    except OSError as error:
        raise os_error(error, f"clearing {bundle_dir}") from error


def _chosen(bundle_dir: Path, report: Report, winner: str) -> tuple[Bundle, Variant, Row]:
    bundle = read_json(bundle_dir / "bundle.json", Bundle)
    variant = next(candidate for candidate in bundle.variants if candidate.name == winner)
    return bundle, variant, next(candidate for candidate in report.rows if candidate.name == winner)


def write_best(
    bundle_dir: Path,
    bundle: Bundle,
    variant: Variant,
    *,
    row: Row | None = None,
    why: str = "",
    device: str = "",
) -> None:
    """Make BUNDLE/best/ of `variant`: whole, or not at all; an earlier one is replaced.

    `row`: the variant's in the report, where it was measured; `why`: why it was chosen; `device`: see
    `ship`. The example classifies one image a call where the batch may vary. Raises KdcError.
    """
    models = _models(variant)
    put_best(bundle_dir, models, _written(bundle_dir, bundle, variant, models, row, why), device)


def put_best(bundle_dir: Path, models: dict[str, FileEntry], written: dict[str, bytes], device: str = "") -> None:
    """Make best/ of files of the bundle and of what is `written` beside them, both by their paths in it: whole, or not
    at all; an earlier one is replaced. Raises KdcError."""
    best = bundle_dir / device / BEST
    temporary = None
    try:
        temporary = new_folder(best.parent, BEST)
        for path, entry in models.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle_dir / entry.path, temporary / path)
            if file_sha256(temporary / path) != entry.sha256:
                raise KdcError(
                    f"{bundle_dir / entry.path} is not the file that was exported (its sha256 differs)",
                    f"kdc check {bundle_dir}",
                )
        for path, content in written.items():
            (temporary / path).write_bytes(content)
        _swap(temporary, best)
    except OSError as error:
        raise os_error(error, f"writing {best}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def problems_of_best(bundle_dir: Path, report: Report, device: str = "") -> list[str]:
    """What keeps BUNDLE/best/ from being the variant that `report`, just recomputed, chooses: a line each, that begins
    with a path in the bundle; `device`: see `ship`. Of a best/ that another version of kdc made, its example programs
    are not compared.
    """
    best, name = bundle_dir / device / BEST, f"{device}{BEST}"
    manifest, problems = manifest_of(best, name, Manifest, report.winner)
    if manifest is None or report.winner is None:
        return problems
    bundle, variant, row = _chosen(bundle_dir, report, report.winner)
    models = _models(variant)
    written = _written(bundle_dir, bundle, variant, models, row, report.why)
    wanted = {path: entry.sha256 for path, entry in models.items()}
    if manifest.kdc == __version__:
        wanted |= {path: sha256_of(content) for path, content in written.items()}
    else:
        described = ("labels.txt", "preprocess.json", *shipping_of(variant.task).beside)
        recorded = {file.path: file.sha256 for file in manifest.files} | {MANIFEST: file_sha256(best / MANIFEST)}
        wanted = recorded | wanted | {path: sha256_of(written[path]) for path in described}
    return differences(best, name, report.winner, wanted)


M = TypeVar("M", Manifest, LanguageManifest)


def manifest_of(best: Path, name: str, noun: type[M], winner: str | None) -> tuple[M | None, list[str]]:
    """The manifest of best/, called `name`, where it is that of the `winner`; else None and what is wrong, which may be
    nothing where there is neither."""
    if winner is None:
        return None, [f"{name} ships a model, but the report chooses none"] if best.exists() else []
    if not (best / MANIFEST).is_file():
        return None, [f"{name}/{MANIFEST} is missing, though the report chooses {winner}"]
    try:
        manifest = read_json(best / MANIFEST, noun)
    except KdcError as error:
        said = error.message.replace(f"{best / MANIFEST}", "").lstrip(": ")
        return None, [f"{name}/{MANIFEST} cannot be read: {said}"]
    if manifest.variant != winner:
        return None, [f"{name} is {manifest.variant}, but the report chooses {winner}"]
    return manifest, []


def differences(best: Path, name: str, winner: str, wanted: Mapping[str, str]) -> list[str]:
    """How the files of best/ differ from those that are wanted, path -> sha256."""
    digests = {path: file_sha256(best / path) for path in files_of(best)}
    missing = [f"{name}/{path} is missing" for path in wanted if path not in digests]
    changed = [path for path in digests if path in wanted and digests[path] != wanted[path]]
    foreign = [path for path in digests if path not in wanted]
    return [
        *missing,
        *(f"{name}/{path} is not that of {winner}" for path in changed),
        *(f"{name}/{path} does not belong to {winner}" for path in foreign),
    ]


def _models(variant: Variant) -> dict[str, FileEntry]:
    """The variant's files by their paths in best/, the model's first."""
    folder = Path(variant.model).parent
    entries = {Path(entry.path).relative_to(folder).as_posix(): entry for entry in variant.files}
    return dict(sorted(entries.items(), key=lambda item: item[0] != Path(variant.model).name))


def _written(
    bundle_dir: Path, bundle: Bundle, variant: Variant, models: dict[str, FileEntry], row: Row | None, why: str
) -> dict[str, bytes]:
    """All the other files of best/ by their paths: what describes the model, and the example programs."""
    runtime = RUNTIMES[variant.runtime]
    example = runtime.example
    batch = 1 if variant.dynamic_batch else bundle.profile.batch
    source = Path(variant.model).name
    model = "model.engine" if variant.build else source
    contents = {"labels.txt": "".join(f"{name}\n" for name in bundle.student.class_names).encode()}
    shipping = shipping_of(variant.task)
    contents |= {name: (bundle_dir / name).read_bytes() for name in shipping.beside}
    programs = {} if example is None else shipping.programs(example)
    contents |= shipping.input_files(variant, batch, model, cpp="classify.cpp" in programs)
    names = programs | ({variant.build: variant.build} if variant.build else {})
    contents |= {shipped: (asset_dir("targets") / name).read_bytes() for shipped, name in names.items()}
    manifest = Manifest(
        name=f"{bundle.student.architecture}-{variant.name}",
        variant=variant.name,
        runtime=variant.runtime,
        install=" ".join([(example and example.install) or runtime.on_device, *shipping.packages]),
        runtime_version=row.runtime_version if row else None,
        precision=variant.precision,
        executed_precision=row.executed_precision if row else None,
        model=model,
        source=source if variant.build else None,
        build=variant.build,
        classes=len(bundle.student.class_names),
        student=(variant.weights or bundle.student.weights).model_copy(
            update={"architecture": bundle.student.architecture}
        ),
        teacher=bundle.teacher,
        data=bundle.student.data.source,
        data_licence="unknown",
        profile=bundle.profile.name,
        kdc=__version__,
        accuracy=row.accuracy if row else None,
        chosen=why,
        made=variant.made,
        files=(),
    )
    contents["README.md"] = to_readme(
        manifest, shipping, _as_shipped(example, programs), sum(entry.bytes for entry in variant.files)
    ).encode()
    manifest = manifest.model_copy(update={"files": entries_of(models, contents)})
    numpy = bundle.student.environment.packages.get("numpy")
    contents["sbom.cdx.json"] = to_cyclonedx(manifest, runtime, shipping, numpy, tuple(models)).encode()
    return {**contents, MANIFEST: json_of(manifest.model_copy(update={"files": entries_of(models, contents)}))}


def _as_shipped(example: Example | None, programs: dict[str, str]) -> Example | None:
    """The programs that ship of this task: perhaps none, or none in C++."""
    if example is None or not programs:
        return None
    return example if "classify.cpp" in programs else replace(example, cpp="")


def entries_of(models: dict[str, FileEntry], written: dict[str, bytes]) -> tuple[FileEntry, ...]:
    """All files of best/, with paths in it."""
    entries = {path: entry.model_copy(update={"path": path}) for path, entry in models.items()}
    for path, content in written.items():
        entries[path] = FileEntry(path=path, sha256=sha256_of(content), bytes=len(content))
    return tuple(entries[path] for path in sorted(entries))


def json_of(value: Noun) -> bytes:
    """A noun as it lies in best/."""
    return (value.model_dump_json(indent=2) + "\n").encode()


def sha256_of(content: bytes) -> str:
    """Its sha256, in hex."""
    return hashlib.sha256(content).hexdigest()


def _swap(temporary: Path, best: Path) -> None:
    """Put the new folder in the place of the old one, which goes only then."""
    old = best.with_name(f"{TEMPORARY}old.{temporary.name.removeprefix(TEMPORARY)}")
    if best.exists():
        best.rename(old)
    temporary.rename(best)
    shutil.rmtree(old, ignore_errors=True)
