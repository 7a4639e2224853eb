"""A bundle that changes: at every call that touches the disk it may be killed, and one whole state counts."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import KdcError
from compressor.files import bundle_folder, locks
from compressor.files.bundle_change import deliver, new_folder, next_state, promote, settle
from compressor.files.bundle_folder import NEXT, UNMEASURED, claim, counted, files_of, holds_bundle, read_steadily
from compressor.report import check, finish, refresh, seal, verify
from compressor.report.integrity import seal_line
from compressor.schema.report import Report

Make = Callable[..., Path]

CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class KilledError(BaseException):
    """As if the process were gone: nothing that stands in its way catches it, and nothing that follows has effect."""


class _Killer:
    """Counts the calls that change files, and from the `at`-th on lets none happen."""

    def __init__(self) -> None:
        self.at, self.calls, self.on = 0, 0, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not (event in CHANGES or (event == "open" and int(arguments[2] or 0) & WRITES)):
            return
        self.calls += 1
        if self.at and self.calls >= self.at:
            raise KilledError


KILLER = _Killer()
sys.addaudithook(KILLER)


@contextmanager
def killed_at(at: int) -> Iterator[None]:
    KILLER.at, KILLER.calls, KILLER.on = at, 0, True
    try:
        yield
    except KilledError:
        pass
    finally:
        KILLER.on = False
        locks._held.clear()
        for handle in Path("/proc/self/fd").iterdir():  # a process that is gone holds no lock
            if handle.is_symlink() and str(handle.readlink()).removesuffix(" (deleted)").endswith(locks.LOCK):
                os.close(int(handle.name))


@pytest.fixture
def sealed(make_bundle: Make) -> Path:
    small = {"repeat": 100}
    bundle = make_bundle({"ort-fp32": {"wrong": 10, **small}, "teacher": {"role": "teacher", "p50": 6.0, **small}})
    finish(bundle)
    return bundle


def contents(folder: Path) -> dict[str, bytes]:
    return {path: (folder / path).read_bytes() for path in files_of(folder)}


def work_in(bundle: Path) -> list[str]:
    """What kdc has in the making, or a kill has left."""
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob(".kdc*"))


@pytest.fixture
def written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of the reports on one and the same report is made once: that takes longer than all that a kill is
    about, and touches no file."""
    package = import_module("compressor.report")
    texts_of, texts = package.texts_of, dict[str, dict[str, str]]()

    def once(bundle_dir: Path, report: Report, *others: Any) -> dict[str, str]:
        key = f"{report.model_dump_json()} {others[1:]}"
        if key not in texts:
            texts[key] = texts_of(bundle_dir, report, *others)
        return texts[key]

    monkeypatch.setattr(package, "texts_of", once)


