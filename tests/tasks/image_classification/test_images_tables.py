"""csv:PATH and parquet:PATH."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.tasks.image_classification import open_data

MakeFolder = Callable[..., Path]
MakeBytes = Callable[..., bytes]
MakeImage = Callable[..., Image.Image]


def every_id(data: Dataset) -> set[str]:
    return {*data.train.ids, *data.validation.ids, *data.test.ids}


@pytest.fixture
def images(make_folder: MakeFolder) -> Path:
    """A folder with a/000.png … a/009.png and b/000.png … b/009.png."""
    return make_folder({"a": 10, "b": 10})


def csv_lines(count: int = 10) -> list[str]:
    return [f"{name}/{row:03}.png,{kind}" for name, kind in (("a", "ant"), ("b", "bee")) for row in range(count)]


def write_csv(path: Path, lines: list[str], header: str = "path,label") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_csv_with_paths(images: Path, make_image: MakeImage) -> None:
    data = open_data(f"csv:{write_csv(images / 'labels.csv', csv_lines())}")
    assert data.info.class_names == ("ant", "bee")
    assert data.info.counts == {"train": 14, "validation": 2, "test": 4}
    assert "b/003.png" in every_id(data)
    number = data.train.ids.index(next(name for name in data.train.ids if name.startswith("b/")))
    row = int(data.train.ids[number][2:5])
    assert data.train.labels[number] == 1
    assert np.array_equal(np.asarray(data.train.read(number)), np.asarray(make_image(1000 + row)))
    assert data.info.notes[0] == "images from column path, labels from column label"


def test_the_order_of_csv_rows_does_not_matter(images: Path) -> None:
    straight = open_data(f"csv:{write_csv(images / 'one.csv', csv_lines())}")
    reverse = open_data(f"csv:{write_csv(images / 'two.csv', csv_lines()[::-1])}")
    assert straight.info.fingerprint == reverse.info.fingerprint
    assert set(straight.test.ids) == set(reverse.test.ids)


def test_absolute_and_roundabout_paths_become_relative_ids(images: Path, tmp_path: Path) -> None:
    lines = [f"{images}/a/{row:03}.png,ant" for row in range(5)]
    lines += [f"./images/b/../b/{row:03}.png,bee" for row in range(5)]
    data = open_data(f"csv:{write_csv(tmp_path / 'labels.csv', lines)}")
    assert every_id(data) == {f"images/{name}/{row:03}.png" for name in "ab" for row in range(5)}


def test_csv_split_column(images: Path) -> None:
    splits = ["train"] * 6 + ["val"] * 2 + ["TEST"] * 2
    lines = [f"{line},{split}" for line, split in zip(csv_lines(), splits * 2, strict=True)]
    data = open_data(f"csv:{write_csv(images / 'labels.csv', lines, 'file,class,split')}")
    assert data.info.counts == {"train": 12, "validation": 4, "test": 4}
    assert data.test.ids == ("a/008.png", "a/009.png", "b/008.png", "b/009.png")


def test_csv_folder(images: Path) -> None:
    lines = csv_lines()
    write_csv(images / "train.csv", lines[:7] + lines[10:17])
    write_csv(images / "val.csv", lines[7:8] + lines[17:18])
    write_csv(images / "test.csv", lines[8:10] + lines[18:20])
    write_csv(images / "backup.csv", [])
    data = open_data(f"csv:{images}")
    assert data.info.counts == {"train": 14, "validation": 2, "test": 4}
    assert data.info.notes[0] == "ignored backup.csv: not named after a split"


def test_whole_numbers_as_labels_sort_by_value(images: Path) -> None:
    lines = [f"a/{row:03}.png,{(2, 10)[row % 2]}" for row in range(10)]
    assert open_data(f"csv:{write_csv(images / 'labels.csv', lines)}").info.class_names == ("2", "10")


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        ("path,label", "a/000.png,", "labels.csv line 2: the label is missing"),
        ("path,label", "a/000.png,NaN", "labels.csv line 2: the label is missing"),
        ("path,label", "a/000.png,-1", "labels.csv line 2: label -1 is negative"),
        ("path,label", ",ant", "labels.csv line 2: the path of the image is missing"),
        ("path,label", "a\0/000.png,ant", "labels.csv line 2 holds a zero byte"),
        ("path,label", "a/000.png,ant,extra", "labels.csv line 2 has 3 values, the header has 2"),
        ("path,label", "a/000.png,ant\na/../a/000.png,ant", "line 3: the image a/000.png stands twice in the data"),
        ("path,label", "a/000.png,cow\nnone.png,cow\na/001.png,cow", "line 3: {root}/none.png cannot be read"),
        ("foto,label", "a/000.png,ant", "has no column for the images; its columns: foto, label"),
        ("path;art", "a/000.png;ant", "has no column for the labels; its columns: path, art"),
        ("path,art", "a/000.png,ant", "has no column for the labels; its columns: path, art"),
        ("path,label,split", "a/000.png,ant,holdout", "line 2: split 'holdout' is not known"),
        ("path,label,split", "a/000.png,ant,", "line 2: split '' is not known"),
        ("path,label", '"a/000.png,ant', "line 2 is no line of a CSV file: unexpected end of data"),
        ("path,label", "", "holds no images of train"),
        ("path,label,split", "a/000.png,ant,test", "holds no images of train, only of test"),
        (
            "path,label,split",
            "a/000.png,ant,train\nb/000.png,bee,train\na/001.png,cow,test",
            "line 4: label cow is outside the classes, which are those of train: ant, bee",
        ),
    ],
)
def test_wrong_csv(images: Path, header: str, line: str, message: str) -> None:
    lines = line.splitlines()
    if "cannot be read" in message:  # images are looked at last, when the table is sound
        lines += csv_lines()[10:]
    with pytest.raises(KdcError) as raised:
        open_data(f"csv:{write_csv(images / 'labels.csv', lines, header)}")
    assert message.format(root=images) in raised.value.message
    assert raised.value.exit_code == 2


def test_a_image_in_two_csv_splits(images: Path) -> None:
    write_csv(images / "train.csv", csv_lines())
    write_csv(images / "test.csv", csv_lines()[3:4])
    with pytest.raises(KdcError, match=r"test\.csv line 2: the image a/003\.png stands twice .*train\.csv line 5"):
        open_data(f"csv:{images}")


def test_csv_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("path,label\na.png,Käfer\n".encode("latin-1"))
    with pytest.raises(KdcError, match="is no CSV file in UTF-8"):
        open_data(f"csv:{tmp_path / 'labels.csv'}")


def test_csv_from_a_spreadsheet(images: Path) -> None:
    path = images / "labels.csv"
    path.write_text("\r\n".join(["Path, Label", *csv_lines(), ""]), encoding="utf-8-sig")
    assert open_data(f"csv:{path}").info.class_names == ("ant", "bee")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["other.csv"], "holds no train.csv; its csv files: other.csv"),
        ([], "holds no train.csv; its csv files: none"),
        (["test.csv"], "holds no train.csv; its csv files: test.csv"),
        (["train.csv", "val.csv", "valid.csv"], "holds files named val and valid, which all mean validation"),
        (["train-00000-of-00002.csv"], "holds 1 of 2 files of train"),
    ],
)
def test_wrong_table_folders(images: Path, names: list[str], message: str) -> None:
    for name in names:
        write_csv(images / name, csv_lines())
    with pytest.raises(KdcError) as raised:
        open_data(f"csv:{images}")
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.csv", "test_set.csv"], "holds test_set.csv, which sounds like test, and no test.csv"),
        (["train.csv", "holdout.csv"], "holds holdout.csv, which sounds like test, and no test.csv"),
        (["train.csv", "val (1).csv"], "holds val (1).csv, which sounds like validation, and no validation.csv"),
        (["train.csv", "test_set-0-of-2.csv"], "holds test_set-0-of-2.csv, which sounds like test, and no test.csv"),
        (["training.csv", "eval.csv"], "holds eval.csv, which sounds like validation, and no validation.csv"),
        (["train.csv", "train2.csv"], "holds train.csv and train2.csv: is train one file, or several?"),
        (["train.csv", "test.csv", "test-01.csv"], "holds test.csv and test-01.csv: is test one file, or several?"),
    ],
)
def test_a_file_that_sounds_like_a_split_is_not_ignored(images: Path, names: list[str], message: str) -> None:
    """test_set.csv was, and a test split was taken from train."""
    for name in names:
        write_csv(images / name, csv_lines())
    with pytest.raises(KdcError) as raised:
        open_data(f"csv:{images}")
    assert message in raised.value.message
    assert raised.value.exit_code == 2
    assert raised.value.hint


def test_what_is_read_and_what_is_not_is_told(images: Path) -> None:
    lines = csv_lines()
    write_csv(images / "train-1.csv", lines[:6])
    write_csv(images / "train-2.csv", lines[10:16])
    write_csv(images / "test.csv", lines[6:8] + lines[16:18])
    for name in ("test_old.csv", "sample_submission.csv", "latest.csv", "protest.csv"):
        write_csv(images / name, [])
    (images / "._train-1.csv").write_bytes(b"\0\5\x16\7")  # as macOS leaves beside each file on other systems
    notes = open_data(f"csv:{images}").info.notes
    assert notes[:2] == (
        "ignored latest.csv, protest.csv, sample_submission.csv, test_old.csv: not named after a split",
        "train: train-1.csv, train-2.csv",
    )


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_bytes_in_small_row_groups(tmp_path: Path, make_bytes: MakeBytes, make_image: MakeImage) -> None:
    columns = {"image": [make_bytes(row) for row in range(50)], "label": ["ant", "bee"] * 25}
    data = open_data(f"parquet:{write_parquet(tmp_path / 'all.parquet', columns, row_group_size=7)}")
    assert every_id(data) == {f"train/{row}" for row in range(50)}
    assert data.info.class_names == ("ant", "bee")
    for split in (data.train, data.test):
        for number, name in enumerate(split.ids):
            row = int(name.removeprefix("train/"))
            assert split.labels[number] == row % 2
            assert np.array_equal(np.asarray(split.read(number)), np.asarray(make_image(row)))


def test_parquet_row_groups_beyond_the_cache(
    tmp_path: Path, make_bytes: MakeBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.data.parquet_cells.CACHE_BYTES", 10)
    columns = {"image": [make_bytes(row) for row in range(40)], "label": ["ant", "bee"] * 20}
    data = open_data(f"parquet:{write_parquet(tmp_path / 'all.parquet', columns, row_group_size=3)}")
    assert sum(data.info.counts.values()) == 40


def test_parquet_shards_structs_and_hugging_face_names(tmp_path: Path, make_bytes: MakeBytes) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["zebra", "ant"])})
    for shard in range(2):
        values = {
            "img": [{"bytes": make_bytes(10 * shard + row), "path": "x.png"} for row in range(10)],
            "label": [row % 2 for row in range(10)],
        }
        table = datasets.Dataset.from_dict(values, features=features)
        parquet.write_table(
            table.data.table.replace_schema_metadata(features.arrow_schema.metadata),
            tmp_path / f"train-0000{shard}-of-00002.parquet",
        )
    data = open_data(f"parquet:{tmp_path}")
    assert data.info.class_names == ("zebra", "ant")  # the order that the numbers have, not the alphabet's
    assert every_id(data) == {f"train/{row}" for row in range(20)}
    assert [int(name.removeprefix("train/")) % 2 for name in data.train.ids] == data.train.labels.tolist()


def test_parquet_paths_and_split_column(images: Path) -> None:
    columns = {
        "path": [f"{name}/{row:03}.png" for name in "ab" for row in range(10)],
        "label": [row // 10 for row in range(20)],
        "split": (["train"] * 8 + ["test"] * 2) * 2,
    }
    data = open_data(f"parquet:{write_parquet(images / 'all.parquet', columns)}")
    assert data.info.class_names == ("0", "1")
    assert data.test.ids == ("a/008.png", "a/009.png", "b/008.png", "b/009.png")


def test_parquet_bad_images(tmp_path: Path, make_bytes: MakeBytes) -> None:
    images: list[bytes | None] = [make_bytes(row) for row in range(20)]
    images[4] = None
    images[7] = b"garbage"
    path = write_parquet(tmp_path / "all.parquet", {"image": images, "label": ["ant", "bee"] * 10})
    with pytest.raises(KdcError, match=r"all\.parquet row 4 cannot be decoded: it holds no image \(and 1 more"):
        open_data(f"parquet:{path}")
    assert open_data(f"parquet:{path}", skip_bad=True).info.skipped == ("train/4", "train/7")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "label": [None]}, "all.parquet row 0: the label is missing"),
        ({"image": [b"x"] * 2, "label": [1.0, float("nan")]}, "row 0: label 1.0 is neither text nor a whole number"),
        ({"image": [b"x"], "label": [float("nan")]}, "row 0: the label is missing"),
        ({"image": [b"x"], "label": [-1]}, "row 0: label -1 is negative"),
        ({"image": [b"x"], "label": [True]}, "row 0: label True is neither text nor a whole number"),
        ({"image": [3], "label": [1]}, "column image holds int64; expected bytes, {bytes, path} or the path"),
        ({"pixels": [3], "label": [1]}, "has no column for the images; its columns: pixels, label"),
    ],
)
def test_wrong_parquet(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(KdcError) as raised:
        open_data(f"parquet:{write_parquet(tmp_path / 'all.parquet', columns)}")
    assert message in raised.value.message
    assert raised.value.exit_code == 2


def test_whole_numbers_as_floats_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "all.parquet", {"image": [b"x"] * 2, "label": [0.0, 1.0]})
    with pytest.raises(KdcError, match=r"row 0: label 0\.0 is neither text nor a whole number") as raised:
        open_data(f"parquet:{path}")
    assert "astype('Int64')" in raised.value.hint


def test_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "all.parquet").write_text("hello")
    with pytest.raises(KdcError, match=r"all\.parquet is no readable Parquet file"):
        open_data(f"parquet:{tmp_path / 'all.parquet'}")


USED = ["train", "val", "test"]
NAMED = {
    "subset": USED * 20,
    "Usage": ["Training", "PublicTest", "PrivateTest"] * 20,
    "is_valid": ["True", "False", ""] * 20,
    "test": ["0", "1", "0"] * 20,
    "data set": ["TRAIN", "", "VALID"] * 20,
}
INNOCENT = {
    "subset": ["train"] * 60,
    "vehicle": ["train", "bus", "train"] * 20,
    "valid": ["0", "1", "2"] * 20,
    "fold": ["0", "1", "2"] * 20,
    "quality": ["valid", "invalid", "valid"] * 20,
    "note": [""] * 60,
}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", list(NAMED))
def test_a_column_that_says_the_split_and_is_called_otherwise(images: Path, name: str, kind: str) -> None:
    with pytest.raises(KdcError, match=f"column {name} .* says which split a row is of") as caught:
        open_data(with_column(images, name, NAMED[name], kind))
    assert "call the column split" in caught.value.hint


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", list(INNOCENT))
def test_columns_that_say_no_split(images: Path, name: str, kind: str) -> None:
    data = open_data(with_column(images, name, INNOCENT[name], kind))
    assert sum(data.info.counts.values()) == 20


def with_column(images: Path, name: str, values: list[str], kind: str) -> str:
    rows = [line.split(",") for line in csv_lines()]
    table = {"path": [row[0] for row in rows], "label": [row[1] for row in rows], name: values[: len(rows)]}
    if kind == "parquet":
        plain: dict[str, Any] = dict(table)
        if name == "is_valid":
            plain[name] = [{"True": True, "False": False}.get(value) for value in values[: len(rows)]]
        if name in ("test", "fold"):
            plain[name] = [int(value) for value in values[: len(rows)]]
        return f"parquet:{write_parquet(images / 'a.parquet', plain)}"
    lines = [",".join(row) for row in zip(*table.values(), strict=True)]
    return f"csv:{write_csv(images / 'a.csv', lines, ','.join(table))}"


def test_a_split_column_beside_another_counts(images: Path) -> None:
    lines = [f"{line},{'test' if row % 3 else 'train'},{row % 2}" for row, line in enumerate(csv_lines())]
    data = open_data(f"csv:{write_csv(images / 'a.csv', lines, 'path,label,split,is_test')}")
    assert data.info.counts["test"] == 13
