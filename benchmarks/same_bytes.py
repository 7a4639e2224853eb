"""Do two checkouts make the same students and the same models, byte for byte? For changes that move code.

    python -m benchmarks.same_bytes OLD NEW [--only NAME …] [--keep DIR] [--old-python EXE] [--new-python EXE]
    python -m benchmarks.same_bytes CHECKOUT --record FILE      # keep the hashes of one checkout
    python -m benchmarks.same_bytes CHECKOUT --against FILE     # compare another one with them, later

Six small distillations (same_bytes_cases.py), each exported, run with each checkout's own code and its own interpreter
(CHECKOUT/.venv/bin/python), offline, with OMP_NUM_THREADS=1 and hash seeds that differ. Compared are the sha256 of
student.safetensors and of every file of every variant that bundle.json names, the teacher's model included. Nothing is
left out of a file: version strings and paths in it count. Measurements, reports, best/, eval/ and runners/ are not
compared.

Bytes can be compared only where CPU and versions are the same; otherwise it refuses and names what differs. Exit
code 0: all the same; 1: something differs, is missing or failed; 2: cannot be compared.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.same_bytes_cases import CASES, chosen, commands, export_line, write_photos

__all__ = ["Checkout", "Identity", "Made", "compared", "differences", "hashes", "table"]

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
ERROR_LINES = 8
STUDENT = "student.safetensors"

PACKAGES = (
    "accelerate", "ml-dtypes", "nncf", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "openvino", "pillow",
    "safetensors", "scikit-learn", "scipy", "timm", "torch",
)  # fmt: skip
"""What weights and models are made with."""


@dataclass(frozen=True)
class Identity:
    """What made the bytes. `cpu`: its name; `flags`: its instruction sets, as Linux names them; `packages`: name ->
    version, null for what is not installed; `commit`: with "+" behind it where the checkout has changes of its own."""

    commit: str
    python: str
    packages: dict[str, str | None]
    cpu: str
    flags: tuple[str, ...]


@dataclass
class Made:
    """What a case left: file -> sha256, and where it failed, why."""

    files: dict[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Checkout:
    """Code to run: the root of a checkout, and an interpreter that has what it depends on."""

    root: Path
    python: Path

    def identity(self, work: Path) -> Identity:
        """Exits where another `compressor` than the checkout's is imported."""
        asked = self._python(
            ["-c", "import json, sys, compressor\nfrom importlib import metadata\n"
             "def version(name):\n    try: return metadata.version(name)\n"
             "    except metadata.PackageNotFoundError: return None\n"
             "print(json.dumps([compressor.__file__, sys.version.split()[0], {n: version(n) for n in sys.argv[1:]}]))",
             *PACKAGES], work,
        )  # fmt: skip
        if asked.returncode:
            _refuse(f"{self.python} cannot import compressor from {self.root}:\n{_last(asked.stderr)}")
        where, python, packages = json.loads(asked.stdout)
        print(f"{self.root}: commit {self.commit}, compressor from {where}", flush=True)
        if Path(where).resolve() != self.root / "compressor" / "__init__.py":
            _refuse(f"{self.root}: its own compressor is not the one that is imported")
        return Identity(self.commit, python, packages, *_cpu())

    @property
    def commit(self) -> str:
        head, changes = (
            subprocess.run(["git", "-C", self.root, *line], capture_output=True, text=True, check=False).stdout.strip()
            for line in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
        return f"{head or 'unknown'}{'+' if changes else ''}"

    def make(self, name: str, work: Path) -> Made:
        """Run a case in `work`, where those that it needs have left their runs."""
        case, made = CASES[name], Made()
        trained = self._python(["-m", "compressor", *case.train, "--out", name], work)
        if trained.returncode:
            made.error = f"{case.train[0]} ended with {trained.returncode}: {_last(trained.stderr)}"
            return made
        made.files = hashes(work / name, None)
        if case.variants:
            exported = self._python(["-m", "compressor", *export_line(name)], work)
            try:
                made.files |= hashes(None, work / f"{name}-bundle")
            except (OSError, KeyError, TypeError, ValueError) as error:
                made.error = f"export ended with {exported.returncode}: {error!r}: {_last(exported.stderr)}"
                return made
            lacking = [one for one in case.variants if not any(file.startswith(f"{one}: ") for file in made.files)]
            if lacking:
                made.error = f"the bundle lacks {', '.join(lacking)}: {_last(exported.stderr)}"
        return made

    def _python(self, arguments: Sequence[str], work: Path) -> "subprocess.CompletedProcess[str]":
        """Nothing of this process's environment that could lead to other code."""
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        own = {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "KDC_CACHE": str(work / "cache")}
        return subprocess.run(
            [str(self.python), *arguments], cwd=work, env={**environment, **OFFLINE, **own},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip


def hashes(run: Path | None, bundle: Path | None) -> dict[str, str]:
    """sha256 of the student of `run`, of those that were trained on the way to it, and of each file of each variant of
    `bundle`, as "VARIANT: PATH".

    Raises OSError, KeyError, TypeError or ValueError where something is not there or is no bundle.json.
    """
    files: dict[str, Path] = {}
    if run is not None:
        found = (run / STUDENT, *sorted(run.glob(f"*/**/{STUDENT}")))
        files |= {path.relative_to(run).as_posix(): path for path in found}
    if bundle is not None:
        for variant in json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["variants"]:
            files |= {f"{variant['name']}: {entry['path']}": bundle / entry["path"] for entry in variant["files"]}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def compared(old: Mapping[str, Made], new: Mapping[str, Made]) -> list[tuple[str, str, str]]:
    """(case, file, verdict) for all that either side made: "same", "different", "missing in old", "missing in new"; and
    for a case that failed "failed in old: …"."""
    rows = []
    for case in dict.fromkeys((*old, *new)):
        one, other = old.get(case, Made(error="not run")), new.get(case, Made(error="not run"))
        for file in dict.fromkeys((*one.files, *other.files)):
            rows.append((case, file, _verdict(one.files.get(file), other.files.get(file))))
        for side, made in (("old", one), ("new", other)):
            if made.error is not None:
                rows.append((case, "-", f"failed in {side}: {made.error}"))
        if not one.files and not other.files and one.error is None and other.error is None:
            rows.append((case, "-", "failed in both: nothing was made"))
    return rows


def _verdict(old: str | None, new: str | None) -> str:
    if old is None:
        return "missing in old"
    if new is None:
        return "missing in new"
    return "same" if old == new else "different"


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    """The rows in columns."""
    head = ("command", "file", "")
    widths = [max(len(row[column]) for row in (head, *rows)) for column in (0, 1)]
    return "\n".join(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}".rstrip() for row in (head, *rows))


def differences(old: Identity, new: Identity) -> list[str]:
    """What of CPU and versions differs, by name. Commits may differ: they are what is compared."""
    found = [] if old.python == new.python else [f"Python: {old.python} and {new.python}"]
    for name in sorted({*old.packages, *new.packages}):
        before, now = old.packages.get(name), new.packages.get(name)
        if before != now:
            found.append(f"{name}: {before or 'not installed'} and {now or 'not installed'}")
    if old.cpu != new.cpu:
        found.append(f"CPU: {old.cpu} and {new.cpu}")
    flags = sorted({*old.flags} ^ {*new.flags})
    return [*found, *([f"CPU flags that only one has: {', '.join(flags)}"] if flags else [])]


def _cpu() -> tuple[str, tuple[str, ...]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}", ()
    rows = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = tuple(sorted(rows.get("flags", rows.get("Features", "")).split()))
    return f"{platform.machine()} {rows.get('model name', rows.get('CPU part', ''))}", flags


def _last(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-ERROR_LINES:])


def _refuse(reason: str) -> None:
    print(f"same_bytes: {reason}", file=sys.stderr)
    sys.exit(2)


def _made_by(checkout: Checkout, names: Sequence[str], work: Path) -> dict[str, Made]:
    write_photos(work / "photos")
    made: dict[str, Made] = {}
    for name in names:
        made[name] = checkout.make(name, work)
        print(f"  {name}: {made[name].error or f'{len(made[name].files)} files'}", flush=True)
    return made


def _read(path: Path, names: Sequence[str]) -> tuple[Identity, dict[str, Made]]:
    """A record. Exits where its commands are not those that would be run now."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        identity = Identity(**{**values["identity"], "flags": tuple(values["identity"]["flags"])})
        lines, made = values["commands"], {name: Made(**row) for name, row in values["made"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _refuse(f"{path} is no record of same_bytes: {error!r}")
        raise
    other = [name for name, line in commands(names).items() if lines.get(name) != line]
    if other:
        _refuse(f"{path} has no record of these commands as they are now: {', '.join(other)}")
    print(f"{path}: commit {identity.commit}", flush=True)
    return identity, {name: made.get(name, Made(error="not recorded")) for name in names}


def _write(path: Path, identity: Identity, names: Sequence[str], made: Mapping[str, Made]) -> None:
    """Keep a record. Exits where a case failed."""
    failed = [f"{name}: {one.error}" for name, one in made.items() if one.error is not None]
    if failed:
        print("same_bytes: not recorded, since something failed", *failed, sep="\n  ", file=sys.stderr)
        sys.exit(1)
    rows = {name: asdict(one) for name, one in made.items()}
    record = {"identity": asdict(identity), "commands": commands(names), "made": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"recorded {sum(len(one.files) for one in made.values())} files in {path}")


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="same-bytes-") as place:
            yield Path(place).resolve()
        return
    if keep.exists() and any(keep.iterdir()):
        _refuse(f"--keep {keep} is not empty")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()


def _comparable(old: Identity, new: Identity) -> None:
    found = differences(old, new)
    if found:
        _refuse("bytes cannot be compared:\n  " + "\n  ".join(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkouts", type=Path, nargs="+", metavar="CHECKOUT", help="OLD NEW, or one with a record")
    parser.add_argument("--only", nargs="+", default=[], choices=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--keep", type=Path, help="keep runs and bundles there, in old/ and new/")
    parser.add_argument("--old-python", type=Path, help="instead of OLD/.venv/bin/python")
    parser.add_argument("--new-python", type=Path, help="instead of NEW/.venv/bin/python, or of the one CHECKOUT's")
    record = parser.add_mutually_exclusive_group()
    record.add_argument("--record", type=Path, metavar="FILE", help="write the hashes of the one CHECKOUT")
    record.add_argument("--against", type=Path, metavar="FILE", help="compare the one CHECKOUT with a record")
    given = parser.parse_args()
    if len(given.checkouts) != (1 if given.record or given.against else 2):
        parser.error("two checkouts, OLD NEW; or one with --record or --against")
    return given


def main() -> None:
    given = _arguments()
    names = chosen(given.only)
    pythons = [given.old_python, given.new_python][-len(given.checkouts) :]
    checkouts = [
        Checkout(root.resolve(), (python or root / ".venv/bin/python").absolute())
        for root, python in zip(given.checkouts, pythons, strict=True)
    ]
    sides = ["old", "new"][-len(checkouts) :]
    recorded = _read(given.against, names) if given.against else None
    with _folder(given.keep) as work:
        for side in sides:
            (work / side).mkdir()
        identities = [one.identity(work / side) for one, side in zip(checkouts, sides, strict=True)]
        _comparable(recorded[0] if recorded else identities[0], identities[-1])
        made = [_made_by(one, names, work / side) for one, side in zip(checkouts, sides, strict=True)]
    if given.record:
        _write(given.record, identities[0], names, made[0])
        sys.exit(0)
    result = compared(recorded[1] if recorded else made[0], made[-1])
    print(table(result))
    same = sum(row[2] == "same" for row in result)
    print(f"{same} of {len(result)} the same")
    sys.exit(0 if result and same == len(result) else 1)


if __name__ == "__main__":
    main()
