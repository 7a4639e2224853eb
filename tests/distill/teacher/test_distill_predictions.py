"""outputs:FILE as the teacher: the student learns what the table says, or is told why it cannot."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.data.prediction_files import MARK
from compressor.distill import distill, distill_chain, precompute, predict, teach
from compressor.distill.regimes import built_in
from compressor.distill.run_folder import Destination
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.predictions import Table
from compressor.errors import KdcError
from compressor.models import load_run
from compressor.progress import Progress, Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.student import Request, Student
from compressor.tasks.base import BatchModel
from compressor.tasks.image_classification import open_data
from tests.kit import Hearing

Ask = Callable[..., Request]
NAMES = ("zero", "one", "two", "three")
SAME_VIEW: dict[str, Any] = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": False}
"""Every view is the whole image, so that a teacher that runs answers what the table says."""


def run(request: Request, out: Path, progress: Progress | None = None, *, resume: bool = False) -> Student:
    return distill(request, Destination(out, resume=resume), progress=progress or Silent())


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory, digits4: str, teacher_run: Path) -> Mapping[str, Path]:
    """Of the same teacher, all probabilities, the top 2 and bare labels. Never change them."""
    folder = tmp_path_factory.mktemp("tables")
    ways: dict[str, dict[str, Any]] = {"all": {}, "top": {"top_k": 2}, "label": {"labels_only": True}}
    for name, how in ways.items():
        predict(f"run:{teacher_run}", digits4, folder / f"{name}.csv", progress=Silent(), **how)
    return {name: folder / f"{name}.csv" for name in ways}


def changed(table: Path, to: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> str:
    """The reference of a table with other rows, written by hand: without what kdc says of its own."""
    first, _, rest = table.read_text().partition("\n")
    assert first.startswith(MARK)
    rows = change(list(csv.DictReader(rest.splitlines())))
    with to.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return f"outputs:{to}"


def test_answers_are_looked_up_by_the_samples_numbers() -> None:
    logits = torch.arange(12.0).reshape(4, 3).log_softmax(-1) * torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    teacher = Table(logits, Codec(3))
    assert (teacher.keys, teacher.wants(0)) == ((), False)
    batch = {"index": torch.tensor([3, 0, 3]), "labels": torch.zeros(3, dtype=torch.int64)}
    for epoch in (0, 7):
        torch.testing.assert_close(teacher.answers(batch, epoch).logits, logits[[3, 0, 3]], rtol=0, atol=0)
    teacher.end(0, BatchModel(torch.nn.Identity(), "student"))


def test_a_student_of_a_table_is_recorded_whole(
    tmp_path: Path, ask_distill: Ask, teacher_run: Path, tables: Mapping[str, Path]
) -> None:
    progress, reference = Hearing(), f"outputs:{tables['all']}"
    student = run(ask_distill(teacher=reference, epochs=1), tmp_path / "run", progress)
    _, taught = load_run(teacher_run)
    assert student.teacher is not None
    assert (student.teacher.source, student.teacher.parameters) == (reference, 0)
    assert (student.teacher.architecture, student.teacher.licence) == ("test_resnet", taught.weights.licence)
    assert student.teacher.sha256 != taught.weights.sha256, "the table's content is what taught, not the weights"
    assert student.teacher_validation == taught.validation
    assert student.teacher_card is not None
    assert taught.teacher_card is not None
    assert student.teacher_card.confused == taught.teacher_card.confused
    assert student.teacher_card.calibration_error == pytest.approx(taught.teacher_card.calibration_error, abs=1e-5)
    assert any("360 answers (probabilities), to the whole images" in line for line in progress.notes)
    assert not [line for line in progress.warnings if not line.startswith("the student ")], "of the table"


def test_the_student_learns_what_the_teacher_itself_would_have_taught(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    """Where every view is the whole image, the losses are the same whether the teacher runs or is read."""
    how: dict[str, Any] = {"views": SAME_VIEW, "losses": [{"name": "kd"}], "epochs": 2, "optimizer": {"lr": 1e-3}}
    run(ask_distill(**how), tmp_path / "online")
    run(ask_distill(teacher=f"outputs:{tables['all']}", **how), tmp_path / "table")
    for online, table in zip(history(tmp_path / "online"), history(tmp_path / "table"), strict=True):
        assert table["loss"]["kd"] == pytest.approx(online["loss"]["kd"], rel=1e-3)


@pytest.mark.parametrize("kind", ["top", "label"])
def test_less_than_all_probabilities_teaches_too(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path], kind: str
) -> None:
    progress = Hearing()
    how: dict[str, Any] = {"losses": [{"name": "kd", "temperature": 1.0}], "epochs": 6}
    student = run(ask_distill(teacher=f"outputs:{tables[kind]}", **how), tmp_path / "run", progress)
    losses = [row["loss"]["kd"] for row in history(tmp_path / "run")]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 2
    assert accuracy_in(student.test).accuracy > 0.5
    card = student.teacher_card
    assert card is not None
    assert (card.softened == ()) is (kind == "label")
    assert card.evenness is None, "how the rest lay is not known"
    assert progress.warnings == []


def test_a_label_at_temperature_1_is_cross_entropy_with_it(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path], digits4: str
) -> None:
    """A table of the data's own labels."""
    rows = list(csv.DictReader(tables["label"].read_text().splitlines()[1:]))
    run(ask_distill(losses=[{"name": "cross_entropy"}], epochs=1), tmp_path / "labels")
    how: dict[str, Any] = {"losses": [{"name": "kd", "temperature": 1.0}], "epochs": 1}

    data = open_data(digits4)
    label = {name: NAMES[k] for s in (data.train, data.validation) for name, k in zip(s.ids, s.labels, strict=True)}

    def true(_: list[dict[str, str]]) -> list[dict[str, str]]:
        return [{"id": row["id"], "label": label.get(row["id"], "zero")} for row in rows]

    reference = changed(tables["label"], tmp_path / "true.csv", true)
    run(ask_distill(teacher=reference, **how), tmp_path / "table")
    (labels,), (table,) = history(tmp_path / "labels"), history(tmp_path / "table")
    assert table["loss"]["kd"] == pytest.approx(labels["loss"]["cross_entropy"], rel=1e-4)


