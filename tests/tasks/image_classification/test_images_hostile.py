"""Files that promise more than they hold, hold more than they promise, or are no files: a clear line, little memory."""

import gzip
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.data.prediction_files import written_by_kdc
from compressor.data.predictions import read_outputs
from compressor.errors import KdcError
from compressor.tasks.image_classification import open_data

MakeFolder = Callable[..., Path]
MakeBytes = Callable[..., bytes]


def refused(reference: str, match: str, **how: Any) -> None:
    with pytest.raises(KdcError, match=match) as caught:
        open_data(reference, **how)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 2_000
    assert caught.value.exit_code == 2


SPECIAL = {"pipe": "is a pipe, not a regular file", "endless": "is a device, not a regular file"}


@pytest.fixture
def special(tmp_path: Path) -> Path:
    folder = tmp_path / "special"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "endless").symlink_to("/dev/zero")
    with (folder / "sparse").open("wb") as file:
        file.truncate(100_000_000_000)
    return folder


@pytest.mark.parametrize("kind", [*SPECIAL, "sparse"])
def test_images_that_are_no_files(make_folder: MakeFolder, special: Path, kind: str) -> None:
    """Behind a link in a folder, named by a table, among the unlabelled."""
    said = SPECIAL.get(kind, "is larger than 1000 MB")
    root = make_folder({"a": 12, "b": 12})
    (root / "a" / "zz.jpg").symlink_to(special / kind)
    refused(f"folder:{root}", f"a/zz.jpg {said}")
    assert open_data(f"folder:{root}", skip_bad=True).info.skipped == ("a/zz.jpg",)
    rows = [f"a/{number:03}.png,x\nb/{number:03}.png,y\n" for number in range(12)]
    (root / "table.csv").write_text("path,label\n" + "".join(rows) + "a/zz.jpg,x\n")
    refused(f"csv:{root / 'table.csv'}", f"line 26: .*a/zz.jpg {said}")
    (root / "a" / "zz.jpg").unlink()
    (root / "more").mkdir()
    (root / "more" / "zz.jpg").symlink_to(special / kind)
    refused(f"csv:{root / 'table.csv'}", "zz.jpg cannot be read: No such file")
    (root / "table.csv").write_text("path,label\n" + "".join(rows))
    refused(f"csv:{root / 'table.csv'}", f"more/zz.jpg {said}", unlabelled=f"folder:{root / 'more'}")


def test_paths_in_parquet_that_are_no_files(make_folder: MakeFolder, special: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = make_folder({"a": 12})
    paths = [f"a/{number:03}.png" for number in range(12)]
    for kind, said in SPECIAL.items():
        for cells in ([str(special / kind)], [{"bytes": None, "path": str(special / kind)}]):
            images = [*(paths if isinstance(cells[0], str) else [{"bytes": None, "path": path} for path in paths])]
            table = pa.table({"image": [*images, *cells], "label": ["x", "y"] * 6 + ["x"]})
            parquet.write_table(table, root / "t.parquet")
            refused(f"parquet:{root / 't.parquet'}", said)


@pytest.mark.parametrize("scheme", ["csv", "parquet"])
@pytest.mark.parametrize("kind", list(SPECIAL))
def test_tables_that_are_no_files(special: Path, tmp_path: Path, scheme: str, kind: str) -> None:
    if scheme == "parquet":
        pytest.importorskip("pyarrow")
    refused(f"{scheme}:{special / kind}", SPECIAL[kind])
    (tmp_path / f"answers.{scheme}").symlink_to(special / kind)
    with pytest.raises(KdcError, match=SPECIAL[kind]):
        read_outputs(tmp_path / f"answers.{scheme}", ("a", "b"))
    assert not written_by_kdc(tmp_path / f"answers.{scheme}")


@pytest.mark.parametrize("kind", list(SPECIAL))
def test_idx_that_is_no_file(special: Path, kind: str, tmp_path: Path) -> None:
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / name).symlink_to(special / kind)
    refused(f"idx:{tmp_path}", SPECIAL[kind])


