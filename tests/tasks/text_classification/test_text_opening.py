"""Texts as they come: tables, folders, data sets; what is wrong with them is one clear line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.data.texts import normalised
from compressor.errors import KdcError
from compressor.schema.student import Columns
from compressor.tasks.text_classification.opening import open_data
from tests.kit import Hearing
from tests.tasks.text_classification.kit import texts, write_csv

ROWS = texts(60)


def opened(reference: str, **options: Any) -> tuple[Any, list[str]]:
    progress = Hearing()
    return open_data(reference, progress=progress, **options), progress.notes


def shown(data: Any) -> dict[tuple[str, ...], str]:
    return {
        split.read(row): data.info.class_names[split.labels[row]]
        for split in (data.train, data.validation, data.test)
        for row in range(len(split))
    }


def test_a_table_is_split_and_said(tmp_path: Path) -> None:
    data, notes = opened(f"csv:{write_csv(tmp_path / 'a.csv', ROWS)}")
    assert data.info.class_names == ("food", "space", "sport")
    assert shown(data) == {(text,): label for text, label in ROWS}
    assert data.info.counts == {"train": 42, "validation": 6, "test": 12}
    assert "texts from column text, labels from column label" in notes
    assert any(note.startswith("test: 20 % of train split off") for note in notes)


def test_every_source_says_the_same(tmp_path: Path) -> None:
    import pyarrow as pa
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
    from pyarrow import parquet

    write_csv(tmp_path / "a.csv", ROWS)
    columns = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    names = ["food", "space", "sport"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    numbered = {**columns, "label": [names.index(label) for label in columns["label"]]}
    DatasetDict({"train": Dataset.from_dict(numbered, features=features)}).save_to_disk(str(tmp_path / "saved"))
    for number, (text, label) in enumerate(ROWS):
        (tmp_path / "folder" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / label / f"{number}.txt").write_text(text, encoding="utf-8-sig")
    references = ("csv:a.csv", "parquet:a.parquet", "hf:saved", "folder:folder")
    found = [opened(f"{scheme}:{tmp_path / name}")[0] for scheme, name in (one.split(":") for one in references)]
    assert len({data.info.fingerprint for data in found}) == 1
    assert len({data.test.contents.tobytes() for data in found[:3]}) == 1
    assert {data.info.class_names for data in found} == {("food", "space", "sport")}


def test_own_splits_byte_order_mark_and_a_folder_of_splits(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:40]), ("valid", ROWS[40:50]), ("test", ROWS[50:])):
        file = write_csv(tmp_path / f"{name}.csv", rows)
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    data, _ = opened(f"csv:{tmp_path}")
    assert data.info.counts == {"train": 40, "validation": 10, "test": 10}
    for name, rows in (("train", ROWS[:40]), ("validation", ROWS[40:50]), ("test", ROWS[50:])):
        for number, (text, label) in enumerate(rows):
            (tmp_path / "f" / name / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "f" / name / label / f"{number}.txt").write_text(text)
    assert opened(f"folder:{tmp_path / 'f'}")[0].info.fingerprint == data.info.fingerprint
    (tmp_path / "test.csv").rename(tmp_path / "testset.csv")
    with pytest.raises(KdcError, match=r"testset.csv, which sounds like test"):
        opened(f"csv:{tmp_path}")


@pytest.mark.parametrize(
    ("header", "columns", "note"),
    [
        (("Headline", "Category"), Columns(), "texts from column Headline, labels from column Category"),
        (("id", "whatever", "label"), Columns(), "texts from column whatever, labels from column label"),
        (("sentence1", "sentence2", "label"), Columns(), "texts from columns sentence1 and sentence2, labels from"),
        (("title", "text", "y"), Columns(text=("text",), label="y"), "texts from column text, labels from column y"),
        (("title", "text", "y"), Columns(text=("title", "text"), label="y"), "from columns title and text, labels"),
        (("TEXT", "Label"), Columns(text=("text",), label="label"), "texts from column TEXT, labels from column Label"),
    ],
)
def test_columns_are_found_or_stated_and_said(
    tmp_path: Path, header: tuple[str, ...], columns: Columns, note: str
) -> None:
    rows = [
        (f"{text}", *([f"No {number}"] if len(header) > 2 else []), label) for number, (text, label) in enumerate(ROWS)
    ]
    if header[0] == "id":
        rows = [(f"{number}", text, label) for number, (text, label) in enumerate(ROWS)]
    data, notes = opened(f"csv:{write_csv(tmp_path / 'a.csv', rows, header)}", columns=columns)
    assert any(note in said for said in notes), notes
    assert len(data.train.read(0)) == (2 if "columns" in note else 1)


@pytest.mark.parametrize(
    ("header", "columns", "said"),
    [
        (("title", "text", "label"), Columns(), "several columns that may hold the text: title, text"),
        (("a", "b", "label"), Columns(), "no column that is known to hold texts .* its columns: a, b, label"),
        (("text", "label", "class"), Columns(), "several columns that may hold the label: label, class"),
        (("text", "a", "b"), Columns(), "no column that is known to hold the label"),
        (("text", "a", "label"), Columns(text=("txet",)), "no column txet .*did you mean text"),
        (("text", "a", "label"), Columns(text=("text", "text")), "--text-column text is given twice"),
        (("text", "a", "label"), Columns(text=("text",), label="text"), "cannot be both the text and the label"),
        (("text", "text", "label"), Columns(), "several columns"),
    ],
)
def test_columns_that_are_not_there_or_in_doubt_are_refused(
    tmp_path: Path, header: tuple[str, ...], columns: Columns, said: str
) -> None:
    file = write_csv(tmp_path / "a.csv", [(text, "x", label) for text, label in ROWS], header)
    with pytest.raises(KdcError, match=said):
        opened(f"csv:{file}", columns=columns)


def spoilt(change: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        file = write_csv(folder / "a.csv", ROWS)
        file.write_bytes(change(file.read_bytes()))
        return f"csv:{file}"

    return write


def with_rows(*more: tuple[str, str]) -> Callable[[Path], str]:
    return lambda folder: f"csv:{write_csv(folder / 'a.csv', [*ROWS[:5], *more, *ROWS[5:]])}"


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (with_rows(("", "food")), r"a.csv line 7: the text is empty"),
        (with_rows((" \t\u3000", "food"), ("", "food")), r"line 7: the text is empty \(and 1 more texts\)"),
        (with_rows(("bread", "")), r"line 7: the label is missing"),
        (spoilt(lambda raw: raw.replace(b"soup", b"s\xe9up", 1)), r"a.csv is no CSV file in UTF-8: line \d+: "),
        (spoilt(lambda raw: raw.replace(b"soup", b"s\0up", 1)), r"a.csv line \d+ holds a zero byte"),
        (spoilt(lambda raw: raw.decode().encode("utf-16")), r"a.csv is no CSV file in UTF-8: line 1: "),
        (with_rows(("bread", ""), ("soup", "nan")), r"line 7: the label is missing \(and 1 more labels\)"),
    ],
)
def test_bad_texts_are_named_by_file_and_row(tmp_path: Path, write: Callable[[Path], str], said: str) -> None:
    with pytest.raises(KdcError, match=said):
        opened(write(tmp_path))


def test_empty_texts_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    data, notes = opened(with_rows(("", "food"))(tmp_path), skip_bad=True)
    assert data.info.skipped == ("train/5",)
    assert shown(data) == {(text,): label for text, label in ROWS}
    assert "left out 1 texts that cannot be used, e.g. train/5" in notes


def test_texts_without_a_label_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    data, notes = opened(with_rows(("bread", ""), ("", "food"), ("soup", "NaN"))(tmp_path), skip_bad=True)
    assert data.info.skipped == ("train/5", "train/7", "train/6")
    assert shown(data) == {(text,): label for text, label in ROWS}
    assert data.train.ids[0] != "train/5"
    assert "left out 3 texts that cannot be used, e.g. train/5" in notes
    labels = [None if row == 7 else label for row, (_, label) in enumerate(ROWS)]
    parquet.write_table(pa.table({"text": [text for text, _ in ROWS], "label": labels}), tmp_path / "a.parquet")
    with pytest.raises(KdcError, match="row 7: the label is missing"):
        opened(f"parquet:{tmp_path / 'a.parquet'}")
    data, _ = opened(f"parquet:{tmp_path / 'a.parquet'}", skip_bad=True)
    assert data.info.skipped == ("train/7",)
    assert data.info.class_names == ("food", "space", "sport")


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_found_and_said(tmp_path: Path, sign: str, name: str) -> None:
    lines = [f"text{sign}label", *(f'"{text}, and more"{sign}{label}' for text, label in ROWS)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    data, notes = opened(f"csv:{tmp_path / 'a.csv'}")
    assert shown(data) == {(f"{text}, and more",): label for text, label in ROWS}
    assert f"texts from column text, labels from column label; columns are separated by {name}" in notes


def test_numbers_are_no_texts_unless_that_is_stated(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [(f"{number},5", label) for number, (_, label) in enumerate(ROWS)]
    data = f"csv:{write_csv(tmp_path / 'a.csv', rows, ('price', 'label'))}"
    with pytest.raises(KdcError, match=r"a.csv: column price, which would be the text, holds only numbers, as 0,5"):
        opened(data)
    assert len(shown(opened(data, columns=Columns(text=("price",)))[0])) == 60
    mixed = [("2 goals" if not row else value, label) for row, (value, label) in enumerate(rows)]
    opened(f"csv:{write_csv(tmp_path / 'b.csv', mixed, ('price', 'label'))}")
    # Of typed columns the only one that can hold texts does.
    table = {"price": list(range(60)), "note": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    assert "texts from column note, labels from column label" in opened(f"parquet:{tmp_path / 'a.parquet'}")[1]


def test_a_pair_may_have_one_empty_text(tmp_path: Path) -> None:
    rows = [(text, "" if number % 2 else "more", label) for number, (text, label) in enumerate(ROWS)]
    data, _ = opened(f"csv:{write_csv(tmp_path / 'a.csv', rows, ('text_a', 'text_b', 'label'))}")
    assert {texts[1] for texts in shown(data)} == {"", "more"}


def test_missing_zero_and_foreign_cells_of_other_tables(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    def at(value: object, column: str = "text") -> str:
        rows: dict[str, list[Any]] = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
        rows[column][7] = value
        parquet.write_table(pa.table(rows), tmp_path / "a.parquet")
        return f"parquet:{tmp_path / 'a.parquet'}"

    for value, said in ((None, "row 7: the text is missing"), ("a\0b", "row 7: the text holds a zero byte")):
        with pytest.raises(KdcError, match=said):
            opened(at(value))
    parquet.write_table(pa.table({"text": [1, 2], "label": ["a", "b"]}), tmp_path / "b.parquet")
    with pytest.raises(KdcError, match="column text holds int64, and is to hold texts"):
        opened(f"parquet:{tmp_path / 'b.parquet'}")


def test_files_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    for number, (text, label) in enumerate(ROWS):
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / f"{number}.txt").write_text(text)
    (tmp_path / "food" / "1.txt").write_bytes("gut\nf\xfcr dich".encode("latin-1"))
    with pytest.raises(KdcError, match=r"food/1.txt line 2 is not UTF-8 \(byte 0xfc\)") as caught:
        opened(f"folder:{tmp_path}")
    assert "iconv" in caught.value.hint
    assert "--skip-bad leaves them out" in caught.value.hint
    data, _ = opened(f"folder:{tmp_path}", skip_bad=True)
    assert data.info.skipped == ("food/1.txt",)


def test_labels_outside_the_classes_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS[:40])
    write_csv(tmp_path / "test.csv", [*ROWS[40:], ("they said", "drink")])
    with pytest.raises(KdcError, match=r"test.csv line 22: label drink is outside the classes, .*food, space, sport"):
        opened(f"csv:{tmp_path}")
    with pytest.raises(KdcError, match=r"other classes than the model: only in the data: sport; missing .*: drink"):
        opened(f"csv:{tmp_path / 'train.csv'}", class_names=("drink", "food", "space"))


def test_copies_are_found_by_what_people_read(tmp_path: Path) -> None:
    text, label = ROWS[0]
    write_csv(tmp_path / "train.csv", ROWS[:40])
    write_csv(tmp_path / "test.csv", [*ROWS[40:], (f"  {text.upper()}\u00a0", label), (text + "!", "space")])
    notes = opened(f"csv:{tmp_path}")[1]
    (told,) = [note for note in notes if "exact copy" in note]
    assert told == "1 texts of test have an exact copy in train, e.g. test/20 (it is train/0)"
    # In one file, all copies go into one split.
    data, _ = opened(f"csv:{write_csv(tmp_path / 'one.csv', [*ROWS, *((one.title(), of) for one, of in ROWS)])}")
    seen = [{normalised(split.read(row)[0]) for row in range(len(split))} for split in (data.train, data.test)]
    assert not seen[0] & seen[1]
    assert [
        note
        for note in opened(
            f"csv:{write_csv(tmp_path / 'two.csv', [*ROWS, (text, 'space' if label != 'space' else 'food')])}"
        )[1]
        if "under several labels" in note
    ]


def test_the_fingerprint_is_of_the_texts_as_they_stand(tmp_path: Path) -> None:
    plain = opened(f"csv:{write_csv(tmp_path / 'a.csv', ROWS)}")[0]
    shouted = opened(f"csv:{write_csv(tmp_path / 'b.csv', [(text.upper(), label) for text, label in ROWS])}")[0]
    assert plain.info.fingerprint != shouted.info.fingerprint
    assert (plain.train.contents == shouted.train.contents).all()


@pytest.mark.parametrize("reference", ["idx:a", "digits", "csv", "folder:", "csv:nowhere.csv"])
def test_what_holds_no_texts_is_refused(reference: str) -> None:
    with pytest.raises(KdcError):
        opened(reference)


def test_a_data_set_without_a_train_split_or_with_a_doubtful_one(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    DatasetDict({"test": Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "a"))
    with pytest.raises(KdcError, match="holds no split named train; its splits: test"):
        opened(f"hf:{tmp_path / 'a'}")
    DatasetDict({"train": Dataset.from_dict(rows), "hold_out": Dataset.from_dict(rows)}).save_to_disk(
        str(tmp_path / "b")
    )
    with pytest.raises(KdcError, match="hold_out, which sounds like test"):
        opened(f"hf:{tmp_path / 'b'}")


def test_ids_and_notes_name_no_folder_of_the_machine(tmp_path: Path) -> None:
    data, notes = opened(f"csv:{write_csv(tmp_path / 'a.csv', ROWS)}")
    assert re.escape(str(tmp_path)) not in json.dumps([notes, data.train.ids])


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (
            "text,label",
            "premise,hypothesis,label",
            "test.csv line 2 is a pair of texts, and .*train.csv line 2 is a single",
        ),
        (
            "premise,hypothesis,label",
            "text,label",
            "test.csv line 2 is a single text, and .*train.csv line 2 is a pair",
        ),
    ],
)
def test_single_texts_and_pairs_are_not_mixed(tmp_path: Path, train: str, test: str, said: str) -> None:
    """A model would be taught the ones and measured on the others."""
    for name, header in (("train", train), ("test", test)):
        cells = header.count(",")
        lines = [",".join([f"{name} {number}"] * cells + ["ab"[number % 2]]) for number in range(40)]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(KdcError, match=said):
        opened(f"csv:{tmp_path}")


def test_a_text_and_a_pair_may_both_be_meant(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("text,premise,hypothesis,label\n" + "".join(f"{n},a,b,{'xy'[n % 2]}\n" for n in range(40)))
    with pytest.raises(KdcError, match="may hold the text: text, and the pair premise and hypothesis") as caught:
        opened(f"csv:{table}")
    assert "--text-column premise --text-column hypothesis" in caught.value.hint
    table.write_text("text,text,label\n" + "".join(f"{n},a,{'xy'[n % 2]}\n" for n in range(40)))
    with pytest.raises(KdcError, match="several columns text"):
        opened(f"csv:{table}")


def test_a_long_text_is_one_and_an_open_quote_is_none(tmp_path: Path) -> None:
    rows = [(f"{text} {'long ' * 40_000 if number == 7 else ''}", label) for number, (text, label) in enumerate(ROWS)]
    data, _ = opened(f"csv:{write_csv(tmp_path / 'a.csv', rows)}")
    assert sum(data.info.counts.values()) == len(rows)
    with (tmp_path / "a.csv").open("a") as file:
        file.write('"never closed,food\n')
    with pytest.raises(KdcError, match=r"a.csv line \d+ is no line of a CSV file: unexpected end of data") as caught:
        opened(f"csv:{tmp_path / 'a.csv'}")
    assert "is a quote opened and not closed" in caught.value.hint


def test_a_text_of_signs_that_nobody_sees_is_empty(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="line 2: the text is empty"):
        opened(f"csv:{write_csv(tmp_path / 'a.csv', [(chr(0x200B) + ' ' + chr(0xFEFF), 'food'), *ROWS])}")


def test_what_programs_write_for_nothing_is_said(tmp_path: Path) -> None:
    """It may be a name, or a text, so that it stays; but nobody overlooks it."""
    rows = [(f"{text}", "NA" if number % 5 == 0 else label) for number, (text, label) in enumerate(ROWS)]
    data, notes = opened(f"csv:{write_csv(tmp_path / 'labels.csv', rows)}")
    assert data.info.class_names == ("NA", "food", "space", "sport")
    assert any(note.startswith("classes called as programs write what is missing: NA;") for note in notes), notes
    rows = [("null" if number in (3, 6) else text, label) for number, (text, label) in enumerate(ROWS)]
    data, notes = opened(f"csv:{write_csv(tmp_path / 'texts.csv', rows)}")
    assert any(note.startswith("2 texts say null alone") for note in notes), notes
    assert sum(data.info.counts.values()) == 60
    rows = [(f"{text} nan none", label) for text, label in ROWS]
    assert not any("missing" in note for note in opened(f"csv:{write_csv(tmp_path / 'fine.csv', rows)}")[1])
