"""Specialists, whole: trained in processes of their own, interrupted and resumed, and distilled into one student."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from compressor.data.specialty import DUSTBIN
from compressor.distill import distill, specialists, teach
from compressor.distill.host import subprocesses
from compressor.distill.host.subprocesses import Child, train_in_processes
from compressor.distill.run_folder import Destination, acquire
from compressor.errors import EXIT_MISSING, KdcError
from compressor.export.onnx.graph import to_onnx
from compressor.models import load_model, load_run
from compressor.progress import Progress, Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json, write_json
from compressor.schema.specialists import Specialists, SpecialistsRequest
from compressor.schema.student import Request
from tests.distill.conftest import recipe
from tests.forked import python
from tests.kit import Hearing, pixels

Ask = Callable[..., Request]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def ask(digits4: str, hazy_run: Path) -> Callable[..., SpecialistsRequest]:
    def request(count: int = 2, teacher: str = f"run:{hazy_run}", **changes: Any) -> SpecialistsRequest:
        values = {"losses": [{"name": "cross_entropy"}], "crop_pct": None, **changes}
        return SpecialistsRequest(
            task="image-classification",
            teacher=teacher,
            data=digits4,
            skip_bad=False,
            input_size=None,
            count=count,
            recipe=recipe(**values),
        )

    return request


@pytest.fixture(scope="module")
def hazy_run(tmp_path_factory: pytest.TempPathFactory, ask_teach: Ask) -> Path:
    """A teacher that confuses all four digits a little. Never change it."""
    out = tmp_path_factory.mktemp("hazy") / "teacher"
    teach(ask_teach(epochs=4), Destination(out), progress=Silent())
    return out


def run(
    request: SpecialistsRequest, out: Path, progress: Progress | None = None, jobs: int = 2, **how: bool
) -> Specialists:
    return specialists(request, Destination(out, **how), jobs=jobs, progress=progress or Silent())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, ask: Callable[..., SpecialistsRequest]) -> Path:
    """Two specialists. Never change it."""
    out = tmp_path_factory.mktemp("specialists") / "both"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        run(ask(epochs=3), out)
    return out


@pytest.mark.slow
def test_two_specialists_are_recorded_whole(both: Path, hazy_run: Path, digits4: str) -> None:
    record = read_json(both / "specialists.json", Specialists)
    assert sorted(path.name for path in both.iterdir()) == [
        "recipe.yaml", "run.json", "specialists", "specialists.json",
    ]  # fmt: skip
    assert sorted(path.name for path in (both / "specialists").iterdir()) == ["1", "1.log", "2", "2.log"]
    assert [len(row.classes) for row in record.specialists] == [2, 2]
    assert sorted(name for row in record.specialists for name in row.classes) == ["one", "three", "two", "zero"]
    assert record.alone == ()
    assert record.generalist.source == f"run:{hazy_run}"
    assert record.generalist.sha256 == load_run(hazy_run)[1].weights.sha256
    assert record.generalist_validation == load_run(hazy_run)[1].validation
    assert record.data.source == digits4
    for number, row in enumerate(record.specialists, 1):
        model, student = load_run(both / "specialists" / str(number))
        assert row.run == f"specialists/{number}"
        assert row.sha256 == student.weights.sha256
        assert student.class_names == (*row.classes, DUSTBIN)
        assert student.specialty is not None
        assert student.specialty.share == pytest.approx(0.5, abs=0.1)
        assert model.preprocess == load_run(hazy_run)[0].preprocess
        request = read_json(both / "specialists" / str(number) / "run.json", Request)
        assert request.specialty == row.classes
        assert (request.teacher, request.init) == (f"run:{hazy_run}", "pretrained")
        assert student.recipe == record.recipe


@pytest.mark.slow
def test_a_student_learns_from_them_as_from_any_teacher(both: Path, ask_distill: Ask, tmp_path: Path) -> None:
    teacher = load_model(f"specialists:{both}")
    out = tmp_path / "run"
    # With kept answers: their key is the sha256 of all parts.
    request = ask_distill(teacher=f"specialists:{both}", epochs=4, views={"distinct": 2, "hflip": False})
    progress = Hearing()
    student = distill(request, Destination(out), progress=progress)
    assert student.teacher is not None
    assert student.teacher.sha256 == teacher.weights.sha256
    assert student.teacher.architecture == "test_resnet+2 specialists"
    assert student.teacher_validation == read_json(both / "specialists.json", Specialists).validation
    assert accuracy_in(student.test).accuracy > 0.5
    assert any("the teacher's answers: new in" in note for note in progress.notes)
    assert any("the student is" in line for line in progress.notes + progress.warnings)
    features = ask_distill(teacher=f"specialists:{both}", losses=[{"name": "kd"}, {"name": "hint"}])
    with pytest.raises(KdcError, match=r"several networks \(specialists:.*\) have no layers in common"):
        distill(features, Destination(tmp_path / "no"), progress=Silent())


@pytest.mark.slow
def test_they_are_exported_as_one_graph(both: Path, tmp_path: Path) -> None:
    teacher = load_model(f"specialists:{both}")
    to_onnx(teacher.network, pixels(32, 32), 1, 18, {}, tmp_path / "teacher.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "teacher.onnx", providers=["CPUExecutionProvider"])
    for seed in range(3):
        image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
        (answer,) = session.run(None, {"input": image.numpy()})
        assert np.abs(answer - teacher.network(image).numpy()).max() < 1e-3
        assert np.exp(answer).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_another_part_is_refused(both: Path, tmp_path: Path, ask: Callable[..., SpecialistsRequest]) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(both, copied)
    record = json.loads((copied / "specialists.json").read_text())
    record["generalist"]["sha256"] = "0" * 64
    (copied / "specialists.json").write_text(json.dumps(record))
    with pytest.raises(KdcError, match="is not the generalist of specialists:"):
        load_model(f"specialists:{copied}")
    shutil.copytree(both / "specialists" / "1", copied / "specialists" / "2", dirs_exist_ok=True)
    shutil.copy(both / "specialists.json", copied)
    with pytest.raises(KdcError, match="specialists/2 is not the specialist that"):
        load_model(f"specialists:{copied}")
    with pytest.raises(KdcError, match="cannot be trained: it is several networks"):
        run(ask(teacher=f"specialists:{both}"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


class InterruptAfterEpochs(Hearing):
    """Presses Ctrl-C once the specialists have done so many epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def at(self, doing: str, done: int, total: int) -> None:
        if done >= self.epochs:
            self.epochs = 10**9
            os.kill(os.getpid(), signal.SIGINT)

    ended = False

    def end(self) -> None:
        self.ended = True