def idx(*sides: int, values: bytes = b"") -> bytes:
    return struct.pack(f">HBB{len(sides)}I", 0, 8, len(sides), *sides) + values


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (idx(100_000, 1_000, 1_000), r"promises 100,000,000,000 bytes, which the file cannot hold"),
        (idx(2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1), "which the file cannot hold"),
        (idx(*[1] * 255), "holds an array of 255 dimensions; expected 1 to 4"),
        (idx(*[2**32 - 1] * 255), "holds an array of 255 dimensions"),
        (idx(), "holds an array of 0 dimensions"),
        (idx(2, 2, 2, values=bytes(7)), "promises 8 bytes, it holds only 7"),
        (idx(2, 2, 2, values=bytes(9)), "promises 8 bytes, it holds more"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_headers(tmp_path: Path, images: bytes, said: str, packed: bool) -> None:
    ending = ".gz" if packed else ""
    for name, content in (("images-idx3", images), ("labels-idx1", idx(2, values=bytes(2)))):
        path = tmp_path / f"train-{name}-ubyte{ending}"
        path.write_bytes(gzip.compress(content) if packed else content)
    refused(f"idx:{tmp_path}", said)


def test_a_larger_idx_than_is_read_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.tasks.image_classification.sources.idx.MOST_BYTES", 1_000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(10, 20, 20, values=bytes(4_000))))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(10, values=bytes(10)))
    refused(f"idx:{tmp_path}", "4,000 bytes, which are more than the 1,000 that are read")


BOMB = """
import gzip, resource, struct, sys
from pathlib import Path
folder = Path(sys.argv[1])
with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as file:
    file.write(struct.pack(">HBB3I", 0, 8, 3, 2, 4, 4))
    for _ in range(100):
        file.write(bytes(10_000_000))
(folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + bytes(2))
from compressor.tasks.image_classification import open_data
from compressor.errors import KdcError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_data(f"idx:{folder}")
except KdcError as error:
    print(error.message)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """32 bytes of pixels, and then a thousand million more."""
    ended = subprocess.run([sys.executable, "-c", BOMB, tmp_path], capture_output=True, text=True, timeout=120)
    message, grown = ended.stdout.splitlines()
    assert message.endswith("promises 32 bytes, it holds more"), ended.stderr
    assert int(grown) < 100, "MB"


CSV_WRONG = {
    "a line without an end": ("path,label\n" + "x" * 16_000_100, "line 2 is longer than 16,000,000 characters"),
    "a field without an end": (
        'path,label\n"' + "x" * 200_000 + ",a\n",
        "line 2 is no line of a CSV file: unexpected end of data",
    ),
    "a million columns": (",".join(f"c{n}" for n in range(1_000_000)), "has 1,000,000 columns; at most 100,000"),
    "zero bytes": ("path,label\na\0.png,x\n", "line 2 holds a zero byte: it is no text in UTF-8"),
    "two signs": ("path,a;label\na.png,b;x\n", "may be separated by commas or by semicolons"),
    "a column twice": ("path,label,path\na.png,x,b.png\n", "has several columns for the images: path, path"),
    "a column twice, spelt otherwise": (
        "path,label,Label\na.png,x,y\n",
        "several columns for the labels: label, Label",
    ),
    "a split twice": ("path,label,split,split\na.png,x,train,test\n", "has several columns for the splits"),
    "thousands of others": (",".join(f"c{n}" for n in range(9_000)) + "\n", "c9 and 8990 more"),
}


@pytest.mark.parametrize("name", list(CSV_WRONG))
def test_csv(tmp_path: Path, name: str) -> None:
    text, said = CSV_WRONG[name]
    (tmp_path / "t.csv").write_text(text)
    refused(f"csv:{tmp_path / 't.csv'}", said)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_csv_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_text("path,label\né.png,x\n", encoding=encoding)
    refused(f"csv:{tmp_path / 't.csv'}", "no CSV file in UTF-8|holds a zero byte: it is no text in UTF-8")


def test_a_table_with_many_columns_is_read_by_those_that_count(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 12, "b": 12})
    more = "".join(f",c{number}" for number in range(5_000))
    rows = [f"{name}/{number:03}.png,{name}" + ",1" * 5_000 for name in "ab" for number in range(12)]
    (root / "t.csv").write_text("path,label" + more + "\n" + "\n".join(rows) + "\n")
    assert open_data(f"csv:{root / 't.csv'}").info.class_names == ("a", "b")


def test_answers_with_more_columns_than_are_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = [f"class {number}" for number in range(100_001)]
    (tmp_path / "t.csv").write_text("id," + ",".join(names) + "\nx" + ",0" * len(names) + "\n")
    parquet.write_table(pa.table([pa.array(["x"])] * 3, names=["id", "a", "a"]), tmp_path / "twice.parquet")
    with pytest.raises(KdcError, match="has 100,002 columns; at most 100,000 are read"):
        read_outputs(tmp_path / "t.csv", ("a", "b"))
    with pytest.raises(KdcError, match="has two columns named a"):
        read_outputs(tmp_path / "twice.parquet", ("a", "b"))


def test_answers_of_ten_thousand_classes_are_read(tmp_path: Path) -> None:
    """Comparing every column with every other one took minutes."""
    names = tuple(f"class {number}" for number in range(10_000))
    share = f",{1 / len(names):.9g}" * len(names)
    (tmp_path / "t.csv").write_text("id," + ",".join(names) + f"\nx{share}\ny{share}\n")
    table = read_outputs(tmp_path / "t.csv", names)
    assert table.encoded.shape == (2, 10_000)
    np.testing.assert_allclose(table.encoded, np.log(1e-4), rtol=1e-5)


def test_answers_in_csv_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.data.prediction_files.MOST_CELLS", 10)
    (tmp_path / "t.csv").write_text("id,label\n" + "".join(f"{number},a\n" for number in range(6)))
    with pytest.raises(KdcError, match="has more than 10 values"):
        read_outputs(tmp_path / "t.csv", ("a", "b"))
    (tmp_path / "deep.csv").write_text("#kdc " + "[" * 100_000 + "\nid,label\nx,a\n")
    with pytest.raises(KdcError, match="nested deeper than"):
        read_outputs(tmp_path / "deep.csv", ("a", "b"))


def huggingface(features: object) -> bytes:
    return json.dumps({"info": {"features": features}}).encode()


LABEL = {"label": {"_type": "ClassLabel"}}
METADATA = {
    "no JSON": (b"{broken", "what Hugging Face wrote into it is damaged: not JSON"),
    "no text": (b"\xff\xfe\xfd", "what Hugging Face wrote into it is damaged: not JSON"),
    "nested": (b"[" * 100_000, "nested deeper than 100 levels"),
    "numbers": (b'{"a": ' + b"1" * 5_000 + b"}", "not JSON"),
    "names that are one text": (huggingface({"label": {"_type": "ClassLabel", "names": "ab"}}), "are no texts"),
    "names that are numbers": (huggingface({"label": {"_type": "ClassLabel", "names": [1, 2]}}), "are no texts"),
    "no names": (huggingface(LABEL), "are no texts"),
}


@pytest.fixture
def write_parquet(tmp_path: Path, make_bytes: MakeBytes) -> Callable[..., str]:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(
        columns: dict[str, Any] | None = None, metadata: bytes | None = None, names: list[str] | None = None
    ) -> str:
        plain = {"image": [make_bytes(number) for number in range(24)], "label": [0, 1] * 12}
        table = pa.table(plain | (columns or {}))
        if names:
            table = table.rename_columns(names)
        if metadata is not None:
            table = table.replace_schema_metadata({b"huggingface": metadata})
        parquet.write_table(table, tmp_path / "t.parquet")
        return f"parquet:{tmp_path / 't.parquet'}"

    return write


@pytest.mark.parametrize("name", list(METADATA))
def test_parquet_metadata(write_parquet: Callable[..., str], name: str) -> None:
    metadata, said = METADATA[name]
    refused(write_parquet(metadata=metadata), said)


@pytest.mark.parametrize(
    "metadata", [b"{}", b"[]", b"null", huggingface(None), huggingface({"label": 3}), huggingface([])]
)
def test_parquet_metadata_that_say_nothing(write_parquet: Callable[..., str], metadata: bytes) -> None:
    assert open_data(write_parquet(metadata=metadata)).info.class_names == ("0", "1")


def test_parquet_columns_twice(write_parquet: Callable[..., str]) -> None:
    refused(write_parquet({"other": [b""] * 24}, names=["image", "label", "image"]), "several columns for the images")
    refused(write_parquet({"other": [1] * 24}, names=["image", "label", "label"]), "several columns for the labels")
    refused(
        write_parquet({"a": ["train"] * 24, "b": ["test"] * 24}, names=["image", "label", "split", "split"]),
        "several columns for the splits",
    )


@pytest.mark.parametrize(
    "cell",
    [
        {"bytes": {"bytes": b"x"}},
        {"other": 3},
        {"bytes": [1, 2]},
        {"path": 3},
        {"image": {"bytes": b"x", "path": "x"}},
        [b"x"],
        3,
    ],
)
def test_parquet_cells_that_are_no_images(write_parquet: Callable[..., str], cell: object) -> None:
    refused(write_parquet({"image": [cell] * 24}), "column image holds .*; expected bytes")


def test_parquet_damaged_anywhere(write_parquet: Callable[..., str], tmp_path: Path) -> None:
    """Bytes changed at random: a clear line, or images; never another error."""
    reference = write_parquet()
    whole = np.frombuffer((tmp_path / "t.parquet").read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    for number in range(150):
        damaged = whole.copy()
        footer = len(whole) - rng.integers(1, 900, 3)
        places = footer if number % 2 else rng.integers(0, len(whole), 3)
        damaged[places] = rng.integers(0, 256, 3)
        (tmp_path / "t.parquet").write_bytes(damaged.tobytes())
        try:
            open_data(reference, skip_bad=True)
        except KdcError as error:
            assert "\n" not in error.message  # noqa: PT017
    for length in (0, 4, 8, 12, 100, len(whole) - 1):
        (tmp_path / "t.parquet").write_bytes(whole[:length].tobytes())
        refused(reference, "is no readable Parquet file")


def test_a_parquet_footer_that_is_too_long(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with (tmp_path / "t.parquet").open("wb") as file:
        file.write(b"PAR1")
        file.truncate(300_000_000)
        file.seek(0, 2)
        file.write(struct.pack("<I", 250_000_000) + b"PAR1")
    refused(f"parquet:{tmp_path / 't.parquet'}", "its description of itself has 250,000,000 bytes")


def test_categorical_columns_are_read(make_folder: MakeFolder) -> None:
    """As pandas writes them."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = make_folder({"a": 12, "b": 12})
    paths = pa.array([f"{name}/{n:03}.png" for name in "ab" for n in range(12)]).dictionary_encode()
    labels = pa.array(["ant"] * 12 + ["bee"] * 12).dictionary_encode()
    parquet.write_table(pa.table({"path": paths, "label": labels}), root / "t.parquet")
    assert open_data(f"parquet:{root / 't.parquet'}").info.class_names == ("ant", "bee")
