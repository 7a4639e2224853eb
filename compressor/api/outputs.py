"""Where a rendered report may be written, and in which format."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from compressor.api.results import ReportResult
from compressor.errors import KdcError
from compressor.files.writing import is_stream, refuse_existing

__all__ = ["format_of", "refuse_out", "refuse_sealed"]


def _endings() -> dict[str, str]:
    """What a name may end on, and the first format that is called so."""
    formats = ReportResult.FORMATS
    return {ending: name for name in reversed(list(formats)) for ending in formats[name]}


def format_of(file: Path | None) -> str:
    """As the file's name ends, or "text"."""
    return "text" if file is None or is_stream(file) else _endings().get(file.suffix.lower(), "text")


def _refuse_ending(file: Path, format: str) -> None:
    """Raise KdcError where the name ends as that of another format, which the file would then not hold."""
    if not file.suffix or is_stream(file) or file.suffix.lower() in ReportResult.FORMATS[format]:
        return
    pairs = ((ending, name) for name, endings in ReportResult.FORMATS.items() for ending in endings)
    permitted = ", ".join(f"{ending} ({name})" for ending, name in pairs)
    fitting = _endings().get(file.suffix.lower())
    raise KdcError(
        f"--out {file} does not hold a report in the format {format}, as its name says; permitted: {permitted}",
        f"--format {fitting}" if fitting else f"--out {file.with_suffix(ReportResult.FORMATS[format][0])}",
    )


def refuse_out(
    file: Path | None, format: str, formats: Mapping[str, tuple[str, ...]], folders: Sequence[Path], overwrite: bool
) -> None:
    """Raise KdcError for a format that there is not, and for a file that may not hold it."""
    if format not in formats:
        raise KdcError(f"--format {format!r} is not one of {', '.join(formats)}")
    if file is None:
        return
    refuse_sealed("--out", file, folders)
    _refuse_ending(file, format)
    refuse_existing(file, overwrite=overwrite)


def refuse_sealed(option: str, file: Path, bundles: Sequence[Path]) -> None:
    """Raise KdcError for a file in one of these bundles, in any other one, or in a folder that kdc keeps bundles in."""
    from compressor.files.bundle_folder import holds_bundle
    from compressor.report import holds_bundles

    named = [folder for folder in bundles if file.resolve().is_relative_to(folder.resolve())]
    for folder in [*named, *file.resolve().parents]:
        if folder in named or holds_bundle(folder) or holds_bundles(folder):
            kind = "folder of bundles" if holds_bundles(folder) else "bundle"
            sealed = ", in which kdc keeps nothing else" if kind != "bundle" else ", which is sealed"
            raise KdcError(f"{option} {file} lies in the {kind} {folder}{sealed}", "choose a file outside of it")