def test_a_table_without_the_validation_split_is_not_measured(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    progress = Hearing()
    train = changed(tables["all"], tmp_path / "train.csv", lambda rows: [r for r in rows if r["split"] == "train"])
    student = run(ask_distill(teacher=train, epochs=1), tmp_path / "run", progress)
    assert (student.teacher_validation, student.teacher_card) == (None, None)
    assert any("not measured: the table has 0 of 24 validation samples" in line for line in progress.notes)
    assert student.teacher is not None
    assert (student.teacher.architecture, student.teacher.licence) == ("unknown", "unknown"), "it says nothing of it"


def test_the_default_of_a_network_leaves_layers_out(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    """examples/recipe.yaml names it, and suits every teacher."""
    progress = Hearing()
    run(
        ask_distill(teacher=f"outputs:{tables['all']}", losses=built_in("large")["losses"], epochs=1),
        tmp_path / "run",
        progress,
    )
    assert any(line.startswith("pkd is left out: there is no one network") for line in progress.notes)
    row = json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[0])
    assert row["loss"].keys() == {"kd", "cross_entropy"}


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("all", {"views": {"mixup": 0.4}}, "were not mixed.*views.mixup=0"),
        ("all", {"views": {"cutmix": 1.0}}, "were not mixed"),
        ("all", {"losses": [{"name": "kd"}, {"name": "hint"}]}, "hint looks at the teacher's features"),
        ("all", {"losses": [{"name": "soft_bce"}]}, "soft_bce looks at each logit for itself.*logit:NAME"),
        ("all", {"teacher_answers": {"top_k": 2}}, "teacher_answers says how a model's answers are kept"),
        ("label", {"losses": [{"name": "dkd"}]}, "dkd looks at the logits of all classes.*holds bare labels"),
        ("label", {"losses": [{"name": "logit_mse"}]}, "logit_mse looks at.*kd or soft_cross_entropy or dist"),
        ("all", {"teacher_classes": "names.txt"}, "a table of answers names its classes itself"),
    ],
)
def test_what_a_table_cannot_give_is_refused(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path], kind: str, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(KdcError, match=says):
        run(ask_distill(teacher=f"outputs:{tables[kind]}", **changes), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_training_sample_without_a_row_is_refused(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    def without(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        train = [row["id"] for row in rows if row["split"] == "train"]
        return [row for row in rows if row["id"] not in (train[5], train[9])]

    few = changed(tables["all"], tmp_path / "few.csv", without)
    with pytest.raises(KdcError, match="no row for 2 of 216 training samples, the first train/"):
        run(ask_distill(teacher=few), tmp_path / "run")


def test_a_probability_of_0_bears_only_losses_on_probabilities(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    def sure(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        first = {name: "1" if name == rows[0]["id"] else "0" for name in NAMES}
        given = [{"id": row["id"], **first, "zero": "0.4", "one": "0.6"} for row in rows]
        return given

    zeros = changed(tables["all"], tmp_path / "zeros.csv", sure)
    with pytest.raises(KdcError, match=r"lskd looks at .*probabilities of 0 \(e.g. of train/"):
        run(ask_distill(teacher=zeros, losses=[{"name": "lskd"}]), tmp_path / "run")


def test_a_table_at_chance_level_is_refused(tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]) -> None:
    """Pitfalls, "A random head"."""
    same = changed(tables["label"], tmp_path / "same.csv", lambda rows: [{**row, "label": "one"} for row in rows])
    with pytest.raises(KdcError, match=r"answers at chance level on the validation split.*check its labels and ids"):
        run(ask_distill(teacher=same), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_temperature_on_bare_labels_is_warned_of(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    progress = Hearing()
    run(ask_distill(teacher=f"outputs:{tables['label']}", epochs=1), tmp_path / "run", progress)
    assert any("kd at temperature 4 on bare labels" in line for line in progress.warnings)


def of_other_data(table: Path, to: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> str:
    """The reference of kdc's own table, as if it had answered other data; each row as `change` makes it."""
    first, _, rest = table.read_text().partition("\n")
    said = json.loads(first.removeprefix(MARK)) | {"data": "0" * 64}
    rows = [change(row) for row in csv.DictReader(rest.splitlines())]
    with to.open("w", newline="") as file:
        file.write(f"{MARK}{json.dumps(said)}\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return f"outputs:{to}"


def test_a_table_of_other_data_that_does_not_say_what_it_answered_is_warned_of(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    progress = Hearing()
    by_ids = of_other_data(tables["all"], tmp_path / "t.csv", lambda row: {k: row[k] for k in row if k != "content"})
    run(ask_distill(teacher=by_ids, epochs=1), tmp_path / "run", progress)
    assert any("was made from other data" in line for line in progress.warnings)


def test_answers_find_their_images_under_other_names(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path]
) -> None:
    """The same images from another folder or table: nothing is to be said."""
    progress = Hearing()
    renamed = of_other_data(tables["all"], tmp_path / "t.csv", lambda row: row | {"id": f"elsewhere/{row['id']}"})
    student = run(ask_distill(teacher=renamed, epochs=1), tmp_path / "run", progress)
    assert not [line for line in progress.warnings if "t.csv" in line]
    same = run(ask_distill(teacher=f"outputs:{tables['all']}", epochs=1), tmp_path / "same")
    assert student.teacher_card == same.teacher_card
    losses = [[row["loss"] for row in history(tmp_path / name)] for name in ("run", "same")]
    assert losses[0] == losses[1]


def test_a_table_that_answered_other_images_under_the_same_names_is_refused(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path], digits4: str
) -> None:
    train = open_data(digits4).train
    changed_ones = set(train.ids[:5])

    def other(row: dict[str, str]) -> dict[str, str]:
        return row | ({"content": f"{int(row['content'], 16) ^ 1:016x}"} if row["id"] in changed_ones else {})

    with pytest.raises(KdcError) as raised:
        run(
            ask_distill(teacher=of_other_data(tables["all"], tmp_path / "t.csv", other), epochs=1),
            tmp_path / "run",
        )
    assert raised.value.message == (
        f"outputs:{tmp_path / 't.csv'} answered other images under the names of 5 of {len(train)} training samples, "
        f"the first {train.ids[0]}"
    )
    assert raised.value.hint == "make it anew: kdc predict --data …"


def test_a_run_does_not_go_on_with_another_table(
    tmp_path: Path, ask_distill: Ask, tables: Mapping[str, Path], interrupt_at: Callable[[int], Progress]
) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(tables["all"].read_bytes())
    request = ask_distill(teacher=f"outputs:{file}")
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "run", interrupt_at(3))
    file.write_bytes(tables["top"].read_bytes())
    with pytest.raises(KdcError, match="the teacher"):
        run(request, tmp_path / "run", resume=True)
    file.write_bytes(tables["all"].read_bytes())
    run(request, tmp_path / "run", resume=True)
    run(request, tmp_path / "whole")
    parts = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("run", "whole")]
    assert parts[0] == parts[1]


def test_where_a_table_is_no_model(
    tmp_path: Path, ask_distill: Ask, ask_teach: Ask, tables: Mapping[str, Path], teacher_run: Path, digits4: str
) -> None:
    reference = f"outputs:{tables['all']}"
    to = Destination(tmp_path / "run")
    with pytest.raises(KdcError, match=r"is a table of answers, not a model.*only kdc distill"):
        teach(ask_teach(teacher=reference, init="pretrained"), to, progress=Silent())
    with pytest.raises(KdcError, match="is a table of answers, not a model"):
        predict(reference, digits4, tmp_path / "again.csv", progress=Silent())
    with pytest.raises(KdcError, match="holds the teacher's answers already"):
        precompute(ask_distill(teacher=reference, views={"distinct": 2}), tmp_path / "run", progress=Silent())
    chained = ask_distill(teacher=reference).model_copy(update={"assistants": ("timm:test_resnet",)})
    with pytest.raises(KdcError, match=r"stands between a model and the student.*run:ASSISTANT"):
        distill_chain(chained, to, progress=Silent())
    for first, second in ((reference, f"run:{teacher_run}"), (f"run:{teacher_run}", reference)):
        request = ask_distill(teacher=first).model_copy(update={"other_teachers": (second,)})
        with pytest.raises(KdcError, match="outputs:FILE stands alone"):
            run(request, tmp_path / "run")
        with pytest.raises(KdcError, match="outputs:FILE stands alone"):
            distill_chain(request.model_copy(update={"assistants": ("timm:test_resnet",)}), to, progress=Silent())
    with pytest.raises(KdcError, match=r"none\.csv does not exist"):
        run(ask_distill(teacher=f"outputs:{tmp_path / 'none.csv'}"), tmp_path / "run")
    assert not list(tmp_path.iterdir())
