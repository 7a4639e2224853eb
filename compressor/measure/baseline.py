"""An earlier bundle beside the new one: what it predicted, and its student, copied so that both race in the same
rounds."""

import shutil
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.files.atomic import file_sha256
from compressor.files.bundle_change import new_folder
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle, FileEntry, Variant
from compressor.schema.release import Release

__all__ = ["attach_baseline"]

FOLDER, RELEASE = "baseline", "release.json"


def attach_baseline(bundle_dir: Path, baseline_dir: Path | None, release: Release, *, same_test: bool) -> Bundle:
    """Put what `release` says of an earlier bundle into BUNDLE/baseline/, and name it in bundle.json. Where that bundle
    itself lies in `baseline_dir`, what it has of the variants of `bundle_dir` is copied too, so that it races.

    Replaces an earlier baseline. `bundle_dir` is a state that does not count yet (see bundle_change), so that a kill
    between the folder and the manifest leaves nothing that anybody reads. The same runtime and precision make a pair.
    `same_test`: both were tested on the same samples in the same order; else only latencies are compared in the race.
    Raises KdcError where they are made for another batch.
    """
    bundle = read_json(bundle_dir / "bundle.json", Bundle)
    old = None if baseline_dir is None else read_json(baseline_dir / "bundle.json", Bundle)
    if old is not None and old.profile.batch != bundle.profile.batch:
        batches = f"made for batch {old.profile.batch}, this bundle for {bundle.profile.batch}"
        raise KdcError(f"--baseline {baseline_dir} cannot be compared: it is {batches}")
    wanted = {(variant.runtime, variant.precision) for variant in bundle.variants if variant.role == "student"}
    raced = () if old is None else [v for v in old.variants if v.role in ("student", "reference")]
    temporary = None
    try:
        temporary = new_folder(bundle_dir, FOLDER)
        pairs = [variant for variant in raced if (variant.runtime, variant.precision) in wanted]
        copied = [_copy(variant, baseline_dir, temporary) for variant in pairs if baseline_dir is not None]
        write_json(temporary / RELEASE, release)
        told = _entry(temporary, RELEASE)
        shutil.rmtree(bundle_dir / FOLDER, ignore_errors=True)
        temporary.rename(bundle_dir / FOLDER)
    except OSError as error:
        raise os_error(error, f"copying {baseline_dir} into {bundle_dir}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    support = [entry for entry in bundle.support if not entry.path.startswith(f"{FOLDER}/")]
    shared = {entry.path: entry for _, entries in copied for entry in entries}
    attached = bundle.model_copy(
        update={
            "baseline": None if old is None else old.student,
            "baseline_n": None if old is None or same_test else old.eval.n,
            "release": told.path,
            "variants": (*(v for v in bundle.variants if v.role != "baseline"), *(variant for variant, _ in copied)),
            "support": (*support, *shared.values(), told),
        }
    )
    write_json(bundle_dir / "bundle.json", attached)
    return attached


def _copy(variant: Variant, baseline_dir: Path, folder: Path) -> tuple[Variant, list[FileEntry]]:
    """The variant as it lies in the bundle from now on, and the entries of its inputs and reference logits."""
    for path in {*(entry.path for entry in variant.files), variant.inputs, variant.reference_logits}:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(baseline_dir / path, folder / path)
    update = {
        "name": f"{FOLDER}-{variant.name}",
        "role": "baseline",
        "model": f"{FOLDER}/{variant.model}",
        "files": tuple(entry.model_copy(update={"path": f"{FOLDER}/{entry.path}"}) for entry in variant.files),
        "inputs": f"{FOLDER}/{variant.inputs}",
        "reference_logits": f"{FOLDER}/{variant.reference_logits}",
        "raw": None,
    }
    shared = [_entry(folder, path) for path in (variant.inputs, variant.reference_logits)]
    return variant.model_copy(update=update), shared


def _entry(folder: Path, path: str) -> FileEntry:
    file = folder / path
    return FileEntry(path=f"{FOLDER}/{path}", sha256=file_sha256(file), bytes=file.stat().st_size)
