"""What a training may use beside its request, and what its student does not depend on."""

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.distill import Resources, distill, precompute, teach
from compressor.distill.host.resources import size_in_bytes
from compressor.distill.run_folder import Destination
from compressor.distill.teacher.cache import AnswerStore
from compressor.distill.teacher.sources import Online
from compressor.errors import KdcError
from compressor.models import load_run
from compressor.progress import Silent
from compressor.schema.student import Request
from tests.kit import Hearing

Ask = Callable[..., Request]


def weights(out: Path) -> bytes:
    return (out / "student.safetensors").read_bytes()


CACHED: dict[str, Any] = {"epochs": 5, "views": {"scale": (0.7, 1.0), "hflip": False, "distinct": 2}}


def test_a_student_is_the_same_whether_answers_are_kept_or_not(tmp_path: Path, ask_distill: Ask) -> None:
    request = ask_distill(**CACHED)
    runs = {
        "without": Resources(teacher_cache=None),
        "filling": Resources(teacher_cache=tmp_path / "cache"),
        "filled": Resources(teacher_cache=tmp_path / "cache"),
        "anew": Resources(decode_cache=0, teacher_cache=tmp_path / "cache"),
    }
    notes = {}
    for name, resources in runs.items():
        progress = Hearing()
        distill(request, Destination(tmp_path / name), progress=progress, resources=resources)
        notes[name] = "\n".join(progress.notes)
    assert len({weights(tmp_path / name) for name in runs}) == 1
    assert "the teacher answers anew in every epoch: --teacher-cache off" in notes["without"]
    assert "the teacher's answers: new in" in notes["filling"]
    assert "16 of them asked again: the teacher still answers so" in notes["filled"]
    assert "decoding anew in every epoch" in notes["anew"]


@pytest.mark.parametrize("answers", [{"dtype": "float16"}, {"dtype": "float16", "top_k": 2}])
def test_answers_that_are_kept_in_short_are_learned_in_short(
    tmp_path: Path, ask_distill: Ask, answers: dict[str, Any]
) -> None:
    """Cached or not, the student sees the same numbers."""
    request = ask_distill(**CACHED, teacher_answers=answers)
    for name, folder in (("cached", tmp_path / "cache"), ("not", None)):
        resources = Resources(teacher_cache=folder)
        distill(request, Destination(tmp_path / name), progress=Silent(), resources=resources)
    assert weights(tmp_path / "cached") == weights(tmp_path / "not")


