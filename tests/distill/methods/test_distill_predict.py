"""`kdc predict`: what it writes is what the teacher answers."""

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compressor.data.predictions import AnswerTable, read_outputs
from compressor.distill import predict
from compressor.distill.teacher.codec import Codec
from compressor.errors import KdcError
from compressor.models import load_run
from compressor.progress import Silent
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.models.answering import logits_of
from tests.kit import Ended, Hearing

NAMES = ("zero", "one", "two", "three")


def logits(table: AnswerTable, name: str) -> torch.Tensor:
    row = torch.from_numpy(table.encoded[[table.rows[name]]])
    return Codec(len(NAMES), top_k=table.top_k).decode(row)[0]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_table_holds_what_the_teacher_answers(tmp_path: Path, digits4: str, teacher_run: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"answers.{ending}"
    done = predict(f"run:{teacher_run}", digits4, file, progress=Silent())
    model, student = load_run(teacher_run)
    table, data = read_outputs(file, NAMES), open_data(digits4)
    assert table.kind == "probabilities"
    assert len(table.rows) == 360
    for split in (data.train, data.validation, data.test):
        answers = logits_of(model, [split.read(number) for number in range(0, len(split), 7)])
        for number, wanted in zip(range(0, len(split), 7), answers, strict=True):
            found = logits(table, split.ids[number])
            torch.testing.assert_close(found, wanted.log_softmax(-1), rtol=1e-4, atol=1e-4)
    assert table.info == done.info
    assert done.validation == student.validation, "measured as a training measures it"
    assert done.counts == {"train": 216, "validation": 24, "test": 120}
    assert done.info.teacher.sha256 == student.weights.sha256
    assert done.info.teacher.source == "run:teacher", "no path of this machine"
    assert done.info.data == data.info.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


def test_the_top_k_and_the_labels_say_less_of_the_same(tmp_path: Path, digits4: str, teacher_run: Path) -> None:
    ways: dict[str, dict[str, Any]] = {"all": {}, "top": {"top_k": 2}, "label": {"labels_only": True}}
    for name, how in ways.items():
        predict(f"run:{teacher_run}", digits4, tmp_path / f"{name}.csv", progress=Silent(), **how)
    every, top, label = (read_outputs(tmp_path / f"{name}.csv", NAMES) for name in ("all", "top", "label"))
    assert (top.kind, top.top_k, label.kind) == ("top-k", 2, "labels")
    for name in every.rows:
        whole, two, one = (logits(table, name).softmax(-1) for table in (every, top, label))
        largest = whole.topk(2).indices
        torch.testing.assert_close(two[largest], whole[largest], rtol=1e-5, atol=1e-7)
        others = [number for number in range(4) if number not in largest.tolist()]
        torch.testing.assert_close(two[others], whole[others].mean().expand(2), rtol=1e-3, atol=1e-7)
        assert one[largest[0]] == 1.0
    assert len({every.sha256, top.sha256, label.sha256}) == 3


def test_what_it_refuses(tmp_path: Path, digits4: str, teacher_run: Path) -> None:
    teacher, there = f"run:{teacher_run}", tmp_path / "there.csv"
    there.write_text("id,label\nx,zero\n")
    own = "exists and is no table of kdc predict, so it is left alone"
    refused: list[tuple[Path, dict[str, Any], str]] = [
        (there, {}, own),
        (there, {"overwrite": True}, own),
        (tmp_path, {"overwrite": True}, "none of .csv"),
        (tmp_path / "a.txt", {}, "none of .csv, .parquet"),
        (tmp_path / "a.csv", {"top_k": 2, "labels_only": True}, "give one of them"),
        (tmp_path / "a.csv", {"top_k": 4}, "--top-k 4: the data has 4 classes"),
    ]
    for out, how, says in refused:
        with pytest.raises(KdcError, match=says):
            predict(teacher, digits4, out, progress=Silent(), **how)
    assert there.read_text() == "id,label\nx,zero\n"
    assert list(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_only_its_own_table_is_replaced(tmp_path: Path, digits4: str, teacher_run: Path, ending: str) -> None:
    teacher, file = f"run:{teacher_run}", tmp_path / f"answers.{ending}"
    file.write_bytes(b"#kdc is no table")
    with pytest.raises(KdcError, match="is no table of kdc predict, so it is left alone"):
        predict(teacher, digits4, file, progress=Silent(), overwrite=True)
    assert file.read_bytes() == b"#kdc is no table"
    file.unlink()
    predict(teacher, digits4, file, progress=Silent(), labels_only=True)
    with pytest.raises(KdcError, match=r"exists \(--overwrite to replace it"):
        predict(teacher, digits4, file, progress=Silent())
    predict(teacher, digits4, file, progress=Silent(), overwrite=True)
    assert read_outputs(file, NAMES).kind == "probabilities"
    if ending == "parquet":
        from pyarrow import parquet

        parquet.write_table(parquet.read_table(file).replace_schema_metadata(None), file)
        with pytest.raises(KdcError, match="is no table of kdc predict"):
            predict(teacher, digits4, file, progress=Silent(), overwrite=True)


def test_a_teacher_at_chance_level_is_told_of(tmp_path: Path, digits4: str, teacher_run: Path) -> None:
    (tmp_path / "names.txt").write_text("three\ntwo\none\nzero\n")
    progress, classes = Hearing(), tmp_path / "names.txt"
    predict(f"run:{teacher_run}", digits4, tmp_path / "a.csv", progress=progress, teacher_classes=classes)
    assert any("chance level" in line for line in progress.warnings)


def test_answers_that_are_not_finite_write_nothing(
    tmp_path: Path, digits4: str, teacher_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("compressor.distill.methods.predict")  # the package's attribute is the function
    answers = module.answers_of

    def broken(*arguments: Any) -> Iterator[tuple[Sequence[str], Sequence[str], NDArray[np.float32]]]:
        for ids, splits, logits in answers(*arguments):
            logits = np.array(logits)
            logits[3, 0] = np.nan
            yield ids, splits, logits

    monkeypatch.setattr(module, "answers_of", broken)
    with pytest.raises(KdcError, match=r"the teacher's answer to train/.* is not finite, so nothing was written"):
        predict(f"run:{teacher_run}", digits4, tmp_path / "a.csv", progress=Silent())
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path, digits4: str, teacher_run: Path, kdc: Callable[..., Ended]) -> None:
    command = (
        "predict",
        "--teacher",
        f"run:{teacher_run}",
        "--data",
        digits4,
        "--out",
        tmp_path / "a.csv",
        "--top-k",
        3,
    )
    ended = kdc(*command)
    assert ended.code == 0
    assert "360 rows; validation accuracy" in ended.out
    assert "(n=24)" in ended.out
    assert "test accuracy" not in ended.out + ended.err
    assert kdc(*command).code == 2
    ended = kdc(*command, "--json", "--overwrite")
    values = json.loads(ended.out)
    assert (values["top_k"], values["validation"]["n"], values["info"]["kind"]) == (3, 24, "top-k")
    assert set(values) == {"out", "info", "top_k", "counts", "validation"}, "nothing of the test split"
