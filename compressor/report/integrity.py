"""Whether a bundle is still what was made: SHA256SUMS over every file, and the hashes that the manifests hold.

It is unsigned: it shows damage and edits, not forgery. Whoever can write the bundle can seal it again, so one from
elsewhere is as trustworthy as the way it came; sign SHA256SUMS, or compare its sha256, where that matters.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.files.atomic import file_sha256, write_text
from compressor.files.bundle_folder import (
    BEST,
    DEVICES,
    MEASUREMENT,
    SUMS,
    counted,
    is_working,
    must_hold_a_bundle,
    remade_in,
    stray,
)
from compressor.files.reading import JSON_BYTES, read_bytes
from compressor.report.manifests import read_manifest, read_session
from compressor.report.problems import EXPORT_AGAIN, hint_for, raise_for
from compressor.schema.bundle import FileEntry

__all__ = [
    "MEASUREMENT",
    "SUMS",
    "inside",
    "seal",
    "seal_line",
    "verify",
    "verify_made",
]

MOST_MEASURED = 64_000_000
"""Bytes of a measurement.json. A session of hours with twenty variants has 30 MB."""
TOO_MANY = "bytes, more than it can have"
HEADER = 4096
"""Bytes that a .npy file may have before its numbers."""

MADE_ANEW = re.compile(rf"({DEVICES}/[^/]+/)?({BEST}/|README\.md)")
LINE = re.compile(r"([0-9a-f]{64})  (.+)", re.DOTALL)


def seal(bundle_dir: Path) -> None:
    """Write SHA256SUMS, over every file in the bundle but itself; `sha256sum -c SHA256SUMS` reads it. What kdc itself
    has in the making there, or has left, is never sealed in.

    Raises KdcError for symbolic links, special files, and names that the format cannot hold.
    """
    lines = [f"{file_sha256(bundle_dir / path)}  {path}\n" for path in _files(bundle_dir) if path != SUMS]
    write_text(bundle_dir / SUMS, "".join(lines))


def seal_line(bundle_dir: Path) -> str:
    """What a sealed bundle's seal is worth, in one line: its own sha256 tells bundles apart, and proves nothing."""
    folder = counted(bundle_dir)
    waits = f"; a command was killed while it put this state in place; `kdc report {bundle_dir}` goes on"
    return (
        f"seal {file_sha256(folder / SUMS)[:16]}, unsigned: it shows damage and edits, not forgery; whoever can write "
        "the bundle can seal it again" + (waits if folder != bundle_dir else "")
    )


def verify(bundle_dir: Path, may_change: tuple[str, ...] = ()) -> None:
    """Compare every file with SHA256SUMS, bundle.json and measurement.json; raises KdcError naming each that differs.

    `may_change`: paths, or folders ending in "/", that may differ from SHA256SUMS (`REMADE`: after a measurement on
    the device). Their own hashes in measurement.json must hold all the same. Of a bundle in which a command was killed
    while it put a new state in place, that one is compared, and the files beside it must be of it or of the one before.
    """
    must_hold_a_bundle(bundle_dir)
    folder = counted(bundle_dir)
    if not (folder / SUMS).is_file():
        hint = f"`kdc measure {bundle_dir}` finishes an interrupted export; else {EXPORT_AGAIN}"
        raise KdcError(f"{bundle_dir / SUMS} is missing: the bundle was never finished, or is damaged", hint)
    digests = _digests(folder)
    listed, problems = _read_sums(folder / SUMS)
    strays = _take_strays(digests, listed)
    problems += _against_sums(digests, listed, may_change)
    problems += [f"{path} has {digest}" for path, digest in digests.items() if digest.endswith(TOO_MANY)]
    # A manifest that is not what was sealed is already named, and what it says of other files means nothing.
    if not any(problem.startswith("bundle.json ") for problem in problems):
        problems += _against_bundle(folder, digests)
    named = {problem.partition(" ")[0] for problem in problems}
    problems += _against_measurements(folder, digests, named)
    if folder != bundle_dir:
        problems += _beside(bundle_dir, listed)
    raise_for(bundle_dir, problems, strays, hint_for(bundle_dir, folder, problems, bool(may_change)))


