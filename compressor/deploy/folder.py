"""Writes BUNDLE/best/: the model that was chosen, and all that somebody needs who has only this folder."""

import shutil
from pathlib import Path

from compressor import __version__
from compressor.assets import asset_dir
from compressor.deploy.examples import EXAMPLES, Example
from compressor.deploy.picture import cpp_header, model_input
from compressor.deploy.readme import to_readme
from compressor.deploy.sbom import to_cyclonedx
from compressor.errors import KdcError, os_error
from compressor.spec.base import file_sha256, read_json, write_json, write_text
from compressor.spec.bundle import Bundle, FileEntry, Variant
from compressor.spec.manifest import Manifest, ModelInput
from compressor.spec.report import Report, Row

__all__ = ["ship", "write_best"]

SHARED = ("classify_pictures.py", "classify_files.py")
SHARED_CPP = ("classify_pictures.hpp", "CMakeLists.txt")


def ship(bundle_dir: Path, report: Report) -> None:
    """Make BUNDLE/best/ of what the report chose; where it chose nothing, there is none. Raises KdcError."""
    try:
        for left in (".best.part", ".best.old"):  # by a process that was killed
            if (bundle_dir / left).exists():
                shutil.rmtree(bundle_dir / left)
        if report.winner is None and (bundle_dir / "best").exists():
            shutil.rmtree(bundle_dir / "best")
    except OSError as error:
        raise os_error(error, f"clearing {bundle_dir}") from error
    if report.winner is None:
        return
    bundle = read_json(bundle_dir / "bundle.json", Bundle)
    variant = next(one for one in bundle.variants if one.name == report.winner)
    row = next(one for one in report.rows if one.name == report.winner)
    write_best(bundle_dir, bundle, variant, row=row, why=report.why)


def write_best(
    bundle_dir: Path,
    bundle: Bundle,
    variant: Variant,
    *,
    row: Row | None = None,
    why: str = "",
) -> None:
    """Make BUNDLE/best/ of `variant`: whole, or not at all; an earlier one is replaced.

    `row`: the variant's in the report, where it was measured; `why`: why it was chosen. The example
    classifies one picture a call where the batch may vary. Raises KdcError.
    """
    best, temporary = bundle_dir / "best", bundle_dir / ".best.part"
    example = EXAMPLES[variant.runtime]
    batch = 1 if variant.dynamic_batch else bundle.profile.batch
    given = model_input(variant.preprocess, batch, variant.picture_type)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _fill(temporary, bundle_dir, bundle, variant, example, given, row, why)
        _swap(temporary, best)
    except OSError as error:
        raise os_error(error, f"writing {best}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(
    folder: Path,
    bundle_dir: Path,
    bundle: Bundle,
    variant: Variant,
    example: Example,
    given: ModelInput,
    row: Row | None,
    why: str,
) -> None:
    source, *others = _copy_model(folder, bundle_dir, variant)
    model = "model.engine" if variant.build else source
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in bundle.student.class_names))
    write_json(folder / "preprocess.json", given)
    _copy_examples(folder, example, variant.build)
    if example.cpp:
        write_text(folder / "preprocess.h", cpp_header(given, model))
    manifest = Manifest(
        name=f"{bundle.student.architecture}-{variant.name}",
        variant=variant.name,
        runtime=variant.runtime,
        install=example.install,
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
    write_text(folder / "README.md", to_readme(manifest, example, sum(entry.bytes for entry in variant.files)))
    manifest = manifest.model_copy(update={"files": _entries(folder)})
    numpy = bundle.student.environment.packages.get("numpy")
    write_text(folder / "sbom.cdx.json", to_cyclonedx(manifest, example, numpy, (source, *others)))
    write_json(folder / "manifest.json", manifest.model_copy(update={"files": _entries(folder)}))


def _copy_model(folder: Path, bundle_dir: Path, variant: Variant) -> tuple[str, ...]:
    """Copy the variant's files, checked against the bundle's sums; their paths in `folder`, the model's first."""
    place = Path(variant.model).parent
    found = []
    for entry in variant.files:
        path = Path(entry.path).relative_to(place)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle_dir / entry.path, folder / path)
        if file_sha256(folder / path) != entry.sha256:
            raise KdcError(
                f"{bundle_dir / entry.path} is not the file that was exported (its sha256 differs)",
                f"kdc check {bundle_dir}",
            )
        found.append(path.as_posix())
    model = Path(variant.model).name
    return (model, *(path for path in found if path != model))


def _copy_examples(folder: Path, example: Example, build: str | None) -> None:
    targets = asset_dir("targets")
    names = {name: name for name in (*SHARED, *example.beside, *((build,) if build else ()))}
    names[example.python] = "classify.py"
    if example.cpp:
        names |= {name: name for name in SHARED_CPP}
        names[example.cpp] = "classify.cpp"
    for name, shipped in names.items():
        shutil.copyfile(targets / name, folder / shipped)


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return tuple(
        FileEntry(path=path, sha256=file_sha256(folder / path), bytes=(folder / path).stat().st_size) for path in paths
    )


def _swap(temporary: Path, best: Path) -> None:
    """Put the new folder in the place of the old one, which goes only then."""
    old = best.with_name(".best.old")
    shutil.rmtree(old, ignore_errors=True)
    if best.exists():
        best.rename(old)
    temporary.rename(best)
    shutil.rmtree(old, ignore_errors=True)