def test_precomputed_answers_spare_the_teacher_in_every_epoch(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, resources = ask_distill(**CACHED), Resources(teacher_cache=tmp_path / "cache")
    precompute(request, tmp_path / "run", progress=Silent(), resources=resources)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    asked = []
    real = Online.encoded

    def watched(online: Online, batch: Any) -> Any:
        asked.append(len(batch["teacher"]))
        return real(online, batch)

    monkeypatch.setattr(Online, "encoded", watched)
    distill(request, Destination(tmp_path / "run"), progress=Silent(), resources=resources)
    assert asked == [8, 8], "only the replay, of each of two views"
    monkeypatch.undo()
    distill(request, Destination(tmp_path / "other"), progress=Silent(), resources=Resources())
    assert weights(tmp_path / "run") == weights(tmp_path / "other")


def test_a_teacher_that_no_loss_asks_does_not_run(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control on labels alone: it costs what the student costs, and fills no cache."""
    monkeypatch.setattr(Online, "encoded", None)
    resources = Resources(teacher_cache=tmp_path / "cache")
    request = ask_distill(**CACHED, losses=[{"name": "cross_entropy"}])
    student = distill(request, Destination(tmp_path / "run"), progress=Silent(), resources=resources)
    assert student.teacher_validation is not None
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_precomputing_what_cannot_be_kept_is_refused(tmp_path: Path, ask_distill: Ask) -> None:
    with pytest.raises(KdcError, match="every epoch shows new views") as caught:
        precompute(ask_distill(), tmp_path / "run", progress=Silent())
    assert caught.value.hint == "--set views.distinct=10"
    with pytest.raises(KdcError, match="--teacher-cache is off"):
        precompute(ask_distill(**CACHED), tmp_path / "run", progress=Silent(), resources=Resources(teacher_cache=None))


def test_another_teacher_or_crop_does_not_use_the_answers(
    tmp_path: Path, ask_distill: Ask, ask_teach: Ask, teacher_run: Path
) -> None:
    resources = Resources(teacher_cache=tmp_path / "cache")

    def notes(name: str, request: Request) -> str:
        progress = Hearing()
        distill(request, Destination(tmp_path / name), progress=progress, resources=resources)
        return "\n".join(progress.notes)

    notes("first", ask_distill(**CACHED))
    views = {**CACHED["views"], "scale": (0.6, 1.0)}
    text = notes("crop", ask_distill(**{**CACHED, "views": views}))
    assert "answers that lie there already are others' in: samples.views.scale" in text
    teach(ask_teach(epochs=9), Destination(tmp_path / "teacher"), progress=Silent())
    text = notes("taught", ask_distill(f"run:{tmp_path / 'teacher'}", **CACHED))
    assert "are others' in: teacher.sha256" in text
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_poisoned_answer_stops_the_run_before_it_begins(tmp_path: Path, ask_distill: Ask) -> None:
    """The checksum is right, the answer is another's: only asking the teacher again can tell."""
    request, resources = ask_distill(**CACHED), Resources(teacher_cache=tmp_path / "cache")
    precompute(request, tmp_path / "run", progress=Silent(), resources=resources)
    (folder,) = (tmp_path / "cache").iterdir()
    size = (folder / "records").stat().st_size // (2 * 216)
    key = json.loads((folder / "key.json").read_text())
    del key["format"]
    store = AnswerStore(tmp_path / "cache", key, views=2, samples=216, size=size - 8)
    assert not store.new
    everyone = np.arange(216)
    store.write(0, everyone, store.read(0, everyone).answers[::-1])
    with pytest.raises(KdcError, match=r"the teacher answers otherwise now than .*: sample \S+, view 0"):
        distill(request, Destination(tmp_path / "run"), progress=Silent(), resources=resources)
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_and_the_machine_are_told(tmp_path: Path, ask_distill: Ask) -> None:
    progress = Hearing()
    distill(ask_distill(), Destination(tmp_path / "run"), progress=progress)
    text = "\n".join(progress.notes)
    assert "2 epochs of 6 steps of 32 images; AdamW, learning rate 0.01" in text
    assert re.search(r"on CPU: float32, channels_last, fused AdamW, threads \d+", text)


def test_a_tracker_gets_a_row_an_epoch(tmp_path: Path, ask_distill: Ask) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    resources = Resources.of(None, "off", "tensorboard")
    distill(ask_distill(), Destination(tmp_path / "run"), progress=Silent(), resources=resources)
    events = EventAccumulator(str(tmp_path / "run" / "tracker" / "kdc"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("loss/kd")] == pytest.approx([row["loss"]["kd"] for row in rows])
    assert len(events.Scalars("validation/accuracy")) == 2
    assert len(events.Scalars("test/accuracy")) == 1
    done = load_run(tmp_path / "run")[1]
    again = Resources(teacher_cache=None)
    distill(ask_distill(), Destination(tmp_path / "run", overwrite=True), progress=Silent(), resources=again)
    assert load_run(tmp_path / "run")[1].test == done.test


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20GB", 20 * 10**9), ("1.5 MB", 1_500_000), ("3k", 3000), ("77", 77), ("2GiB", 2**31), ("off", 0)],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert size_in_bytes(text, "--decode-cache") == expected


@pytest.mark.parametrize("text", ["", "GB", "many", "-", "1XB", "1e999GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(KdcError, match=r"--decode-cache .* is no size"):
        size_in_bytes(text, "--decode-cache")


def test_a_tracker_that_is_not_there_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KdcError, match="--tracker wand is not known; known: tensorboard, wandb, mlflow"):
        Resources.of(None, None, "wand")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(KdcError) as caught:
        Resources.of(None, None, "wandb")
    assert (caught.value.exit_code, caught.value.hint) == (4, "pip install wandb")


def test_the_users_cache_is_found_where_systems_keep_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "mine"))
    assert Resources().teacher_cache == tmp_path / "mine" / "teacher-answers"
    monkeypatch.delenv("KDC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Resources.of(None, None, None).teacher_cache == tmp_path / "kdc" / "teacher-answers"
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert str(Resources().teacher_cache).startswith(tempfile.gettempdir())
    assert Resources.of("5GB", "off", None) == Resources(5 * 10**9, None)
    assert Resources.of(None, "here", None).teacher_cache == Path("here")