def as_measured(bundle: Path) -> None:
    """As a measurement on the device leaves it: there is something for `kdc report` to take up."""
    (bundle / "measurements" / "log.txt").write_text("new", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.usefixtures("written_once")
def test_killed_at_any_call_a_report_leaves_the_old_or_the_new(sealed: Path, tmp_path: Path) -> None:
    """The seal of the old state covers what the device measured, so that both states pass the check."""
    as_measured(sealed)
    (sealed / "report.md").write_text("an older one\n", encoding="utf-8")
    seal(sealed)
    work, old = tmp_path / "work", contents(sealed)
    shutil.copytree(sealed, work)
    with killed_at(0):
        refresh(work)
    calls, new = KILLER.calls, contents(work)
    assert calls > 50
    assert new != old
    seen = set()
    for at in range(1, calls + 1):
        shutil.rmtree(work)
        shutil.copytree(sealed, work)
        with killed_at(at):
            refresh(work)
        left = contents(counted(work))
        assert left in (old, new), at
        seen.add(left == new)
        check(work)
        refresh(work)
        assert contents(work) == new, at
        assert work_in(work) == [], at
    assert seen == {True, False}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_killed_at_any_call_a_new_bundle_is_there_or_not(sealed: Path, tmp_path: Path) -> None:
    """What is put in the place of nothing, and what is put beside a bundle and then in its place."""
    other = contents(sealed)
    for beside in (False, True):
        for at in range(1, 400):
            out = tmp_path / "out"
            shutil.rmtree(out, ignore_errors=True)
            if beside:
                shutil.copytree(sealed, out)
                (out / "old.txt").write_text("of the old one", encoding="utf-8")
                seal(out)
            else:
                out.mkdir()
            old = contents(out)
            with killed_at(at):
                made = new_folder(out, "export")
                for path, content in other.items():
                    (made / path).parent.mkdir(parents=True, exist_ok=True)
                    (made / path).write_bytes(content)
                if (place := deliver(made, out)) != out:
                    promote(place, out)
            done = KILLER.calls < at
            assert contents(counted(out)) in (old, other), at
            waiting = (out / UNMEASURED).exists()
            if waiting and contents(counted(out)) == old:
                assert contents(out / UNMEASURED) == other, at
            settle(out)
            assert contents(out) in (old, other), at
            assert work_in(out) in ([], [UNMEASURED]), at
            if done:
                break
        else:
            pytest.fail("it never came to its end")
        assert contents(out) == other


def test_a_folder_that_has_no_links_is_copied(sealed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    before = contents(sealed)
    with next_state(sealed) as following:
        assert contents(following) == {path: text for path, text in before.items() if path != "SHA256SUMS"}
        (following / "report.md").write_text("another\n", encoding="utf-8")
        shutil.rmtree(following / "best")
        seal(following)
    after = contents(sealed)
    assert after["report.md"] == b"another\n"
    assert not any(path.startswith("best/") for path in after)
    assert work_in(sealed) == []


def test_where_the_inside_fails_nothing_has_changed_and_the_bundle_is_named(sealed: Path) -> None:
    before = contents(sealed)

    def fails() -> None:
        with next_state(sealed) as following:
            (following / "report.md").unlink()
            raise KdcError(f"{following}/report.md is gone")

    with pytest.raises(KdcError, match=rf"^{sealed}/report\.md is gone$"):
        fails()
    assert contents(sealed) == before
    assert work_in(sealed) == []


def test_what_a_kill_leaves_is_passed_over_never_sealed_in_and_removed(sealed: Path) -> None:
    for name in (".kdc-tmp.next.0123/bundle.json", ".kdc-tmp.report.0123.json", "best/.kdc-tmp.x", ".kdc.lock"):
        (sealed / name).parent.mkdir(exist_ok=True)
        (sealed / name).write_text("half", encoding="utf-8")
    (sealed / ".kdc-tmp.link").symlink_to("/etc/passwd")
    check(sealed)
    seal(sealed)
    assert "kdc-tmp" not in (sealed / "SHA256SUMS").read_text(encoding="utf-8")
    refresh(sealed)
    assert work_in(sealed) == ["best/.kdc-tmp.x"], "deep in best/, which a new one replaces"
    as_measured(sealed)
    refresh(sealed)
    assert work_in(sealed) in ([], ["best/.kdc-tmp.x"])


def test_a_manifest_cannot_name_what_kdc_has_in_the_making(sealed: Path) -> None:
    text = (sealed / "bundle.json").read_text(encoding="utf-8")
    (sealed / ".kdc-tmp.labels").write_bytes((sealed / "eval" / "labels.npy").read_bytes())
    (sealed / "bundle.json").write_text(text.replace("eval/labels.npy", ".kdc-tmp.labels"), encoding="utf-8")
    seal(sealed)
    with pytest.raises(KdcError, match="in the making"):
        check(sealed)


def test_a_state_that_is_being_put_in_place_counts_and_what_lies_beside_it_is_looked_at(sealed: Path) -> None:
    whole = contents(sealed)
    shutil.copytree(sealed, sealed / NEXT)
    (sealed / "best" / "labels.txt").unlink()  # on the way
    (sealed / "SHA256SUMS").unlink()
    check(sealed)
    assert "kdc report" in seal_line(sealed)
    (sealed / "model-of-another.onnx").write_bytes(b"another")
    with pytest.raises(KdcError, match=r"model-of-another\.onnx is neither what it was nor"):
        check(sealed)
    (sealed / "model-of-another.onnx").unlink()
    refresh(sealed)
    assert contents(sealed) == whole
    assert work_in(sealed) == []
    assert "kdc report" not in seal_line(sealed)


def test_a_file_of_the_users_is_not_removed_with_the_state_before(sealed: Path) -> None:
    shutil.copytree(sealed, sealed / NEXT)
    (sealed / "notes.txt").write_text("mine", encoding="utf-8")
    settle(sealed)
    assert (sealed / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_who_reads_while_another_state_is_put_in_place_reads_again(sealed: Path) -> None:
    tries = []

    def read() -> str:
        tries.append(1)
        if len(tries) == 1:
            with next_state(sealed) as following:
                (following / "report.md").write_text("another\n", encoding="utf-8")
                seal(following)
            raise KdcError("report.md was changed")
        return (counted(sealed) / "report.md").read_text(encoding="utf-8")

    assert read_steadily(sealed, read) == "another\n"
    assert len(tries) == 2

    def fails() -> None:
        tries.append(1)
        raise KdcError("report.md was changed")

    with pytest.raises(KdcError):
        read_steadily(sealed, fails)
    assert len(tries) == 3, "nobody else writes, so it is an error at once"


@pytest.mark.slow
def test_reports_at_once_all_succeed(sealed: Path) -> None:
    """Three processes, with something to take up: each waits for the others."""
    as_measured(sealed)
    code = "import sys; from compressor.cli.app import main; sys.argv = ['kdc', 'report', sys.argv[1]]; main()"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(sealed)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    ended = [(process.communicate()[1], process.returncode) for process in running]
    assert [code for _, code in ended] == [0, 0, 0], ended
    check(sealed)


def test_a_bundle_that_another_command_writes_is_told_by_its_name(sealed: Path) -> None:
    as_measured(sealed)
    hold = (
        "import sys, time; from pathlib import Path; from compressor.files.locks import locked\n"
        "with locked(Path(sys.argv[1]), 'kdc measure'): print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(sealed)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(import_module("compressor.report"), "WAIT_S", 0.2)
                with pytest.raises(KdcError, match=rf"is being written by kdc measure \(process {holder.pid} on "):
                    refresh(sealed)
            with pytest.raises(KdcError, match=r"log\.txt is not listed"):  # reading needs no lock
                check(sealed)
        finally:
            holder.kill()


def test_a_report_with_nothing_new_writes_nothing(sealed: Path) -> None:
    before = {path: (sealed / path).stat().st_mtime_ns for path in files_of(sealed)}
    with killed_at(1):
        refresh(sealed)
    assert KILLER.calls == 0
    assert {path: (sealed / path).stat().st_mtime_ns for path in files_of(sealed)} == before


@pytest.mark.parametrize("manifest", ["", "{", "[1]", '{"schema": 1}', "\x00"])
@pytest.mark.parametrize("texts", ["as they are made now", "of an earlier kdc"])
def test_a_manifest_of_best_that_says_nothing_is_made_anew(sealed: Path, manifest: str, texts: str) -> None:
    """Sealed in, so that only best/ itself tells. Whether there is more to write makes no difference."""
    before = contents(sealed)
    (sealed / "best" / "manifest.json").write_text(manifest, encoding="utf-8")
    if texts == "of an earlier kdc":
        (sealed / "report.html").write_text("an earlier page\n", encoding="utf-8")
    seal(sealed)
    with pytest.raises(KdcError, match=rf"^{sealed}/best/manifest\.json cannot be read: ") as caught:
        check(sealed)
    assert caught.value.hint == f"kdc report {sealed}"
    assert caught.value.message.count("manifest.json") == 1
    refresh(sealed)
    assert contents(sealed) == before


NARROW = """
import sys
from pathlib import Path
from compressor.report import build_report, texts_of
from compressor.report.read import read_results
folder = Path(sys.argv[1])
for name, text in texts_of(folder, build_report(folder), read_results(folder)).items():
    if text != (folder / name).read_text(encoding="utf-8"):
        print(name)
"""


@pytest.mark.slow
def test_a_processor_with_narrower_vectors_makes_the_same_texts(sealed: Path) -> None:
    """numpy's exp and log differ in the last digit with AVX-512 and without."""
    numpys = import_module("numpy._core._multiarray_umath")
    wide = [name for name in numpys.__cpu_dispatch__ if numpys.__cpu_features__[name]]
    if not wide:
        pytest.skip("this processor has no wider vectors than numpy needs anywhere")
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(wide)}
    done = subprocess.run(
        [sys.executable, "-c", NARROW, str(sealed)], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("prepare", "overwrite", "said"),
    [
        (lambda out: out.write_text("a file"), True, "exists and is no folder"),
        (lambda out: (out / "photos").mkdir(parents=True) or (out / "photos" / "a.jpg").touch(), True, "is no bundle"),
        (lambda out: out.symlink_to(out.parent / "nowhere"), True, "exists and is no folder"),
    ],
)
def test_what_is_no_bundle_is_no_place_for_one(
    prepare: Callable[[Path], object], overwrite: bool, said: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "out")
    with pytest.raises(KdcError, match=said):
        claim(tmp_path / "out", overwrite)


def test_a_place_for_a_bundle(sealed: Path, tmp_path: Path) -> None:
    claim(tmp_path / "new", overwrite=False)
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty", overwrite=False)
    (tmp_path / "empty" / ".kdc-tmp.export.0123").mkdir()  # an export that was killed
    (tmp_path / "empty" / ".kdc.lock").touch()
    claim(tmp_path / "empty", overwrite=False)
    with pytest.raises(KdcError, match="holds a bundle") as caught:
        claim(sealed, overwrite=False)
    assert "--overwrite" in caught.value.hint
    claim(sealed, overwrite=True)
    (sealed / "measurements" / "log.txt").touch()
    claim(sealed, overwrite=True)
    (sealed / "notes.txt").touch()
    with pytest.raises(KdcError, match=r"holds notes\.txt, which is no file of that bundle and would be lost"):
        claim(sealed, overwrite=True)
    (sealed / "notes.txt").unlink()
    (sealed / "best" / ".DS_Store").touch()
    with pytest.raises(KdcError, match=r"holds best/\.DS_Store") as caught:
        claim(sealed, overwrite=True)
    assert caught.value.hint == f"rm -r {sealed}/best/.DS_Store"
    (sealed / "best" / ".DS_Store").unlink()
    (sealed / "measurements" / "log.txt").unlink()
    (tmp_path / "killed").mkdir()
    sealed.rename(tmp_path / "killed" / NEXT)  # a first export, killed between two renames
    with pytest.raises(KdcError, match="holds a bundle"):
        claim(tmp_path / "killed", overwrite=False)
    assert holds_bundle(tmp_path / "killed")
    verify(tmp_path / "killed")


def test_a_session_by_hand_is_left_alone_for_a_day(sealed: Path) -> None:
    left = sealed / "measurements" / ".kdc-tmp.session-x"
    left.mkdir()
    settle(sealed)
    assert left.exists()
    os.utime(left, (0, 0))
    settle(sealed)
    assert not left.exists()


def test_names_of_kdcs_own() -> None:
    assert bundle_folder.is_working(".kdc-next", top=True)
    assert not bundle_folder.is_working(".kdc-next", top=False)
    assert bundle_folder.is_working(".kdc-tmp.x", top=False)
    assert not bundle_folder.is_working("kdc-tmp.x", top=True)


def test_a_file_of_the_users_in_best_is_no_reason_to_remove_it(sealed: Path) -> None:
    (sealed / "best" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(KdcError, match=r"holds best/notes\.txt, which is no file of that bundle"):
        claim(sealed, overwrite=True)
    (sealed / "best" / "notes.txt").unlink()
    claim(sealed, overwrite=True)
