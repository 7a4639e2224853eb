"""Whether a bundle is still what was made: SHA256SUMS over every file, and the hashes that the manifests hold.

It shows damage and edits, not forgery: whoever can write the bundle can seal it again.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.spec.base import file_sha256, read_json, write_text
from compressor.spec.bundle import Bundle, FileEntry
from compressor.spec.measurement import Measurement

__all__ = ["MEASUREMENT", "REMADE", "SUMS", "inside", "seal", "verify", "verify_made"]

SUMS = "SHA256SUMS"
MEASUREMENT = "measurements/measurement.json"
# What a measurement on the device replaces, and what is then made from it.
REMADE = ("measurements/", "best/", ".best.part/", ".best.old/", "report.json", "report.md", "report.html", "junit.xml")

LINE = re.compile(r"([0-9a-f]{64})  (.+)", re.DOTALL)
EXPORT_AGAIN = "make it again with `kdc export`, or copy it again from where it was made"


def seal(bundle_dir: Path) -> None:
    """Write SHA256SUMS, over every file in the bundle but itself; `sha256sum -c SHA256SUMS` reads it.

    Raises KdcError for symbolic links, special files, and names that the format cannot hold.
    """
    lines = [f"{file_sha256(bundle_dir / path)}  {path}\n" for path in _files(bundle_dir) if path != SUMS]
    write_text(bundle_dir / SUMS, "".join(lines))


def verify(bundle_dir: Path, may_change: tuple[str, ...] = ()) -> None:
    """Compare every file with SHA256SUMS, bundle.json and measurement.json; raises KdcError naming each that differs.

    `may_change`: paths, or folders ending in "/", that may differ from SHA256SUMS (`REMADE`: after a measurement on
    the device). Their own hashes in measurement.json must hold all the same.
    """
    if not (bundle_dir / "bundle.json").is_file():
        raise KdcError(f"{bundle_dir} is no bundle: it has no bundle.json", "make one with `kdc export RUN`")
    if not (bundle_dir / SUMS).is_file():
        hint = f"`kdc measure {bundle_dir}` finishes an interrupted export; else {EXPORT_AGAIN}"
        raise KdcError(f"{bundle_dir / SUMS} is missing: the bundle was never finished, or is damaged", hint)
    found = {path: file_sha256(bundle_dir / path) for path in _files(bundle_dir)}
    listed, problems = _read_sums(bundle_dir / SUMS)
    problems += _against_sums(found, listed, may_change)
    # A manifest that is not what was sealed is already named, and what it says of other files means nothing.
    if not any(problem.startswith("bundle.json ") for problem in problems):
        problems += _against_bundle(bundle_dir, found)
    if not any(problem.startswith(f"{MEASUREMENT} ") for problem in problems):
        problems += _against_measurement(bundle_dir, found)
    if problems:
        hint = f"if it was measured on a device: `kdc report {bundle_dir}` takes that up; else {EXPORT_AGAIN}"
        remade = all(problem.startswith(REMADE) for problem in problems)
        lines = "\n".join(f"{bundle_dir}/{problem}" for problem in dict.fromkeys(problems))
        raise KdcError(lines, hint if remade and not may_change else EXPORT_AGAIN)


def verify_made(bundle_dir: Path) -> None:
    """Before a measurement: what was exported is as it was made, whatever was measured of it. A bundle whose export was
    interrupted has no SHA256SUMS yet; then bundle.json alone says what belongs to it. Raises KdcError.
    """
    if not (bundle_dir / "bundle.json").is_file():
        raise KdcError(f"{bundle_dir} is no bundle: it has no bundle.json", "make one with `kdc export RUN`")
    found = {path: file_sha256(bundle_dir / path) for path in _files(bundle_dir)}
    problems: list[str] = []
    if (bundle_dir / SUMS).is_file():
        listed, problems = _read_sums(bundle_dir / SUMS)
        problems += _against_sums(found, listed, REMADE)
    else:
        known = {entry.path for entry in read_json(bundle_dir / "bundle.json", Bundle).support}
        scripts = [path for path in found if path.startswith("runners/") and path not in known]
        problems += [f"{path} is not listed in bundle.json: it was added after the bundle was made" for path in scripts]
    if not any(problem.startswith("bundle.json ") for problem in problems):
        problems += _against_bundle(bundle_dir, found)
    if problems:
        raise KdcError("\n".join(f"{bundle_dir}/{problem}" for problem in dict.fromkeys(problems)), EXPORT_AGAIN)


def inside(bundle_dir: Path, path: str, where: str) -> Path:
    """The file that `path`, read in `where`, names within the bundle.

    Raises KdcError where it is absolute, leaves the bundle, passes through a symbolic link, or is no file.
    """
    if (reason := _unsafe(path)) is not None:
        raise KdcError(f"{where} names the file {path!r}, which is refused: {reason}", EXPORT_AGAIN)
    place = bundle_dir
    for part in path.split("/"):
        place = place / part
        if place.is_symlink():
            raise KdcError(f"{where} names the file {path!r}, which is refused: {place} is a symbolic link")
    if not place.is_file():
        raise KdcError(f"{place}, which {where} names, is missing", EXPORT_AGAIN)
    return place


def _unsafe(path: str) -> str | None:
    """Why a path may not stand in a manifest, or None."""
    if any(ord(letter) < 32 or letter in "\\\x7f" for letter in path):
        return "backslashes and control characters are not permitted in names"
    if path.startswith("/") or re.search(r"(^|/)[A-Za-z]:", path):
        return "it is absolute, and files of a bundle are named relative to it"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "it must lead straight down into the bundle"
    return None


def _files(bundle_dir: Path) -> list[str]:
    """Every file, relative with forward slashes, sorted; raises KdcError for what a bundle may not hold."""
    return sorted(_walk(bundle_dir, ""))


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise os_error(error, f"reading {folder}") from error
    for entry in entries:
        path = prefix + entry.name
        if entry.is_symlink():
            raise KdcError(
                f"{entry.path} is a symbolic link, and a bundle may hold none", "replace it by the file itself"
            )
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), path + "/")
        elif not entry.is_file(follow_symlinks=False):
            raise KdcError(f"{entry.path} is no regular file, and a bundle may hold only those", "remove it")
        elif (reason := _unsafe(path)) is not None or not path.isprintable():
            raise KdcError(f"{entry.path!r} cannot be listed in {SUMS}: {reason or 'unprintable name'}", "rename it")
        else:
            yield path


def _read_sums(sums: Path) -> tuple[dict[str, str], list[str]]:
    """path -> sha256, and what is wrong with the lines."""
    listed: dict[str, str] = {}
    problems = []
    text = sums.read_bytes().decode("utf-8", errors="replace")
    if not text.endswith("\n"):
        problems.append(f"{SUMS} was changed: its last line is cut off")
    for number, line in enumerate(text.split("\n")[: -1 if text.endswith("\n") else None], start=1):
        match = LINE.fullmatch(line)
        if match is None:
            problems.append(f"{SUMS} was changed: line {number} is malformed: {line[:120]!r}")
        elif (reason := _unsafe(match[2])) is not None:
            problems.append(f"{SUMS} line {number} names {match[2]!r}, which is refused: {reason}")
        elif match[2] in listed or match[2] == SUMS:
            problems.append(f"{SUMS} was changed: line {number} may not list {match[2]}")
        else:
            listed[match[2]] = match[1]
    return listed, problems


def _against_sums(found: dict[str, str], listed: dict[str, str], may_change: tuple[str, ...]) -> Iterable[str]:
    for path in sorted({*found, *listed} - {SUMS}):
        if any(path == free or (free.endswith("/") and path.startswith(free)) for free in may_change):
            continue
        if path not in found:
            yield f"{path} is missing, though {SUMS} lists it"
        elif path not in listed:
            yield f"{path} is not listed in {SUMS}: it was added after the bundle was made"
        elif found[path] != listed[path]:
            yield f"{path} was changed after it was made (sha256 differs from {SUMS})"


def _against_bundle(bundle_dir: Path, found: dict[str, str]) -> list[str]:
    bundle = read_json(bundle_dir / "bundle.json", Bundle)
    entries = [*bundle.support, *(entry for variant in bundle.variants for entry in variant.files)]
    problems = [problem for entry in entries for problem in _entry_problems(bundle_dir, entry, found)]
    listed = {entry.path for entry in entries}
    used = [bundle.eval.labels, bundle.eval.ids]
    if bundle.teacher_table is not None and bundle.teacher_table.answers is not None:
        used.append(bundle.teacher_table.answers)
    for variant in bundle.variants:
        used += [variant.model, variant.inputs, variant.reference_logits, f"runners/{variant.runner}"]
        used += [f"runners/{variant.build}"] if variant.build is not None else []
    for path in dict.fromkeys(used):
        if (reason := _unsafe(path)) is not None:
            problems.append(f"bundle.json names the file {path!r}, which is refused: {reason}")
        elif path not in listed:
            problems.append(f"bundle.json uses {path}, but lists it nowhere with its sha256")
    return problems


def _entry_problems(bundle_dir: Path, entry: FileEntry, found: dict[str, str]) -> Iterator[str]:
    if (reason := _unsafe(entry.path)) is not None:
        yield f"bundle.json names the file {entry.path!r}, which is refused: {reason}"
    elif entry.path not in found:
        yield f"{entry.path} is missing, though bundle.json lists it"
    elif found[entry.path] != entry.sha256:
        yield f"{entry.path} was changed after it was made (sha256 differs from bundle.json)"
    elif (size := (bundle_dir / entry.path).stat().st_size) != entry.bytes:
        yield f"{entry.path} has {size} bytes, but bundle.json says {entry.bytes}"


def _against_measurement(bundle_dir: Path, found: dict[str, str]) -> Iterator[str]:
    if MEASUREMENT not in found:
        return
    for contestant in read_json(bundle_dir / MEASUREMENT, Measurement).contestants:
        if contestant.logits is None:
            continue
        path = f"measurements/{contestant.logits}"
        if (reason := _unsafe(contestant.logits)) is not None:
            yield f"{MEASUREMENT} names the file {contestant.logits!r}, which is refused: {reason}"
        elif path not in found:
            yield f"{path} is missing, though {MEASUREMENT} names it"
        elif found[path] != contestant.logits_sha256:
            yield f"{path} was changed after it was measured (sha256 differs from {MEASUREMENT})"