@pytest.mark.slow
def test_interrupted_specialists_go_on(both: Path, ask: Callable[..., SpecialistsRequest], tmp_path: Path) -> None:
    """They end as those that never stopped; children are gone by then; other settings are refused."""
    out, progress = tmp_path / "parts", InterruptAfterEpochs(1)
    with pytest.raises(KeyboardInterrupt):
        run(ask(epochs=3), out, progress)
    assert "stopped; the state is saved" in progress.warnings[-1]
    assert progress.ended
    assert not (out / "specialists.json").exists()
    with pytest.raises(KdcError, match="holds no specialists") as caught:
        load_model(f"specialists:{out}")
    assert "--resume" in caught.value.hint
    with pytest.raises(KdcError, match="epochs was 3, now 4"):
        run(ask(epochs=4), out, resume=True)
    with pytest.raises(KdcError, match="a run that was not finished"):
        run(ask(epochs=3), out)
    run(ask(epochs=3), out, resume=True, jobs=1)
    for number in ("1", "2"):
        name = Path("specialists") / number / "student.safetensors"
        assert (out / name).read_bytes() == (both / name).read_bytes()
    again = Hearing()
    assert run(ask(epochs=3), out, again, resume=True) == read_json(out / "specialists.json", Specialists)
    assert "is finished already: nothing to resume" in again.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 3}, "--count 3: 4 of 4 classes are confused"),
        ({"crop_pct": 0.8}, "crop_pct 0.8 would show specialists other images"),
        ({"transfer": {"without": ["one"]}}, "recipe transfer cannot cut it too"),
        ({"losses": [{"name": "kd"}]}, "kd needs a teacher"),
        ({"teacher": "timm:test_resnet@WEIGHTS"}, "have no names, so they cannot be matched"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    changes: dict[str, Any], said: str, ask: Callable[..., SpecialistsRequest], tmp_path: Path
) -> None:
    if "teacher" in changes:
        torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), tmp_path / "nameless.pth")
        changes = {"teacher": f"timm:test_resnet@{tmp_path / 'nameless.pth'}"}
    with pytest.raises(KdcError) as caught:
        run(ask(**changes), tmp_path / "out")
    assert said in caught.value.message
    assert "--teacher-classes" not in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_finished_ones_of_other_data_or_another_generalist_are_not_gone_on_with(
    both: Path, ask: Callable[..., SpecialistsRequest], tmp_path: Path
) -> None:
    for key in ("init", "data"):
        out = tmp_path / key
        shutil.copytree(both, out)
        (out / "specialists.json").unlink()
        record = out / "specialists" / "2" / "student.json"
        values = json.loads(record.read_text())
        if key == "init":
            values["init"] = values["init"].replace("(sha256 ", "(sha256 0")
        else:
            values["data"]["fingerprint"] = "0" * 64
        record.write_text(json.dumps(values))
        before = sorted(out.rglob("*"))
        with pytest.raises(KdcError, match="since specialist 2/2 was trained, the data or the generalist changed"):
            run(ask(epochs=3), out, resume=True)
        assert sorted(out.rglob("*")) == before


def test_a_folder_is_of_one_command(tmp_path: Path, ask: Callable[..., SpecialistsRequest], ask_teach: Ask) -> None:
    for name, request in (("teacher", ask_teach()), ("both", ask())):
        write_json(tmp_path / name / "run.json", request)
    ways: list[dict[str, Any]] = [{}, {"resume": True}, {"overwrite": True}]
    for how in ways:
        with pytest.raises(KdcError, match=r"holds a run of kdc teach, not of kdc specialists"):
            run(ask(), tmp_path / "teacher", **how)
        with pytest.raises(KdcError, match=r"holds a run of kdc specialists, not of kdc teach"):
            acquire(Destination(tmp_path / "both", resume="resume" in how, overwrite="overwrite" in how), ask_teach())


