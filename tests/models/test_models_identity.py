"""A teacher is its weights, how it sees images, and which of its outputs is which class: with any of these changed it
is another one, wherever a reference is resolved again."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from compressor.errors import KdcError
from compressor.models.ensemble import combined
from compressor.models.lineage import load_teacher, teacher_of
from compressor.schema.recipe import Ensemble, LossTerm, Recipe
from compressor.schema.student import Request, Student
from tests.models.test_models_runs import record, saved

NAMES = ("cat", "dog", "sea lion")
VitFolder = Callable[..., Path]
RECIPE = Recipe(losses=(LossTerm(name="cross_entropy"),))


def request(*teachers: str, classes: Path | None = None) -> Request:
    return Request(
        task="image-classification",
        command="distill", teacher=teachers[0], other_teachers=teachers[1:], student="timm:test_resnet", init="random",
        teacher_classes=str(classes) if classes else None, data="digits", skip_bad=False, input_size=None,
        recipe=RECIPE,
    )  # fmt: skip


def taught_by(asked: Request, names: Sequence[str], folder: Path) -> Student:
    """The record of a student that learned from what `asked` names."""
    teacher = load_teacher(asked, tuple(names))
    assert teacher is not None
    made = record(saved(folder))
    return made.model_copy(update={"teacher": teacher.weights, "class_names": tuple(names)})


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def other_names(folder: Path) -> None:
    """The case teacher-edited-before-export."""
    edit(folder / "config.json", id2label={"0": "sea lion", "1": "dog", "2": "cat"},
         label2id={"sea lion": 0, "dog": 1, "cat": 2})  # fmt: skip


def other_weights(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "names": (other_names, "its classes differ"),
    "preprocessing": (
        lambda folder: edit(folder / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3]),
        "its preprocessing differs",
    ),
    "weights": (other_weights, "its weights differ"),
    "the activation": (
        lambda folder: edit(folder / "config.json", hidden_act="relu"),
        "its answers differ, with the same weights: its configuration is another",
    ),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("moved", [False, True])
def test_a_hugging_face_teacher_that_changed(
    vit_folder: VitFolder, tmp_path: Path, change: Callable[[Path], None], said: str, moved: bool
) -> None:
    folder = vit_folder(list(NAMES))
    asked = request(f"hf:{folder}")
    student = taught_by(asked, NAMES, tmp_path / "run")
    place = folder
    if moved:
        place = tmp_path / "elsewhere"
        shutil.copytree(folder, place)
    reference = f"hf:{place}" if moved else None
    assert teacher_of(asked, student, reference, "") is not None
    change(place)
    with pytest.raises(KdcError) as caught:
        teacher_of(asked, student, reference, "")
    assert caught.value.message == (f"hf:{place} is not the teacher that this student was distilled from ({said})")
    assert caught.value.exit_code == 2


def test_the_order_of_the_data_classes_is_the_datas(vit_folder: VitFolder, tmp_path: Path) -> None:
    """Names in another order than the teacher's outputs, as ever: found by name, and found again."""
    asked = request(f"hf:{vit_folder(list(NAMES))}")
    student = taught_by(asked, ("dog", "cat"), tmp_path / "run")
    assert teacher_of(asked, student, None, "") is not None


def test_a_name_that_plays_no_part_may_change(vit_folder: VitFolder, tmp_path: Path) -> None:
    folder = vit_folder(list(NAMES))
    asked = request(f"hf:{folder}")
    student = taught_by(asked, ("dog", "cat"), tmp_path / "run")
    edit(folder / "config.json", id2label={"0": "cat", "1": "dog", "2": "seal"})
    assert teacher_of(asked, student, None, "") is not None


