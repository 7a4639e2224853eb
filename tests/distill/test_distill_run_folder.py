"""RUN/: one command at a time writes it, and only what kdc made there is removed."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest

from compressor.distill import Resources, distill, distill_chain, precompute, specialists, teach
from compressor.distill.run_files import sweep
from compressor.distill.run_folder import Destination, acquire, discard_backup, rollback, start
from compressor.errors import KdcError
from compressor.files.locks import LOCK, locked
from compressor.models import load_run
from compressor.progress import Progress, Silent
from compressor.schema.base import write_json
from compressor.schema.specialists import SpecialistsRequest
from compressor.schema.student import Request, Student
from tests.forked import python
from tests.kit import Hearing, diverging

Ask = Callable[..., Request]
T = TypeVar("T")
HOLD = """
import pathlib, sys, time
from compressor.files.locks import locked
with locked(pathlib.Path(sys.argv[1]), "kdc teach"):
    print("held", flush=True)
    time.sleep(120)
"""


def run(
    request: Request, out: Path, progress: Progress | None = None, *, resume: bool = False, overwrite: bool = False
) -> Student:
    no_cache = Resources(teacher_cache=None)
    return distill(
        request, Destination(out, resume=resume, overwrite=overwrite), progress=progress or Silent(), resources=no_cache
    )


@pytest.fixture
def hold() -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """`hold(out)`: another process writes there."""
    begun = []

    def begin(out: Path) -> "subprocess.Popen[str]":
        begun.append(
            subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True)
        )  # fmt: skip
        assert begun[-1].stdout is not None
        assert begun[-1].stdout.readline() == "held\n"
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# -- what is removed --


class PutsNotes(Silent):
    """A user who puts notes into the folder while it is trained in; then the training is interrupted, or fails."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        for item in items:
            if doing.startswith("epoch"):
                self.notes.parent.mkdir(parents=True, exist_ok=True)
                self.notes.write_text("mine")
                raise KeyboardInterrupt
            yield item


def test_a_run_that_is_given_up_leaves_what_the_user_put_there(tmp_path: Path, ask_distill: Ask) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(), out, PutsNotes(out / "notes.txt"))
    assert everything(out) == ["notes.txt"]
    with pytest.raises(KdcError, match="is no run of kdc, so it is left alone"):
        run(ask_distill(), out)


def test_also_deep_in_a_run(tmp_path: Path, ask_distill: Ask) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(), out, PutsNotes(out / "checkpoint" / "notes.txt"))
    assert everything(out) == ["checkpoint", "checkpoint/notes.txt"]


def test_a_folder_that_was_there_stays(tmp_path: Path, ask_distill: Ask) -> None:
    """It may be a mount point."""
    out = tmp_path / "run"
    out.mkdir()
    inode = out.stat().st_ino
    with pytest.raises(KdcError, match="not finite"):
        run(diverging(ask_distill()), out)
    assert everything(tmp_path) == ["run"]
    assert out.stat().st_ino == inode


