"""`kdc measure` under force: kills, full disks, limits, bundles from elsewhere; and what a runner may see."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chain_bundle import write_chain_bundle
from benchmarks.kill_cases import left_in_bundle
from benchmarks.kill_points import VERDICTS, killed
from compressor.files.atomic import file_sha256
from compressor.files.bundle_folder import files_of
from compressor.measure.machine import this_machine
from compressor.report import seal
from compressor.schema.profile import Budget
from tests.kit import Ended

Kdc = Callable[..., Ended]
QUICK = ("--rounds", 11, "--no-throughput", "--quiet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sealed and measured bundles of chains: `bundle`, and `earlier` with a convolution more."""
    folder = tmp_path_factory.mktemp("chains")
    for name, blocks in (("bundle", 2), ("earlier", 3)):
        write_chain_bundle(folder / name, blocks, 1, Budget(p50_ms=1000), this_machine())
        seal(folder / name)
        assert killed(("measure", folder / name, *QUICK), folder, 0).code in VERDICTS
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "bundle", tmp_path / "bundle"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in files_of(folder)}


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@contextmanager
def disk(place: Path, options: str) -> Iterator[Path]:
    """A file system of its own at `place`; where none can be mounted, the test is skipped."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs can only be mounted by root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("free", range(8))
def test_a_full_disk_leaves_the_old_state(kdc: Kdc, made: Path, tmp_path: Path, free: int) -> None:
    pages = sum(-(-path.stat().st_size // 4096) * 4 for path in (made / "bundle").rglob("*") if path.is_file())
    with disk(tmp_path / "disk", f"size={pages + 8 + 16 * free}k") as place:
        bundle = Path(shutil.copytree(made / "bundle", place / "bundle"))
        before = contents(bundle)
        ended = kdc("measure", bundle, "--baseline", made / "earlier", *QUICK)
        assert ended.code == 2, ended.err
        assert "no space left" in ended.err.lower()
        assert "bug in kdc" not in ended.err
        assert contents(bundle) == before
        assert left_in_bundle(place) == []
        assert kdc("check", bundle).code in VERDICTS


def limited(arguments: tuple[object, ...], limits: dict[int, int]) -> "subprocess.CompletedProcess[str]":
    """`kdc` in a process with resource limits."""

    def limit() -> None:
        for name, value in limits.items():
            resource.setrlimit(name, (value, value))

    command = [sys.executable, "-m", "compressor", *map(str, arguments)]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("limits", "said", "commands"),
    [
        ({resource.RLIMIT_FSIZE: 20_000}, "too large", ("measure", "report")),
        ({resource.RLIMIT_NOFILE: 12}, "open files", ("measure",)),
    ],
)
def test_low_limits_are_told_and_nothing_is_lost(
    kdc: Kdc, bundle: Path, limits: dict[int, int], said: str, commands: tuple[str, ...]
) -> None:
    (bundle / "measurements" / "log.txt").write_text("new", encoding="utf-8")
    before = contents(bundle)
    for command in commands:
        ended = limited((command, bundle, *(QUICK if command == "measure" else ())), limits)
        assert ended.returncode in (2, 4), ended.stderr
        assert said in ended.stderr.lower()
        assert "bug in kdc" not in ended.stderr
        assert contents(bundle) == before
    assert kdc("report", bundle).code in VERDICTS


def test_a_bundle_that_may_not_be_written_is_read(kdc: Kdc, made: Path, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=10m") as place:
        bundle = Path(shutil.copytree(made / "bundle", place / "bundle"))
        (bundle / "measurements" / "log.txt").write_text("from the device", encoding="utf-8")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert kdc("report", bundle).code in VERDICTS
        refused = kdc("measure", bundle, *QUICK)
        assert refused.code == 2
        assert "Read-only file system" in refused.err
        assert "log.txt" in kdc("check", bundle).err
    with disk(tmp_path / "disk", "size=10m") as place:
        bundle = Path(shutil.copytree(made / "bundle", place / "bundle"))
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert kdc("check", bundle).code in VERDICTS


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_what_a_measurement_makes_is_as_the_umask_says(bundle: Path, umask: int) -> None:
    shutil.rmtree(bundle / "best")
    shutil.rmtree(bundle / "measurements")
    (bundle / "SHA256SUMS").unlink()
    before = os.umask(umask)
    try:
        assert killed(("measure", bundle, *QUICK), bundle, 0).code in VERDICTS
    finally:
        os.umask(before)
    made = [
        bundle / "best",
        bundle / "measurements",
        *(bundle / "best").iterdir(),
        *(bundle / "measurements").iterdir(),
    ]
    made += [bundle / "SHA256SUMS", bundle / "report.json", bundle / "report.md"]
    assert len(made) > 15
    for path in made:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert oct(path.stat().st_mode & 0o777) == oct(wanted), path


SPY = """
import json, os, sys
if sys.argv and "run_ort" in (sys.orig_argv[-1] if hasattr(sys, "orig_argv") else ""):
    with open({told!r}, "a") as file:
        file.write(json.dumps(dict(os.environ)) + "\\n")
