"""BUNDLE/best/ of a language model: the folder that its runtime loads, a program that writes with it, and what says
what it is."""

from pathlib import Path

from compressor import __version__
from compressor.assets import asset_dir
from compressor.deploy.folder import (
    MANIFEST,
    clear_best,
    differences,
    entries_of,
    json_of,
    manifest_of,
    put_best,
    sha256_of,
)
from compressor.deploy.sbom import to_cyclonedx
from compressor.files.atomic import file_sha256
from compressor.files.bundle_folder import BEST
from compressor.runtimes import RUNTIMES
from compressor.schema.base import read_json
from compressor.schema.bundle import FileEntry
from compressor.schema.language.bundle import LanguageBundle, LanguageVariant
from compressor.schema.language.manifest import LanguageManifest
from compressor.schema.language.report import LanguageReport, LanguageRow
from compressor.stats.language import scored_bits
from compressor.tasks.table import shipping_of

__all__ = ["problems_of_best", "ship"]

PROGRAM, SHARED = "generate.py", "generate_text.py"


def ship(bundle_dir: Path, report: LanguageReport) -> None:
    """Make BUNDLE/best/ of what the report chose; where it chose nothing, there is none. Raises KdcError."""
    if report.winner is None:
        clear_best(bundle_dir)
        return
    models, written = _contents(bundle_dir, report)
    put_best(bundle_dir, models, written)


def problems_of_best(bundle_dir: Path, report: LanguageReport) -> list[str]:
    """What keeps BUNDLE/best/ from being the variant that `report` chooses: a line each. Of a best/ that another
    version of kdc made, the model's files alone are compared with the bundle's."""
    best = bundle_dir / BEST
    manifest, problems = manifest_of(best, BEST, LanguageManifest, report.winner)
    if manifest is None or report.winner is None:
        return problems
    models, written = _contents(bundle_dir, report)
    wanted = {path: entry.sha256 for path, entry in models.items()}
    if manifest.kdc == __version__:
        wanted |= {path: sha256_of(content) for path, content in written.items()}
    else:
        recorded = {file.path: file.sha256 for file in manifest.files}
        wanted = recorded | wanted | {MANIFEST: file_sha256(best / MANIFEST)}
    return differences(best, BEST, report.winner, wanted)


def _contents(bundle_dir: Path, report: LanguageReport) -> tuple[dict[str, FileEntry], dict[str, bytes]]:
    """The model's files, and all others, by their paths in best/."""
    bundle = read_json(bundle_dir / "bundle.json", LanguageBundle)
    variant = next(each for each in bundle.variants if each.name == report.winner)
    row = next(each for each in report.rows if each.name == report.winner)
    models = {Path(entry.path).relative_to(variant.model).as_posix(): entry for entry in variant.files}
    runtime = RUNTIMES[variant.runtime]
    written: dict[str, bytes] = {}
    if runtime.example is not None:
        programs = {PROGRAM: runtime.example.python, SHARED: SHARED}
        written = {name: (asset_dir("targets") / script).read_bytes() for name, script in programs.items()}
    manifest = _manifest(bundle, variant, row, report.why)
    written["README.md"] = _readme(manifest, PROGRAM in written, variant.size_bytes).encode()
    manifest = manifest.model_copy(update={"files": entries_of(models, written)})
    numpy = bundle.student.environment.packages.get("numpy")
    shipping = shipping_of(bundle.task)
    written["sbom.cdx.json"] = to_cyclonedx(manifest, runtime, shipping, numpy, tuple(models)).encode()
    whole = manifest.model_copy(update={"files": entries_of(models, written)})
    return models, {**written, MANIFEST: json_of(whole)}


def _manifest(bundle: LanguageBundle, variant: LanguageVariant, row: LanguageRow, why: str) -> LanguageManifest:
    student, runtime = bundle.student, RUNTIMES[variant.runtime]
    return LanguageManifest(
        name=f"{student.architecture}-{variant.name}",
        variant=variant.name,
        runtime=variant.runtime,
        install=(runtime.example.install if runtime.example else "") or runtime.on_device,
        runtime_version=row.runtime_version,
        precision=variant.precision,
        executed_precision=row.executed_precision,
        vocabulary=bundle.preprocess.vocabulary,
        most_tokens=bundle.most_tokens,
        student=student.weights.model_copy(update={"architecture": student.architecture}),
        teacher=bundle.teacher,
        data=student.data.source,
        data_licence="unknown",
        profile=bundle.profile.name,
        kdc=__version__,
        test=row.test,
        chosen=why,
        made=variant.made,
        files=(),
    )


def _readme(manifest: LanguageManifest, program: bool, size: int) -> str:
    score = "not measured" if manifest.test is None else f"{scored_bits(manifest.test)}, of {manifest.test.n} documents"
    limit = "" if manifest.most_tokens is None else f" of at most {manifest.most_tokens:,} tokens, prompt and answer"
    command = f'    python3 {PROGRAM} "In the beginning" --tokens 40'
    lines = [
        f"# {manifest.name}",
        "",
        f"A language model{limit}: {manifest.student.parameters:,} parameters, {size / 1e6:.2f} MB; "
        f"{manifest.precision} weights for {manifest.runtime}; test: {score}.",
        "",
        f"    {manifest.install}",
        *([command] if program else []),
        "",
        *([] if program else [f"There is no example program for {manifest.runtime}."]),
        "`manifest.json`: sha256 of every file, where the weights come from, licences; `sbom.cdx.json`: as CycloneDX.",
    ]
    return "\n".join(lines) + "\n"