SCRIPT = """
import pathlib, signal, sys, time
out = pathlib.Path(sys.argv[1]); out.mkdir(exist_ok=True)
(out / "run.json").write_text("{}")
print(sys.argv[2:], flush=True)
"""
SLEEPS = (
    SCRIPT
    + """
def stop(number, frame):
    (out / "stopped").write_text("once")
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
(out / "ready").touch()
time.sleep(60)
"""
)
FAILS = SCRIPT + "print('kdc: error: no such thing', file=sys.stderr); sys.exit(4)"


def child(folder: Path, name: str, code: str) -> Child:
    return Child(name, (sys.executable, "-c", code, str(folder / name)), folder / name, folder / f"{name}.log", 1)


def test_a_failure_names_the_log_and_stops_the_others(tmp_path: Path) -> None:
    waiting = FAILS.replace(
        "print('kdc", "\nwhile not (out.parent / 'sleeps' / 'ready').exists(): time.sleep(0.01)\nprint('kdc"
    )
    both = [child(tmp_path, "sleeps", SLEEPS), child(tmp_path, "fails", waiting)]
    with pytest.raises(KdcError) as caught:
        train_in_processes(both, 2, Silent())
    assert caught.value.message == f"fails failed: no such thing; its log: {tmp_path / 'fails.log'}"
    assert caught.value.exit_code == EXIT_MISSING
    assert "--resume" in caught.value.hint
    assert (tmp_path / "sleeps" / "stopped").read_text() == "once"
    # What has begun goes on.
    with pytest.raises(KdcError):
        train_in_processes([both[1]], 1, Silent())
    lines = (tmp_path / "fails.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[]", "['--resume']"]
    # What an earlier start said is not the reason of a later failure.
    with pytest.raises(KdcError, match="fails failed: it ended with exit code 9; its log"):
        train_in_processes([child(tmp_path, "fails", SCRIPT + "sys.exit(9)")], 1, Silent())


def test_an_interruption_asks_every_child_once(tmp_path: Path) -> None:
    three = [child(tmp_path, name, SLEEPS) for name in ("a", "b", "c")]

    def interrupt() -> None:
        while not all((tmp_path / name / "ready").exists() for name in ("a", "b")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        train_in_processes(three, 2, Silent())
    thread.join()
    assert all((tmp_path / name / "stopped").exists() for name in ("a", "b"))
    assert not (tmp_path / "c").exists(), "two at a time"


def test_an_interruption_amid_a_start_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, processes = subprocesses._started, []

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        processes.append(started(*arguments))
        return processes[-1]

    monkeypatch.setattr(subprocesses, "_started", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_in_processes([child(tmp_path, name, SLEEPS) for name in ("a", "b")], 2, Silent())
    assert [process.returncode is None for process in processes] == [False]


class Bar(Hearing):
    """Hears whether a bar that was begun is taken away."""

    shown = False

    def at(self, doing: str, done: int, total: int) -> None:
        self.shown = True

    def end(self) -> None:
        self.shown = False


def test_threads_are_shared_by_those_that_train_and_the_bar_goes_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(subprocesses, "usable_cores", lambda: 6)
    says = SCRIPT.replace("sys.argv[2:]", "os.environ['OMP_NUM_THREADS']").replace("pathlib,", "os, pathlib,")
    done = '(out / \'student.json\').write_text(\'{"validation": {"accuracy": 0.5, "n": 4}}\')'
    both, bar = [child(tmp_path, name, says + done) for name in ("a", "b")], Bar()
    train_in_processes(both, 6, bar)
    assert [(tmp_path / f"{name}.log").read_text().splitlines()[-1] for name in ("a", "b")] == ["3", "3"]
    assert not bar.shown
    train_in_processes(both, 6, bar)
    assert "a is finished already" in bar.notes
    with pytest.raises(KdcError):
        train_in_processes([child(tmp_path, "fails", FAILS)], 1, bar)
    assert not bar.shown


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_children_save_and_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    parent = f"""
import pathlib, sys
from compressor.distill.host.subprocesses import Child, train_in_processes
from compressor.progress import Silent
from tests.kit import pixels
folder = pathlib.Path({str(tmp_path)!r})
command = (sys.executable, str(folder / "sleeps.py"), str(folder / "a"))
train_in_processes([Child("a", command, folder / "a", folder / "a.log", 1)], 1, Silent())
"""
    with subprocess.Popen([*python(), "-c", parent]) as process:
        wait_for(tmp_path / "a" / "ready")
        process.kill()
    wait_for(tmp_path / "a" / "stopped")


def wait_for(file: Path) -> None:
    end = time.monotonic() + 50
    while not file.exists():
        assert time.monotonic() < end, f"{file} did not come"
        time.sleep(0.02)
