"""`kdc export` under force: over a bundle that exists, stopped half-way, on mount points, behind links."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.files.bundle_folder import UNMEASURED, files_of
from compressor.measure import session
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from tests.kit import Ended

Kdc = Callable[..., Ended]
FAST = ("--target", "onnxruntime", "--precision", "fp32", "--rounds", 11, "--no-throughput", "--quiet")


@pytest.fixture
def export(kdc: Kdc, student_run: Path, here: Path) -> Callable[..., Ended]:
    """export(OUT, …)"""
    return lambda out, *more: kdc("export", student_run, "--profile", here, "--out", out, *FAST, *more)


Export = Callable[..., Ended]


@contextmanager
def disk(place: Path, options: str = "size=20m") -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs can only be mounted by root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in files_of(folder)}


def work_in(bundle: Path) -> list[str]:
    return sorted(path.name for path in bundle.rglob(".kdc*"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), KdcError("pip install onnxruntime", "", 4)])
def test_the_bundle_before_stays_until_the_new_one_is_measured_and_sealed(
    kdc: Kdc, export: Export, bundle: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    before = contents(bundle)

    def stopped(*_: object, **__: object) -> None:
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(session, "open_link", stopped)
        ended = export(bundle, "--overwrite")
    assert ended.code in (4, 130)
    assert f"waits in {bundle}/{UNMEASURED}, while the bundle before it stays" in ended.err
    assert f"kdc measure {bundle} finishes it" in ended.err
    assert contents(bundle) == before
    assert kdc("check", bundle).code == 0
    assert work_in(bundle) == [UNMEASURED]
    assert export(bundle).code == 2  # without --overwrite
    assert (bundle / UNMEASURED / "bundle.json").exists()

    done = kdc("measure", bundle, "--rounds", 11, "--no-throughput")
    assert done.code == 0, done.err
    assert "newer export that was not measured yet" in done.err
    assert work_in(bundle) == []
    assert {one.name for one in read_json(bundle / "bundle.json", Bundle).variants} == {
        "onnxruntime-fp32",
        "teacher-onnxruntime-fp32",
    }
    assert not any(path.startswith("openvino-f32/") for path in files_of(bundle)), "of the bundle before"
    assert kdc("check", bundle).code == 0


def test_a_first_export_that_was_not_measured_is_finished_by_measure(
    kdc: Kdc, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "open_link", stopped)
        assert export(out).code == 130
    assert (out / "bundle.json").exists(), "as it travels to a device"
    assert work_in(out) == []
    unfinished = kdc("check", out)
    assert unfinished.code == 2
    assert f"kdc measure {out}" in unfinished.err
    assert kdc("measure", out, "--rounds", 11, "--no-throughput", "--quiet").code == 0
    assert kdc("check", out).code == 0


def test_an_export_may_race_against_the_bundle_that_it_replaces(kdc: Kdc, export: Export, bundle: Path) -> None:
    out = bundle
    ended = export(out, "--overwrite", "--baseline", out)
    assert ended.code == 0, ended.out
    assert "holds a newer export" not in ended.err, "that is this command's own"
    roles = {one.role for one in read_json(out / "bundle.json", Bundle).variants}
    assert "baseline" in roles
    assert kdc("check", out).code == 0


def test_a_mount_point_is_a_place_for_a_bundle(kdc: Kdc, export: Export, tmp_path: Path) -> None:
    """A container's volume: it cannot be renamed, and its parent may be read-only."""
    with disk(tmp_path / "volume") as out:
        for more in ((), ("--overwrite",)):
            ended = export(out, *more)
            assert ended.code == 0, ended.err
            assert kdc("check", out).code == 0
            assert work_in(out) == []
        assert kdc("measure", out, "--rounds", 11, "--no-throughput", "--quiet").code == 0
    assert list(tmp_path.iterdir()) == [tmp_path / "volume"]