def _take_strays(digests: dict[str, str], listed: Collection[str]) -> list[str]:
    """Take out of `digests` what a file manager or git has left in the bundle since it was sealed, and name it."""
    strays = {path: name for path in digests.keys() - listed if (name := stray(path)) is not None}
    for path in strays:
        del digests[path]
    return sorted(set(strays.values()))


def _beside(bundle_dir: Path, new: dict[str, str]) -> Iterator[str]:
    """What lies beside a state that is being put in place: of every file that one, or the one before."""
    old = _read_sums(bundle_dir / SUMS)[0] if (bundle_dir / SUMS).is_file() else {}
    for path, digest in _digests(bundle_dir, counted(bundle_dir)).items():
        if path != SUMS and digest not in (old.get(path), new.get(path)):
            yield f"{path} is neither what it was nor what `kdc report {bundle_dir}` would make of it"


def verify_made(bundle_dir: Path) -> None:
    """Before a measurement: what was exported is as it was made, whatever was measured of it. A bundle whose export was
    interrupted has no SHA256SUMS yet; then bundle.json alone says what belongs to it. Raises KdcError.
    """
    must_hold_a_bundle(bundle_dir)
    digests = _digests(bundle_dir)
    problems: list[str] = []
    if (bundle_dir / SUMS).is_file():
        listed, problems = _read_sums(bundle_dir / SUMS)
        strays = _take_strays(digests, listed)
        problems += _against_sums(digests, listed, remade_in(bundle_dir))
    else:
        strays = _take_strays(digests, ())
        known = {entry.path for entry in read_manifest(bundle_dir / "bundle.json").support}
        scripts = [path for path in digests if path.startswith("runners/") and path not in known]
        problems += [f"{path} is not listed in bundle.json: it was added after the bundle was made" for path in scripts]
    if not any(problem.startswith("bundle.json ") for problem in problems):
        problems += _against_bundle(bundle_dir, digests)
    raise_for(bundle_dir, problems, strays, EXPORT_AGAIN)


def _digests(folder: Path, bundle_dir: Path | None = None) -> dict[str, str]:
    """The sha256 of every file in `folder`. One that is larger than it may be is not read: its size stands instead,
    which no sha256 equals. `bundle_dir`: where the manifest lies, if elsewhere."""
    sizes, most = _sizes(bundle_dir or folder)
    digests = {}
    for path in _files(folder):
        size = (folder / path).lstat().st_size
        too_large = size > sizes.get(path, MOST_MEASURED if path.endswith(f"/{MEASUREMENT}") else most)
        digests[path] = f"{size} {TOO_MANY}" if too_large else file_sha256(folder / path)
    return digests


def _sizes(bundle_dir: Path) -> tuple[dict[str, int], int]:
    """How large each file may be that bundle.json lists, and any other: the logits of the test split, a model that
    ships, or a report."""
    try:
        bundle = read_manifest(bundle_dir / "bundle.json")
    except KdcError:  # whoever reads it next says why
        return {}, JSON_BYTES
    entries = [*bundle.support, *(entry for variant in bundle.variants for entry in variant.files)]
    sizes = {entry.path: entry.bytes for entry in entries}
    return {**sizes, MEASUREMENT: MOST_MEASURED}, max(JSON_BYTES, HEADER + bundle.most_bytes, *sizes.values())


def inside(bundle_dir: Path, path: str, where: str) -> Path:
    """The file that `path`, read in `where`, names within the bundle.

    Raises KdcError where it is absolute, leaves the bundle, passes through a symbolic link, or is no file.
    """
    if (reason := _unsafe(path)) is not None:
        raise KdcError(f"{where} names the file {path!r}, which is refused: {reason}", EXPORT_AGAIN)
    file = bundle_dir
    for part in path.split("/"):
        file = file / part
        if file.is_symlink():
            raise KdcError(f"{where} names the file {path!r}, which is refused: {file} is a symbolic link")
    if not file.is_file():
        raise KdcError(f"{file}, which {where} names, is missing", EXPORT_AGAIN)
    return file