"""
SECRETS = (
    "HF_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "MY_PASSWORD",
    "OMP_TOKEN",
    "TF_TOKEN_app",
    "SSH_AUTH_SOCK",
)


def test_a_runner_sees_no_secret_and_what_it_needs(
    kdc: Kdc, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY.format(told=str(told)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "spy"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    for name in SECRETS:
        monkeypatch.setenv(name, "sesame")
    assert kdc("measure", bundle, *QUICK).code in VERDICTS
    seen = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
    assert len(seen) >= 3
    for environment in seen:
        assert "sesame" not in environment.values()
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
        assert environment["PATH"] == os.environ["PATH"]


EVIL = "import os, pathlib\npathlib.Path({told!r}).write_text(os.environ['HF_TOKEN'])\n"


@pytest.mark.parametrize("name", ["bench.py", "run_ort.py", "numpy.py"])
def test_a_script_that_lies_in_a_bundle_is_not_run(
    kdc: Kdc, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Listed in the manifest, and everything sealed again: a bundle that was made elsewhere."""
    monkeypatch.setenv("HF_TOKEN", "sesame")
    script, told = bundle / "runners" / name, tmp_path / "told"
    known = script.read_text(encoding="utf-8") if script.exists() else ""
    script.write_text(EVIL.format(told=str(told)) + known, encoding="utf-8")
    entry = {"path": f"runners/{name}", "sha256": file_sha256(script), "bytes": script.stat().st_size}

    def list_it(manifest: dict[str, Any]) -> None:
        manifest["support"] = [one for one in manifest["support"] if one["path"] != entry["path"]] + [entry]
        manifest["kdc"] = "0.0.7"

    edit(bundle / "bundle.json", list_it)
    seal(bundle)
    assert kdc("check", bundle).code in VERDICTS
    before = contents(bundle)
    refused = kdc("measure", bundle, *QUICK)
    assert refused.code == 2
    assert "was made by kdc 0.0.7, whose runners are not those of this kdc" in refused.err
    assert name in refused.err
    assert "kdc export" in refused.err
    assert not told.exists()
    assert contents(bundle) == before


@pytest.mark.parametrize("command", ["measure", "report"])
def test_a_file_of_the_users_in_best_is_not_removed(kdc: Kdc, bundle: Path, command: str) -> None:
    (bundle / "best" / "notes.txt").write_text("mine", encoding="utf-8")
    (bundle / "measurements" / "log.txt").write_text("new", encoding="utf-8")
    refused = kdc(command, bundle, *(QUICK if command == "measure" else ()))
    assert refused.code == 2
    assert "best/notes.txt is no file of the bundle, and best/ is made anew: move it" in refused.err
    assert (bundle / "best" / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_two_measurements_of_one_bundle(kdc: Kdc, bundle: Path) -> None:
    command = [sys.executable, "-m", "compressor", "measure", str(bundle), "--rounds", "400", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        try:
            while not (bundle / ".kdc.lock").exists():
                assert first.poll() is None
            refused = kdc("measure", bundle, *QUICK)
            assert refused.code == 2
            assert f"is being written by kdc measure (process {first.pid} on " in refused.err
            assert kdc("check", bundle).code in VERDICTS
        finally:
            first.kill()
    assert kdc("measure", bundle, *QUICK).code in VERDICTS
    assert left_in_bundle(bundle.parent) == []
