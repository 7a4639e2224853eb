"""What a training began with is what it goes on with: teacher, preprocessing, the weights that it starts from; and kept
answers are of one teacher, with its classes in one order."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from compressor.distill import distill, teach
from compressor.distill.host.resources import Resources
from compressor.distill.methods.assistants import distill_chain
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Progress, Silent
from compressor.schema.student import Request
from tests.distill.conftest import NAMES

pytestmark = pytest.mark.slow
Ask = Callable[..., Request]
Interrupt = Callable[[int], Progress]
STEPS = 216 // 32
KEPT = {"epochs": 2, "views": {"distinct": 1, "hflip": False, "scale": (0.7, 1.0)}}


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def seen_otherwise(run: Path) -> None:
    how = json.loads((run / "student.json").read_text())["preprocess"]
    edit(run / "student.json", preprocess={**how, "mean": [0.4, 0.4, 0.4]})


def named_otherwise(run: Path) -> None:
    edit(run / "student.json", class_names=[NAMES[1], NAMES[0], *NAMES[2:]])


@pytest.fixture
def own_teacher(teacher_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(teacher_run, tmp_path / "teacher"))


@pytest.mark.parametrize("change", [seen_otherwise, named_otherwise])
def test_a_teacher_that_changed_amid_a_training(
    change: Callable[[Path], None], own_teacher: Path, tmp_path: Path, ask_distill: Ask, interrupt_at: Interrupt
) -> None:
    request, out = ask_distill(f"run:{own_teacher}"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distill(request, Destination(out), progress=interrupt_at(STEPS + 2))
    change(own_teacher)
    with pytest.raises(KdcError, match="--resume: since the run was interrupted, the teacher changed"):
        distill(request, Destination(out, resume=True), progress=Silent())


def test_a_class_file_that_changed_amid_a_training(tmp_path: Path, ask_distill: Ask, interrupt_at: Interrupt) -> None:
    file = tmp_path / "names.txt"
    file.write_text("\n".join(NAMES))
    request, out = ask_distill(teacher_classes=str(file)), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distill(request, Destination(out), progress=interrupt_at(STEPS + 2))
    file.write_text("\n".join([NAMES[1], NAMES[0], *NAMES[2:]]))
    with pytest.raises(KdcError, match="since the run was interrupted, the teacher changed"):
        distill(request, Destination(out, resume=True), progress=Silent())


def test_a_start_that_changed_amid_a_training(tmp_path: Path, ask_distill: Ask, interrupt_at: Interrupt) -> None:
    file = tmp_path / "start.pth"
    state = timm.create_model("test_efficientnet", num_classes=4).state_dict()
    torch.save(state, file)
    request, out = ask_distill(init=str(file)), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distill(request, Destination(out), progress=interrupt_at(STEPS + 2))
    torch.save({name: value + 1 for name, value in state.items()}, file)
    with pytest.raises(KdcError, match="the weights that it starts from changed"):
        distill(request, Destination(out, resume=True), progress=Silent())


def test_a_backbone_that_changed_amid_kdc_teach(
    own_teacher: Path, tmp_path: Path, ask_teach: Ask, interrupt_at: Interrupt
) -> None:
    request, out = ask_teach(f"run:{own_teacher}", "pretrained", input_size=None), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        teach(request, Destination(out), progress=interrupt_at(STEPS + 2))
    seen_otherwise(own_teacher)
    with pytest.raises(KdcError, match="the preprocessing changed"):
        teach(request, Destination(out, resume=True), progress=Silent())


class Hearing(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("change", [seen_otherwise, named_otherwise])
def test_kept_answers_are_of_one_teacher(
    change: Callable[[Path], None], own_teacher: Path, tmp_path: Path, ask_distill: Ask
) -> None:
    request, resources = ask_distill(f"run:{own_teacher}", **KEPT), Resources(teacher_cache=tmp_path / "cache")

    def notes(name: str) -> str:
        progress = Hearing()
        distill(request, Destination(tmp_path / name), progress=progress, resources=resources)
        return "\n".join(progress.notes)

    assert "the teacher's answers: new in" in notes("first")
    assert "the teacher's answers: in" in notes("again")
    change(own_teacher)
    assert "the teacher's answers: new in" in notes("changed")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_an_assistant_that_was_edited(tmp_path: Path, ask_distill: Ask, interrupt_at: Interrupt) -> None:
    between = ("timm:test_resnet", "timm:test_efficientnet")
    epochs = 8  # after fewer, an assistant may be at chance, and that depends on the processor
    request = ask_distill(epochs=epochs).model_copy(update={"assistants": between})
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distill_chain(request, Destination(out), progress=interrupt_at(2 * epochs * STEPS + 3))
    assert (out / "assistants" / "2" / "student.json").is_file()
    seen_otherwise(out / "assistants" / "1")
    with pytest.raises(KdcError, match="--resume: since the assistants were trained, assistant 1 changed"):
        distill_chain(request, Destination(out, resume=True), progress=Silent())


def test_which_weights_were_taken_is_said(tmp_path: Path, ask_distill: Ask, teacher_run: Path) -> None:
    good = load_file(teacher_run / "student.safetensors")
    half = {name: value.half() if value.is_floating_point() else value for name, value in good.items()}
    raw = timm.create_model("test_resnet", num_classes=4).state_dict()
    torch.save({"model": raw, "model_ema": half}, tmp_path / "both.pth")
    progress = Hearing()
    request = ask_distill(student="timm:test_resnet", init=str(tmp_path / "both.pth"), epochs=1)
    distill(request, Destination(tmp_path / "run"), progress=progress)
    assert "both.pth: the weights under model_ema are taken; it also holds model" in progress.notes
    assert "both.pth: weights stored as float16 are loaded as float32" in progress.notes