def _unsafe(path: str) -> str | None:
    """Why a path may not stand in a manifest, or None."""
    if any(ord(letter) < 32 or letter in "\\\x7f" for letter in path):
        return "backslashes and control characters are not permitted in names"
    if path.startswith("/") or re.search(r"(^|/)[A-Za-z]:", path):
        return "it is absolute, and files of a bundle are named relative to it"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "it must lead straight down into the bundle"
    if any(is_working(part, top=depth == 0) for depth, part in enumerate(path.split("/"))):
        return "such names are for what kdc has in the making"
    return None


def _files(bundle_dir: Path) -> list[str]:
    """Every file, relative with forward slashes, sorted; raises KdcError for what a bundle may not hold. What kdc has
    in the making, or what a kill left of it, is no part of the bundle."""
    return sorted(_walk(bundle_dir, ""))


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise os_error(error, f"reading {folder}") from error
    for entry in entries:
        path = prefix + entry.name
        if is_working(entry.name, top=not prefix):
            continue
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
    text = read_bytes(sums, most=JSON_BYTES).decode("utf-8", errors="replace")
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


def _against_sums(digests: dict[str, str], listed: dict[str, str], may_change: tuple[str, ...]) -> Iterable[str]:
    for path in sorted({*digests, *listed} - {SUMS}):
        if any(path == free or (free.endswith("/") and path.startswith(free)) for free in may_change):
            if (made := MADE_ANEW.match(path)) and path not in listed:  # somebody's own
                yield f"{path} is no file of the bundle, and {made[0]} is made anew: move it"
            continue
        if path not in digests:
            yield f"{path} is missing, though {SUMS} lists it"
        elif path not in listed:
            yield f"{path} is not listed in {SUMS}: it was added after the bundle was made"
        elif digests[path] != listed[path]:
            yield f"{path} was changed after it was made (sha256 differs from {SUMS})"


def _against_bundle(bundle_dir: Path, digests: dict[str, str]) -> list[str]:
    bundle = read_manifest(bundle_dir / "bundle.json")
    entries = [*bundle.support, *(entry for variant in bundle.variants for entry in variant.files)]
    problems = [problem for entry in entries for problem in _entry_problems(bundle_dir, entry, digests)]
    listed = {entry.path for entry in entries}
    for path in dict.fromkeys(bundle.used):
        if (reason := _unsafe(path)) is not None:
            problems.append(f"bundle.json names the file {path!r}, which is refused: {reason}")
        elif path not in listed:
            problems.append(f"bundle.json uses {path}, but lists it nowhere with its sha256")
    return problems


def _entry_problems(bundle_dir: Path, entry: FileEntry, digests: dict[str, str]) -> Iterator[str]:
    if (reason := _unsafe(entry.path)) is not None:
        yield f"bundle.json names the file {entry.path!r}, which is refused: {reason}"
    elif entry.path not in digests:
        yield f"{entry.path} is missing, though bundle.json lists it"
    elif (size := (bundle_dir / entry.path).stat().st_size) > entry.bytes:
        yield f"{entry.path} has {size} bytes, but bundle.json says {entry.bytes}"
    elif digests[entry.path] != entry.sha256:
        yield f"{entry.path} was changed after it was made (sha256 differs from bundle.json)"
    elif size != entry.bytes:
        yield f"{entry.path} has {size} bytes, but bundle.json says {entry.bytes}"


def _against_measurements(bundle_dir: Path, digests: dict[str, str], wrong: Collection[str]) -> Iterator[str]:
    for session in (path for path in digests if f"/{path}".endswith(f"/{MEASUREMENT}") and path not in wrong):
        contestants = read_session(bundle_dir / session).contestants
        for name, digest in (file for contestant in contestants for file in contestant.files):
            path = f"{session.removesuffix('measurement.json')}{name}"
            if (reason := _unsafe(name)) is not None:
                yield f"{session} names the file {name!r}, which is refused: {reason}"
            elif path not in digests:
                yield f"{path} is missing, though {session} names it"
            elif digests[path] != digest:
                yield f"{path} was changed after it was measured (sha256 differs from {session})"