def test_a_link_is_followed(kdc: Kdc, export: Export, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for more in ((), ("--overwrite",)):
        assert export(tmp_path / "link", *more).code == 0
        assert (tmp_path / "link").is_symlink()
        assert kdc("check", tmp_path / "real").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_what_cannot_be_written_is_told_before_minutes_of_work(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def works(*_: object, **__: object) -> None:
        raise AssertionError("it began to work")

    monkeypatch.setattr(import_module("compressor.export"), "export_bundle", works)
    with disk(tmp_path / "volume", "size=1m,ro") as out:
        for place in (out, out / "bundle"):
            ended = export(place)
            assert ended.code == 2
            assert "Read-only file system" in ended.err
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name in ("file", "loop", "nowhere", "file/bundle"):
        ended = export(tmp_path / name, "--overwrite")
        assert ended.code == 2, name
        assert "bug in kdc" not in ended.err
    assert (tmp_path / "file").read_text() == "mine"


def test_files_of_the_users_in_a_bundle_are_not_removed(export: Export, bundle: Path) -> None:
    (bundle / "notes.txt").write_text("mine")
    before = contents(bundle)
    ended = export(bundle, "--overwrite")
    assert ended.code == 2
    assert "notes.txt" in ended.err
    assert contents(bundle) == before


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_all_of_a_bundle_is_as_the_umask_says(export: Export, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert export(tmp_path / "bundle").code == 0
    finally:
        os.umask(before)
    found = [tmp_path / "bundle", *(tmp_path / "bundle").rglob("*")]
    assert len(found) > 40
    for path in found:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert oct(path.stat().st_mode & 0o777) == oct(wanted), path


def test_a_full_disk_leaves_the_bundle_before(kdc: Kdc, export: Export, bundle: Path, tmp_path: Path) -> None:
    pages = sum(-(-path.stat().st_size // 4096) * 4 for path in bundle.rglob("*") if path.is_file())
    for free in (40, 400, 700):
        with disk(tmp_path / "volume", f"size={pages + free}k") as volume:
            old = Path(shutil.copytree(bundle, volume / "bundle"))
            before = contents(old)
            ended = export(old, "--overwrite")
            assert ended.code == 2, ended.err
            assert "no space left" in ended.err.lower()
            assert contents(old) == before
            assert work_in(old) in ([], [UNMEASURED])
            assert kdc("check", old).code == 0


def test_another_valid_model_in_best_is_seen(kdc: Kdc, bundle: Path) -> None:
    """Sealed again: SHA256SUMS holds, and best/ is not the variant that it claims to be."""
    from compressor.report import seal

    best = bundle / "best"
    models = {path: path.read_bytes() for path in best.iterdir() if path.suffix in (".onnx", ".xml", ".bin")}
    (model, *_) = models
    others = [path for path in bundle.rglob(f"*{model.suffix}") if path.read_bytes() != models[model]]
    changes: list[Callable[[], object]] = [
        lambda: shutil.copyfile(others[0], model),
        lambda: (best / "labels.txt").write_text("blue\nred\ngreen\n"),
        lambda: (best / "classify.py").write_text("print('anything')"),
        lambda: (best / "extra.py").write_text("print('anything')"),
        lambda: (best / "preprocess.json").unlink(),
        lambda: (best / "manifest.json").write_text((best / "manifest.json").read_text().replace('"chosen"', '"why"')),
        lambda: shutil.rmtree(best),
    ]
    for number, change in enumerate(changes):
        kept = contents(bundle)
        change()
        seal(bundle)
        refused = kdc("check", bundle)
        assert refused.code == 2, number
        assert "best/" in refused.err, number
        assert kdc("report", bundle).code == 0, number
        assert contents(bundle) == kept, f"{number}: best/ is made anew, and all else is as it was"
        for path in bundle.rglob("*"):
            if path.is_file():
                path.unlink()
        for name, content in kept.items():
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            (bundle / name).write_bytes(content)
    assert kdc("check", bundle).code == 0


def test_check_says_that_a_seal_is_no_signature(kdc: Kdc, bundle: Path) -> None:
    said = kdc("check", bundle)
    assert said.code == 0
    assert "unsigned" in said.out
    assert "can seal it again" in said.out