def test_a_finished_run_is_not_given_up(tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while it is read back."""

    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    request = ask_distill(epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(import_module("compressor.distill.finishing"), "load_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(request, tmp_path / "run")
    assert load_run(tmp_path / "run")[1].kept_epoch == 1
    assert run(request, tmp_path / "run", resume=True).kept_epoch == 1


@pytest.mark.parametrize("where", ["notes.txt", "checkpoint/notes.txt", "float/mine/notes.txt", "assistants/notes.txt"])
def test_overwriting_is_refused_where_something_of_the_users_lies_at_any_depth(
    tmp_path: Path, ask_distill: Ask, where: str
) -> None:
    out = tmp_path / "run"
    write_json(out / "run.json", ask_distill())
    (out / where).parent.mkdir(parents=True, exist_ok=True)
    (out / where).write_text("mine")
    with pytest.raises(KdcError, match="which is no part of the run, so it is left alone") as caught:
        acquire(Destination(out, overwrite=True), ask_distill())
    assert where.startswith(str(caught.value.message).partition(" holds ")[2].partition(" too")[0])


def test_what_was_put_there_after_the_question_stays_too(tmp_path: Path, ask_distill: Ask) -> None:
    out = tmp_path / "run"
    for name in (
        "checkpoint/state.pt",
        "float/run.json",
        "assistants/1/student.json",
        "hf/config.json",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    write_json(out / "run.json", ask_distill())
    assert not acquire(Destination(out, overwrite=True), ask_distill())
    for name in ("notes.txt", "float/notes.txt", "hf/weights.bin"):
        (out / name).write_text("mine")
    start(Destination(out), ask_distill(epochs=3))
    discard_backup(out)
    assert everything(out) == ["float", "float/notes.txt", "hf", "hf/weights.bin", "notes.txt", "run.json"]
    rollback(out)
    assert "notes.txt" in everything(out)


def test_a_link_in_a_run_goes_and_not_what_it_leads_to(tmp_path: Path, ask_distill: Ask) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "disk"
    elsewhere.mkdir()
    (elsewhere / "state.pt").write_text("another's")
    write_json(out / "run.json", ask_distill())
    (out / "checkpoint").symlink_to(elsewhere)
    rollback(out)
    assert everything(out) == []
    assert (elsewhere / "state.pt").read_text() == "another's"


# -- where it may lie --


def test_not_among_the_images(tmp_path: Path, ask_distill: Ask) -> None:
    images = tmp_path / "photos"
    (images / "red").mkdir(parents=True)
    for out in (images / "run", images / "red" / "run", tmp_path / "photos" / ".." / "photos" / "run"):
        with pytest.raises(KdcError, match="lies among the data of folder:"):
            run(ask_distill(data=f"folder:{images}"), out)
    more = ask_distill().model_copy(update={"unlabelled": str(images)})
    with pytest.raises(KdcError, match="lies among the data of "):
        run(more, images / "run")
    (tmp_path / "link").symlink_to(images)
    with pytest.raises(KdcError, match="lies among the data of "):
        precompute(
            ask_distill(data=f"folder:{images}", views={"distinct": 2}), tmp_path / "link" / "run", progress=Silent()
        )
    assert everything(images) == ["red"]


def test_beside_the_images_and_in_the_folder_of_an_idx_data_set(tmp_path: Path, ask_distill: Ask) -> None:
    """Nothing looks there for more."""
    (tmp_path / "photos").mkdir()
    assert not acquire(Destination(tmp_path / "run"), ask_distill(data=f"folder:{tmp_path / 'photos'}"))
    assert not acquire(Destination(tmp_path / "run"), ask_distill(data=f"idx:{tmp_path}"))
    assert not acquire(Destination(tmp_path / "run"), ask_distill(data=f"csv:{tmp_path}/a.csv"))


def test_a_link_to_nowhere(tmp_path: Path, ask_distill: Ask) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "unmounted")
    with pytest.raises(KdcError, match=r"is a link to .*unmounted, which does not exist"):
        run(ask_distill(), tmp_path / "run")
    assert not (tmp_path / "unmounted").exists()


def test_a_link_to_a_folder_is_that_folder(tmp_path: Path, ask_distill: Ask) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    run(ask_distill(epochs=1), tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "disk" / "student.json").is_file()


@pytest.mark.parametrize("out", ["/", "~", "."])
def test_home_the_root_and_here_are_left_alone(out: str, ask_distill: Ask) -> None:
    place = Path(out).expanduser()
    if not any(place.iterdir()):
        pytest.skip("it is empty")
    for overwrite in (False, True):
        with pytest.raises(KdcError, match="is no run of kdc, so it is left alone"):
            run(ask_distill(), place, overwrite=overwrite)
    assert not (place / LOCK).exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, ask_distill: Ask) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(KdcError, match="Permission denied"):
            run(ask_distill(), tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)


def test_the_umask_is_honoured(tmp_path: Path, ask_distill: Ask) -> None:
    before = os.umask(0o027)
    try:
        run(ask_distill(epochs=1), tmp_path / "run")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()}
    assert {"run.json", "student.json", "student.safetensors", "history.jsonl"} <= set(modes)
    assert set(modes.values()) == {0o640}


# -- one at a time --


def test_the_second_is_told_who_writes_there(
    tmp_path: Path, ask_distill: Ask, ask_teach: Ask, hold: Callable[[Path], Any]
) -> None:
    out = tmp_path / "run"
    write_json(out / "run.json", ask_distill())
    process = hold(out)
    told = rf"run is being written by kdc teach \(process {process.pid} on "
    for resume in (True, False):
        with pytest.raises(KdcError, match=told):
            run(ask_distill(), out, resume=resume, overwrite=not resume)
    with pytest.raises(KdcError, match=told):
        precompute(ask_distill(views={"distinct": 2}), out, progress=Silent())
    assert everything(out) == [LOCK, "run.json"]
    hold(tmp_path / "new")
    with pytest.raises(KdcError, match="new is being written by kdc teach"):
        teach(ask_teach(), Destination(tmp_path / "new"), progress=Silent())
    (tmp_path / "link").symlink_to(tmp_path / "new")
    with pytest.raises(KdcError, match="is being written by kdc teach"):
        distill_chain(
            ask_distill().model_copy(update={"assistants": ("timm:test_resnet",)}), Destination(tmp_path / "link"),
            progress=Silent(),
        )  # fmt: skip
    request = SpecialistsRequest(
        task="image-classification",
        teacher="run:none",
        data="digits",
        skip_bad=False,
        input_size=None,
        count=2,
        recipe=ask_teach().recipe,
    )
    with pytest.raises(KdcError, match="is being written by kdc teach"):
        specialists(request, Destination(tmp_path / "new"), jobs=1, progress=Silent())


def test_a_run_that_was_killed_locks_nothing(tmp_path: Path, ask_distill: Ask, hold: Callable[[Path], Any]) -> None:
    process = hold(tmp_path / "run")
    process.kill()
    process.wait()
    assert everything(tmp_path / "run") == [LOCK]
    run(ask_distill(epochs=1), tmp_path / "run")
    assert LOCK not in everything(tmp_path / "run")


def test_two_runs_side_by_side_decode_apart(tmp_path: Path, ask_distill: Ask) -> None:
    """And their images lie in the run, under a name that says that they are no one's data."""
    found: dict[str, list[str]] = {}

    class Looking(Silent):
        def __init__(self, name: str) -> None:
            self.name = name

        def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
            for item in items:
                if doing.startswith("epoch"):
                    found.setdefault(self.name, sorted(path.name for path in (tmp_path / self.name).iterdir()))
                yield item

    (tmp_path / "b").mkdir()
    for name in ("a", "b"):
        run(ask_distill(epochs=1), tmp_path / name, Looking(name))
    assert found["a"] == found["b"] == [".kdc-tmp.decoded-0", LOCK, "run.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_a_kill_left_goes_with_the_next_command(tmp_path: Path, ask_distill: Ask) -> None:
    out = tmp_path / "run"
    left = [
        ".kdc-tmp.decoded-0/train.npy", ".kdc-tmp.run.0123abcd.json", "checkpoint/.kdc-tmp.state.0123abcd.pt",
        "hf/.kdc-tmp.config.0123abcd.json",
    ]  # fmt: skip
    for name in left:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    sweep(out)
    assert everything(out) == ["checkpoint", "hf"]
    for name in left[:2]:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).touch()
    for folder in ("checkpoint", "hf"):
        (out / folder).rmdir()
    run(ask_distill(epochs=1), out)  # it counts as empty
    assert not [name for name in everything(out) if ".kdc" in name]


@pytest.mark.slow
def test_two_that_begin_at_the_same_moment(tmp_path: Path, ask_distill: Ask) -> None:
    """One is trained, the other is told so; nothing of either is lost. With locks of one process a thread would not
    do: the second is a process."""
    code = """
import json, pathlib, sys
from compressor.distill import Destination, distill
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.student import Request
request = Request.model_validate_json(pathlib.Path(sys.argv[1]).read_text())
print("ready", flush=True)
sys.stdin.readline()
try:
    distill(request, Destination(pathlib.Path(sys.argv[2])), progress=Silent())
    print("trained")
except KdcError as error:
    print(error.message)
"""
    write_json(tmp_path / "request.json", ask_distill(epochs=3))
    pair = [
        subprocess.Popen(
            [*python(), "-c", code, str(tmp_path / "request.json"), str(tmp_path / "run")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = sorted(process.communicate(timeout=200)[0].strip() for process in pair)
    assert said[1] == "trained"
    assert "is being written by kdc distill (process " in said[0] or "holds a finished run" in said[0]
    assert load_run(tmp_path / "run")[1].kept_epoch == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request.json", "run"]


@pytest.mark.slow
def test_two_at_once_share_a_cache_of_answers(tmp_path: Path, ask_distill: Ask) -> None:
    """And learn what one alone learns."""
    request = ask_distill(epochs=5, views={"scale": (0.7, 1.0), "hflip": False, "distinct": 2})
    resources = Resources(teacher_cache=tmp_path / "cache")
    run(request, tmp_path / "alone")
    write_json(tmp_path / "request.json", request)
    code = """
import pathlib, sys
from compressor.distill import Destination, Resources, distill
from compressor.progress import Silent
from compressor.schema.student import Request
folder = pathlib.Path(sys.argv[1])
request = Request.model_validate_json((folder / "request.json").read_text())
resources = Resources(teacher_cache=folder / "cache")
distill(request, Destination(folder / sys.argv[2]), progress=Silent(), resources=resources)
"""
    command = [*python(), "-c", code, str(tmp_path)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads that spin would wait for each other
    pair = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True, env=alone) for name in ("one", "two")]
    try:
        said = [process.communicate(timeout=600)[1] for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [(process.returncode, text) for process, text in zip(pair, said, strict=True)] == [(0, ""), (0, "")]
    weights = {(tmp_path / name / "student.safetensors").read_bytes() for name in ("alone", "one", "two")}
    assert len(weights) == 1
    (folder,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["key.json", "records"]
    progress = Hearing()
    distill(request, Destination(tmp_path / "three"), progress=progress, resources=resources)
    assert not [text for text in progress.warnings if "damaged" in text]
    assert (tmp_path / "three" / "student.safetensors").read_bytes() in weights


# -- interruptions --


class Interrupts(Hearing):
    """Presses Ctrl-C when something is said."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def note(self, text: str) -> None:
        super().note(text)
        if self.when in text:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("when", ["data idx", "teacher run:", "epochs of", "kept epoch"])
def test_interrupted_between_the_phases_of_a_run(tmp_path: Path, ask_distill: Ask, when: str) -> None:
    """Nothing is left, or a state, and then it says how to go on."""
    out, progress = tmp_path / "run", Interrupts(when)
    request = ask_distill()
    with pytest.raises(KeyboardInterrupt):
        run(request, out, progress)
    assert not list(tmp_path.rglob(".kdc*"))
    if when != "kept epoch":
        assert not out.exists()
        return
    assert f"stopped; the state is saved in {out}: the same command with --resume goes on" in progress.warnings
    run(request, out, resume=True)
    run(request, tmp_path / "whole")
    assert (out / "student.safetensors").read_bytes() == (tmp_path / "whole" / "student.safetensors").read_bytes()
    assert not (out / "checkpoint").exists()


@pytest.mark.slow
def test_interrupted_between_the_links_of_a_chain(tmp_path: Path, ask_distill: Ask) -> None:
    out, progress = tmp_path / "run", Interrupts("the student: ")
    request = ask_distill(epochs=6).model_copy(update={"assistants": ("timm:test_resnet",)})
    with pytest.raises(KeyboardInterrupt):
        distill_chain(request, Destination(out), progress=progress)
    assert progress.warnings[-1].startswith(f"stopped; the state is saved in {out}: ")
    distill_chain(request, Destination(out, resume=True), progress=Silent())
    assert json.loads((out / "student.json").read_text())["assistants"]


def test_a_run_that_was_replaced_is_not_said_to_be_the_one_to_go_on_with(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    out, progress = tmp_path / "run", Interrupts("epochs of")
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(), out, interrupt_at(2))
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(epochs=3), out, progress, overwrite=True)
    assert not progress.warnings
    run(ask_distill(), out, resume=True)


class Hup(Silent):
    """The terminal goes away in the middle of the fourth step; a shell says so twice."""

    left = 3

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        for item in items:
            if doing.startswith("epoch"):
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGHUP)
                    os.kill(os.getpid(), signal.SIGTERM)
                    os.kill(os.getpid(), signal.SIGHUP)
                self.left -= 1
            yield item


def test_a_terminal_that_goes_away_costs_no_step(tmp_path: Path, ask_distill: Ask) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(ask_distill(), tmp_path / "run", Hup())
    finally:
        signal.signal(signal.SIGHUP, before)
    progress = Hearing()
    run(ask_distill(), tmp_path / "run", progress, resume=True)
    assert "resuming at epoch 1 of 2, step 4" in progress.notes


def test_nothing_stops_a_state_that_is_being_saved(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a second Ctrl-C."""
    from compressor.distill.loop import checkpoint, engine

    def pressed(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        checkpoint.save_state(*arguments)

    monkeypatch.setattr(engine, "save_state", pressed)
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(), tmp_path / "run", interrupt_at(3))
    assert (tmp_path / "run" / "checkpoint" / "state.pt").is_file()


def test_in_a_thread_there_are_no_signals(tmp_path: Path, ask_distill: Ask) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run(ask_distill(epochs=1), tmp_path / "run")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert (tmp_path / "run" / "student.json").is_file()


def test_locks_are_gone_where_it_was_refused(tmp_path: Path, ask_distill: Ask) -> None:
    with pytest.raises(KdcError):
        run(ask_distill(data="idx:nowhere"), tmp_path / "a" / "run")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "run", "kdc distill"):
        pass


def test_to_resume_and_to_overwrite_is_to_resume(tmp_path: Path, ask_distill: Ask) -> None:
    """As the same command with --resume is, where one that was to overwrite was interrupted: never a student of new
    settings beside the record of the old ones."""
    out = tmp_path / "run"
    start(Destination(out), ask_distill())
    (out / "student.json").touch()
    assert acquire(Destination(out, resume=True, overwrite=True), ask_distill()), "it is finished, and not replaced"
    with pytest.raises(KdcError, match=r"recipe\.epochs was 2, now 3") as caught:
        acquire(Destination(out, resume=True, overwrite=True), ask_distill(epochs=3))
    assert caught.value.hint == "leave --resume out to replace it, or choose another --out"
    assert not acquire(Destination(out, overwrite=True), ask_distill(epochs=3))
