"""A model that was trained on what it is now measured on: said with numbers, in every command that measures one."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.data.predictions import read_outputs
from compressor.data.samples import Dataset
from compressor.distill import distill, predict, teach
from compressor.distill.overlap import seen_before, tell_overlap
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.export.bundle.identity import without_paths
from compressor.models.trained_on import FILE, images_of, read_trained_on, save_trained_on
from compressor.progress import Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json, write_json
from compressor.schema.specialists import Specialist, Specialists
from compressor.schema.student import Request, Student
from compressor.tasks.image_classification import open_data
from tests.kit import Ended, Hearing

Ask = Callable[..., Request]
NAMES = ("zero", "one", "two", "three")


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def as_idx(folder: Path, **splits: list[tuple[Image.Image, int]]) -> str:
    """`idx:…` with these images as `train` and `t10k`."""
    folder.mkdir()
    for prefix, samples in splits.items():
        pixels = np.stack([np.asarray(image.convert("L")) for image, _ in samples])
        write_idx(folder / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", np.array([label for _, label in samples], np.uint8))
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return f"idx:{folder}"


def samples(data: Dataset, name: str) -> list[tuple[Image.Image, int]]:
    split = getattr(data, name)
    return [(split.read(row), int(split.labels[row])) for row in range(len(split))]


@pytest.fixture(scope="module")
def taught(digits4: str) -> Dataset:
    """What the teacher was made from: 216 images to train on, 24 to validate, 120 to test."""
    return open_data(digits4)


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory, taught: Dataset) -> str:
    """Data whose test images are 30 of the teacher's training images, and 10 of its test images; train and
    validation are the other 110 test images and 190 that are no one's."""
    folder = tmp_path_factory.mktemp("turned") / "data"
    known, new = samples(taught, "train")[:30], samples(taught, "test")
    others = [(Image.fromarray(255 - np.asarray(image)), label) for image, label in samples(taught, "train")[:190]]
    return as_idx(folder, train=[*new[10:], *others], t10k=[*known, *new[:10]])


def data_with(taught: Dataset, validation: int, test: int) -> Dataset:
    """Other data, so many of whose held-out images are the teacher's training images, and none of the others."""
    contents = taught.train.contents
    held_out = (taught.validation, validation, contents[50:]), (taught.test, test, contents)
    changed = [
        replace(split, contents=np.concatenate([known[:count], split.contents[count:]]))
        for split, count, known in held_out
    ]
    train = replace(taught.train, contents=np.arange(len(taught.train), dtype=np.uint64))
    return replace(taught, train=train, validation=changed[0], test=changed[1])


def test_a_run_records_what_it_was_trained_on(teacher_run: Path, taught: Dataset) -> None:
    student = read_json(teacher_run / "student.json", Student)
    found = read_trained_on(teacher_run, student)
    assert found.dtype == np.uint64
    np.testing.assert_array_equal(found, np.unique(taught.train.contents))
    assert not np.isin(np.concatenate([taught.validation.contents, taught.test.contents]), found).any()


def test_the_same_data_is_not_spoken_of(ask_distill: Ask, taught: Dataset, tmp_path: Path) -> None:
    """Not even from another place, in another format, under other names."""
    for split, prefix in (("train", "train"), ("validation", "val"), ("test", "test")):
        for number, (image, label) in enumerate(samples(taught, split)):
            (tmp_path / prefix / NAMES[label]).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / prefix / NAMES[label] / f"{997 * (number + 1) % 1009:04}.bmp")
    for data in (taught, open_data(f"folder:{tmp_path}")):
        progress = Hearing()
        assert seen_before(ask_distill(), data, progress).info.notes == data.info.notes
        assert progress.warnings == progress.notes == []


def test_a_teacher_that_knows_held_out_images_is_warned_of_with_numbers(ask_distill: Ask, taught: Dataset) -> None:
    said = ": its accuracy on them says nothing about other images"
    for validation, test, counts in (
        (7, 0, "7 of the 24 validation images"),
        (0, 3, "3 of the 120 test images"),
        (24, 120, "24 of the 24 validation images and 120 of the 120 test images"),
    ):
        progress, data = Hearing(), data_with(taught, validation, test)
        found = seen_before(ask_distill(), data, progress)
        assert progress.warnings == [f"teacher run:teacher was trained on {counts}{said}"]
        assert found.info.notes == (*data.info.notes, *progress.warnings), "for the report, without a path"


