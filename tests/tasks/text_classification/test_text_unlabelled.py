"""Texts without labels: where they come from, which are left out, and that it is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.data.samples import UNLABELLED, Dataset
from compressor.errors import KdcError
from compressor.schema.student import Columns
from compressor.tasks.table import task_named
from tests.kit import Hearing
from tests.tasks.text_classification.kit import texts, write_csv

TASK = task_named("text-classification")
NEW = ["a new text of goals", "another one", "a third of soup"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("labelled") / "data.csv", texts(60))


def opened(labelled: Path, more: str, **options: Any) -> tuple[Dataset, Hearing]:
    said = Hearing()
    return TASK.open_data(f"csv:{labelled}", progress=said, unlabelled=more, **options), said


def lines(path: Path) -> str:
    path.write_text("\ufeff" + NEW[0] + "\r\n\r\n" + NEW[1] + "\n  \n" + NEW[2] + "\n", encoding="utf-8")
    return f"text:{path}"


def table(path: Path) -> str:
    return f"csv:{write_csv(path, [(text, n) for n, text in enumerate(NEW)], ('review', 'id'))}"


def with_labels(path: Path) -> str:
    """Classes that the data does not have, which are not read."""
    return f"csv:{write_csv(path, [('other', text) for text in NEW], ('label', 'text'))}"


def folder(path: Path) -> str:
    for number, text in enumerate(NEW):
        (path / "at" / f"{number}").mkdir(parents=True)
        (path / "at" / f"{number}" / "one.txt").write_text(text)
    return f"folder:{path}"


def parquet(path: Path) -> str:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"text": NEW, "label": [9, 9, 9]}).to_parquet(path.with_suffix(".parquet"))
    return f"parquet:{path.with_suffix('.parquet')}"


def hub(path: Path) -> str:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": NEW})}).save_to_disk(path)
    return f"hf:{path}"


@pytest.mark.parametrize("write", [lines, table, with_labels, folder, parquet, hub])
def test_texts_without_labels_join_train(labelled: Path, tmp_path: Path, write: Callable[[Path], str]) -> None:
    alone = TASK.open_data(f"csv:{labelled}", progress=Hearing())
    data, said = opened(labelled, write(tmp_path / "more.csv"))
    assert [data.train.read(row) for row in range(len(alone.train), len(data.train))] == [(text,) for text in NEW]
    assert (data.train.labels[-3:] == UNLABELLED).all()
    assert data.train.ids[: len(alone.train)] == alone.train.ids
    assert (data.train.contents[:-3] == alone.train.contents).all()
    assert len({*data.train.ids}) == len(data.train)
    assert (data.info.fingerprint, data.info.counts) == (alone.info.fingerprint, alone.info.counts)
    assert data.info.unlabelled is not None
    assert (data.info.unlabelled.count, data.info.unlabelled.left_out_copies) == (3, 0)
    assert "unlabelled: 3 texts join train; every loss but those of labels learns from them" in said.notes


def test_the_same_texts_from_elsewhere_are_the_same(labelled: Path, tmp_path: Path) -> None:
    prints = []
    for name, write in (("a", lines), ("b", folder), ("c", with_labels)):
        info = opened(labelled, write(tmp_path / name))[0].info.unlabelled
        assert info is not None
        prints.append(info.fingerprint)
    assert prints[0] == prints[1] == prints[2]


def test_copies_of_the_data_are_left_out_and_said(labelled: Path, tmp_path: Path) -> None:
    alone = TASK.open_data(f"csv:{labelled}", progress=Hearing())
    test, train = alone.test.read(0)[0], alone.train.read(0)[0]
    (tmp_path / "more.txt").write_text("\n".join([f"  {test.upper()} ", train, alone.test.read(1)[0], *NEW]))
    data, said = opened(labelled, f"text:{tmp_path / 'more.txt'}")
    assert len(data.train) == len(alone.train) + 3
    assert "unlabelled: left out 3 copies of texts in the data (1 of train, 2 of test)" in said.notes
    assert data.info.unlabelled is not None
    assert data.info.unlabelled.left_out_copies == 3
    split, info, notes = TASK.open_unlabelled(
        f"text:{tmp_path / 'more.txt'}", alone, progress=Hearing(), said="recipe stages.0.data"
    )
    # A stage may learn from the texts of train again, and never from held-out ones.
    assert (len(split), info.left_out_copies) == (4, 2)
    assert not np.isin(split.contents, alone.test.contents).any()
    assert "recipe stages.0.data: left out 2 copies of texts in the data (2 of test)" in notes


def test_blank_lines_are_passed_over_and_counted(labelled: Path, tmp_path: Path) -> None:
    _, said = opened(labelled, lines(tmp_path / "more.txt"))
    assert "unlabelled: passed over 2 blank lines of more.txt" in said.notes


def nothing_new(path: Path, held: str) -> str:
    path.write_text(held)
    return f"text:{path}"


def pairs(path: Path, held: str) -> str:
    return f"csv:{write_csv(path, [('a', 'b')], ('sentence1', 'sentence2'))}"


def latin(path: Path, held: str) -> str:
    path.write_bytes(b"fine\nna\xefve\n")
    return f"text:{path}"


def blank(path: Path, held: str) -> str:
    path.write_text("\n \n")
    return f"text:{path}"


def in_doubt(path: Path, held: str) -> str:
    return f"csv:{write_csv(path, [('a', 'b')], ('text', 'review'))}"


def bad(path: Path, held: str) -> str:
    path.write_text("fine\na\0b\n")
    return f"text:{path}"


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (nothing_new, "none of its 1 texts is new: the data holds a copy of each"),
        (pairs, "holds pairs of texts, and the data single texts"),
        (latin, "line 2 is not UTF-8"),
        (blank, "holds no texts"),
        (in_doubt, "several columns that may hold the text: text, review"),
        (bad, "line 2: the text holds a zero byte"),
        (lambda path, held: "words:more", "names no texts that kdc can read"),
        (lambda path, held: f"text:{path}", "does not exist"),
        (lambda path, held: f"text:{path.parent}", "is a folder, and names a file"),
    ],
)
def test_what_cannot_join_is_refused(labelled: Path, tmp_path: Path, write: Any, said: str) -> None:
    held = TASK.open_data(f"csv:{labelled}", progress=Hearing()).train.read(0)[0]
    with pytest.raises(KdcError) as refused:
        opened(labelled, write(tmp_path / "more", held))
    assert said in refused.value.message
    assert refused.value.message.startswith("--unlabelled")


def test_bad_texts_are_left_out_where_that_is_asked_for(labelled: Path, tmp_path: Path) -> None:
    data, said = opened(labelled, bad(tmp_path / "more", ""), skip_bad=True)
    assert data.info.unlabelled is not None
    assert (data.info.unlabelled.count, data.info.unlabelled.skipped) == (1, ("line 2",))
    assert any("left out 1 texts that cannot be used, e.g. line 2" in note for note in said.notes)


def test_columns_that_were_stated_count_where_they_are(labelled: Path, tmp_path: Path) -> None:
    more = write_csv(tmp_path / "more.csv", [(NEW[0], "no text", "x")], ("words", "review", "kind"))
    own = write_csv(tmp_path / "own.csv", [(text, topic) for text, topic in texts(60)], ("words", "kind"))
    columns = Columns(text=("words",), label="kind")
    data, _ = opened(own, f"csv:{more}", columns=columns)
    assert data.train.read(len(data.train) - 1) == (NEW[0],)
    other = write_csv(tmp_path / "other.csv", [(NEW[1], "x")], ("review", "kind"))
    assert opened(own, f"csv:{other}", columns=columns)[0].train.read(len(data.train) - 1) == (NEW[1],)
