"""An earlier bundle's student beside the new one: copied into the bundle, so that both race in the same rounds."""

import shutil
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.files.atomic import file_sha256
from compressor.files.bundle_change import new_folder
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle, FileEntry, Variant

__all__ = ["attach_baseline"]

FOLDER = "baseline"


def attach_baseline(bundle_dir: Path, baseline_dir: Path) -> Bundle:
    """Copy what `baseline_dir` has of the variants of `bundle_dir` into BUNDLE/baseline/ and name it in bundle.json.

    Replaces an earlier baseline. `bundle_dir` is a state that does not count yet (see bundle_change), so that a kill
    between the folder and the manifest leaves nothing that anybody reads. The same runtime and precision make a pair.
    Raises KdcError where the two bundles cannot be compared: other classes, other test samples, another batch, or no
    variant in common.
    """
    bundle, old = read_json(bundle_dir / "bundle.json", Bundle), read_json(baseline_dir / "bundle.json", Bundle)
    _must_compare(bundle_dir, bundle, baseline_dir, old)
    wanted = {(variant.runtime, variant.precision) for variant in bundle.variants if variant.role == "student"}
    pairs = [v for v in old.variants if v.role in ("student", "reference") and (v.runtime, v.precision) in wanted]
    if not pairs:
        has = ", ".join(variant.name for variant in old.variants if variant.role == "student")
        asked = ", ".join(sorted("-".join(pair) for pair in wanted))
        raise KdcError(f"--baseline {baseline_dir} has no variant of this bundle ({asked}); it has: {has}")
    temporary = None
    try:
        temporary = new_folder(bundle_dir, FOLDER)
        copied = [_copy(variant, baseline_dir, temporary) for variant in pairs]
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
            "baseline": old.student,
            "variants": (*(v for v in bundle.variants if v.role != "baseline"), *(variant for variant, _ in copied)),
            "support": (*support, *shared.values()),
        }
    )
    write_json(bundle_dir / "bundle.json", attached)
    return attached


def _must_compare(bundle_dir: Path, bundle: Bundle, baseline_dir: Path, old: Bundle) -> None:
    if bundle_dir.resolve() == baseline_dir.resolve():
        raise KdcError(f"--baseline {baseline_dir} is the bundle itself", "give an earlier one")
    where = f"--baseline {baseline_dir} cannot be compared:"
    if old.student.class_names != bundle.student.class_names:
        raise KdcError(f"{where} it has other classes, or another order of them")
    if old.profile.batch != bundle.profile.batch:
        raise KdcError(f"{where} it is made for batch {old.profile.batch}, this bundle for {bundle.profile.batch}")
    # Names say nothing where the images are known: the same data may have been listed otherwise, or changed.
    known = bundle.eval.contents is not None and old.eval.contents is not None
    names = () if known else ((bundle.eval.ids, old.eval.ids),)
    for path, old_path in (*names, (bundle.eval.labels, old.eval.labels)):
        if file_sha256(bundle_dir / path) != file_sha256(baseline_dir / old_path):
            raise KdcError(
                f"{where} it was tested on other samples ({old_path} differs)", "export both from the same data"
            )
    if known and bundle.eval.contents != old.eval.contents:
        raise KdcError(f"{where} it was tested on other images, or in another order", "export both from the same data")


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
    }
    shared = [_entry(folder, path) for path in (variant.inputs, variant.reference_logits)]
    return variant.model_copy(update=update), shared


def _entry(folder: Path, path: str) -> FileEntry:
    file = folder / path
    return FileEntry(path=f"{FOLDER}/{path}", sha256=file_sha256(file), bytes=file.stat().st_size)