def test_what_the_data_itself_holds_twice_is_no_fault_of_the_teacher(ask_distill: Ask, taught: Dataset) -> None:
    """A test image that stands in train is said with the data: the same data with the same splits."""
    data = replace(taught, test=taught.test.part(np.arange(20)))
    data = replace(data, test=replace(data.test, contents=taught.train.contents[:20]))
    progress = Hearing()
    assert seen_before(ask_distill(), data, progress).info.notes == data.info.notes
    assert progress.warnings == progress.notes == []
    fewer = replace(data, train=data.train.part(np.arange(1, len(data.train))))
    seen_before(ask_distill(), fewer, progress)
    assert progress.warnings[0].startswith("teacher run:teacher was trained on 20 of the 20 test images: ")


def test_each_of_several_teachers_is_looked_at(
    ask_distill: Ask, taught: Dataset, teacher_run: Path, tmp_path: Path
) -> None:
    record = read_json(teacher_run / "student.json", Student)
    other = tmp_path / "other"
    sha256 = save_trained_on(other, taught.train.contents[100:])
    write_json(other / "student.json", record.model_copy(update={"trained_on": sha256}))
    progress, data = Hearing(), data_with(taught, 0, 60)
    request = ask_distill().model_copy(update={"other_teachers": (f"run:{other}", "timm:test_resnet")})
    seen_before(request, data, progress)
    assert progress.warnings == [
        "teacher run:teacher was trained on 60 of the 120 test images: its accuracy on them says nothing about other "
        "images"
    ], "the other one has not seen the first 100"


def test_other_data_without_overlap_is_said_with_numbers(ask_distill: Ask, taught: Dataset) -> None:
    progress = Hearing()
    half = replace(taught, train=taught.train.part(np.arange(100)))
    found = seen_before(ask_distill(), half, progress)
    assert progress.warnings == []
    assert progress.notes == [
        "teacher run:teacher was trained on other images too: of its 216 training images 100 stand in train here, "
        "and none in validation or test alone"
    ]
    assert found.info.notes[-1] == progress.notes[0]


def test_what_the_training_starts_from_counts_more(
    ask_teach: Ask, ask_distill: Ask, taught: Dataset, teacher_run: Path
) -> None:
    data = data_with(taught, 5, 0)
    expected = (
        "which was trained on 5 of the 24 validation images: what comes of it knows them, and its accuracy on them "
        "says nothing about other images"
    )
    weights = teacher_run / "student.safetensors"
    for request, name in (
        (ask_teach(teacher=f"run:{teacher_run}", init="pretrained"), "run:teacher"),
        (ask_distill(teacher="timm:test_resnet", init=str(weights)), "student.safetensors"),
        (ask_distill(teacher="timm:test_resnet", init=f"run:{teacher_run}"), "run:teacher"),
    ):
        progress = Hearing()
        seen_before(request, data, progress)
        assert progress.warnings == [f"the training starts from {name}, {expected}"]
    progress = Hearing()
    seen_before(ask_teach(teacher="timm:test_resnet", init="random"), data, progress)
    assert progress.warnings == []


def test_a_fine_tuned_run_knows_what_it_started_from(
    ask_teach: Ask, taught: Dataset, turned: str, teacher_run: Path, tmp_path: Path
) -> None:
    """What the weights were trained on before stays known, over any number of steps."""
    progress = Hearing()
    request = ask_teach(teacher=f"run:{teacher_run}", init="pretrained", data=turned, input_size=None, epochs=1)
    student = teach(request, Destination(tmp_path / "run"), progress=progress)
    [warning] = [line for line in progress.warnings if "starts from" in line]
    assert "was trained on 30 of the 40 test images" in warning
    assert warning in student.data.notes
    own = open_data(turned).train.contents
    found = images_of(f"run:{tmp_path / 'run'}")
    assert found is not None
    np.testing.assert_array_equal(found, np.union1d(own, taught.train.contents))


def test_a_distillation_records_the_warning_without_a_path(
    ask_distill: Ask, turned: str, teacher_run: Path, tmp_path: Path
) -> None:
    progress = Hearing()
    student = distill(ask_distill(data=turned, epochs=1), Destination(tmp_path / "run"), progress=progress)
    warning = (
        "teacher run:teacher was trained on 30 of the 40 test images: its accuracy on them says nothing about other "
        "images"
    )
    assert progress.warnings.count(warning) == 1
    assert without_paths(student).data.notes[-1] == warning
    assert str(teacher_run) not in "".join(student.data.notes)