def test_the_last_digits_of_another_machine_are_no_change(vit_folder: VitFolder, tmp_path: Path) -> None:
    asked = request(f"hf:{vit_folder(list(NAMES))}")
    student = taught_by(asked, NAMES, tmp_path / "run")
    assert student.teacher is not None
    assert len(student.teacher.probe) == 3
    assert max(map(abs, student.teacher.probe)) > 0
    near = student.teacher.model_copy(update={"probe": tuple(value * 1.0001 for value in student.teacher.probe)})
    assert teacher_of(asked, student.model_copy(update={"teacher": near}), None, "") is not None
    assert near.identity == student.teacher.identity
    far = student.teacher.model_copy(update={"probe": tuple(-value for value in student.teacher.probe)})
    assert far.identity != student.teacher.identity


@pytest.mark.parametrize("changed", ["class_names", "preprocess"])
def test_a_run_whose_record_was_edited(tmp_path: Path, changed: str) -> None:
    teacher = saved(tmp_path / "teacher")
    assert teacher.class_names is not None
    names = tuple(spellings[0] for spellings in teacher.class_names)
    asked = request(f"run:{tmp_path / 'teacher'}")
    student = taught_by(asked, names, tmp_path / "run")
    file = tmp_path / "teacher" / "student.json"
    if changed == "class_names":
        edit(file, class_names=list(reversed(names)))
    else:
        edit(file, preprocess={**json.loads(file.read_text())["preprocess"], "mean": [0.1, 0.1, 0.1]})
    with pytest.raises(KdcError, match=r"\(its (classes differ|preprocessing differs)\)"):
        teacher_of(asked, student, None, "")


def test_a_class_file_that_was_edited(vit_folder: VitFolder, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("cat\ndog\nsea lion\n")
    folder = vit_folder(None)
    edit(folder / "config.json", id2label={str(n): f"LABEL_{n}" for n in range(4)})
    file.write_text("cat\ndog\nsea lion\nwolf\n")
    asked = request(f"hf:{folder}", classes=file)
    student = taught_by(asked, NAMES, tmp_path / "run")
    assert teacher_of(asked, student, None, "") is not None
    file.write_text("wolf\ndog\nsea lion\ncat\n")
    with pytest.raises(KdcError, match=r"\(its classes differ\)"):
        teacher_of(asked, student, None, "")


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_a_member_of_an_ensemble_that_changed(
    vit_folder: VitFolder, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    one, two = vit_folder(list(NAMES), name="one"), vit_folder(list(NAMES), name="two")
    asked = request(f"hf:{one}", f"hf:{two}")
    student = taught_by(asked, NAMES, tmp_path / "run")
    assert teacher_of(asked, student, None, "") is not None
    change(two)
    with pytest.raises(KdcError, match=said):
        teacher_of(asked, student, None, "")


def test_an_ensemble_is_its_members_their_shares_and_what_is_averaged(vit_folder: VitFolder) -> None:
    asked = request(f"hf:{vit_folder(list(NAMES))}")
    model = load_teacher(asked, NAMES)
    assert model is not None
    hows = [Ensemble(), Ensemble(weights=(1, 2)), Ensemble(of="logits")]
    assert len({combined([model, model], how).weights.identity for how in hows}) == 3


def test_a_teacher_from_before_is_not_taken_on_trust(vit_folder: VitFolder, tmp_path: Path) -> None:
    asked = request(f"hf:{vit_folder(list(NAMES))}")
    student = taught_by(asked, NAMES, tmp_path / "run")
    assert student.teacher is not None
    old = student.teacher.model_copy(update={"classes_sha256": None, "preprocess_sha256": None})
    with pytest.raises(KdcError, match=r"\(its preprocessing and classes differ\)"):
        teacher_of(asked, student.model_copy(update={"teacher": old}), None, "")


def test_the_class_file_is_no_part_of_the_weights(vit_folder: VitFolder, tmp_path: Path) -> None:
    folder, file = vit_folder(list(NAMES)), tmp_path / "names.txt"
    plain = load_teacher(request(f"hf:{folder}"), NAMES)
    file.write_text("\n".join(NAMES))
    named = load_teacher(request(f"hf:{folder}", classes=file), NAMES)
    assert plain is not None
    assert named is not None
    assert plain.weights.identity == named.weights.identity
    assert torch.equal(plain.network(torch.zeros(1, 3, 32, 32)), named.network(torch.zeros(1, 3, 32, 32)))