def test_predict_warns_and_its_table_knows(
    ask_distill: Ask, taught: Dataset, turned: str, teacher_run: Path, tmp_path: Path
) -> None:
    progress, file = Hearing(), tmp_path / "answers.csv"
    predict(f"run:{teacher_run}", turned, file, progress=progress)
    counts = "30 of the 40 test images: its accuracy on them says nothing about other images"
    assert f"teacher run:teacher was trained on {counts}" in progress.warnings
    table = read_outputs(file, NAMES)
    assert table.seen == frozenset(f"test/{row}" for row in range(30))
    progress = Hearing()
    request = ask_distill(teacher=f"outputs:{file}", data=turned, epochs=1)
    student = distill(request, Destination(tmp_path / "run"), progress=progress)
    warning = f"the teacher of outputs:answers.csv was trained on {counts}"
    assert warning in progress.warnings
    assert warning in student.data.notes


def test_nobody_knows_what_other_models_were_trained_on(taught: Dataset, tmp_path: Path, teacher_run: Path) -> None:
    progress, file = Hearing(), tmp_path / "there.safetensors"
    file.write_bytes(b"")
    references = ("timm:test_resnet", f"timm:test_resnet@{file}", "hf:owner/name", "self", "peers", "outputs:t.csv")
    assert [images_of(one) for one in references] == [None] * 6
    assert tell_overlap(references, data_with(taught, 9, 9), progress) == []
    assert images_of(f"timm:test_resnet@{teacher_run / 'student.safetensors'}") is not None


def test_specialists_know_what_each_of_them_was_trained_on(teacher_run: Path, tmp_path: Path, taught: Dataset) -> None:
    record, folder = read_json(teacher_run / "student.json", Student), tmp_path / "experts"
    rows = []
    for number, contents in ((1, [1, 2, 3]), (2, [3, 4])):
        place = folder / "specialists" / str(number)
        sha256 = save_trained_on(place, np.array(contents, np.uint64))
        write_json(place / "student.json", record.model_copy(update={"trained_on": sha256}))
        rows.append(
            Specialist(
                classes=NAMES[2 * number - 2 : 2 * number],
                run=f"specialists/{number}",
                sha256=record.weights.sha256,
                validation=accuracy_in(record.validation),
            )
        )
    for generalist, more in (("timm:test_resnet", []), (f"run:{teacher_run}", taught.train.contents.tolist())):
        made = Specialists(
            task="image-classification",
            generalist=record.weights.model_copy(update={"source": generalist}), input_size=None, class_names=NAMES,
            specialists=tuple(rows), alone=(), data=record.data, recipe=record.recipe,
            generalist_validation=accuracy_in(record.validation), validation=accuracy_in(record.validation),
        )  # fmt: skip
        write_json(folder / "specialists.json", made)
        found = images_of(f"specialists:{folder}")
        assert found is not None
        assert set(found.tolist()) == {1, 2, 3, 4, *more}


def test_a_run_that_does_not_say_what_it_was_trained_on_is_refused(
    ask_distill: Ask, taught: Dataset, teacher_run: Path, tmp_path: Path, kdc: Callable[..., Ended], digits4: str
) -> None:
    record = read_json(teacher_run / "student.json", Student)
    older = tmp_path / "older"
    older.mkdir()
    write_json(older / "student.json", record.model_copy(update={"trained_on": None}))
    request = ask_distill(teacher=f"run:{older}")
    with pytest.raises(KdcError, match="does not say which samples it was trained on") as raised:
        seen_before(request, taught, Silent())
    assert raised.value.hint == f"it was made by an earlier kdc: make it anew, as {older / 'run.json'} says"
    write_json(older / "student.json", record)
    with pytest.raises(KdcError, match=rf"{FILE} is missing"):
        seen_before(request, taught, Silent())
    save_trained_on(older, taught.test.contents)
    with pytest.raises(KdcError, match=rf"{FILE} was changed: it is not what student\.json says"):
        seen_before(request, taught, Silent())
    (older / FILE).unlink()
    ended = kdc("distill", "--teacher", f"run:{older}", "--data", digits4, "--student", "timm:test_efficientnet",
                "--student-init", "random", "--epochs", "1", "--out", tmp_path / "run")  # fmt: skip
    assert ended.code == 2
    assert "bug" not in ended.err
    assert not (tmp_path / "run").exists()
