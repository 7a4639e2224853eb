"""Tables of a teacher's answers: what they may look like, and what is wrong with others, by file and row."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.data.prediction_files import Column, table_writer
from compressor.data.predictions import NOTHING, read_outputs
from compressor.data.samples import Split
from compressor.errors import KdcError
from compressor.schema.predictions import Kind, OutputsInfo
from compressor.schema.student import Weights

NAMES = ("ant", "bee", "cat")


def info(kind: Kind = "probabilities", names: tuple[str, ...] = NAMES) -> OutputsInfo:
    teacher = Weights(source="run:t", architecture="test_resnet", sha256="ab", licence="mit", parameters=5)
    return OutputsInfo(kdc="0.1.0", kind=kind, class_names=names, teacher=teacher, data="ff")


def table(tmp_path: Path, text: str, name: str = "answers.csv") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def chances(encoded: np.ndarray) -> np.ndarray:
    return np.exp(encoded.astype(np.float64))


def test_full_probabilities_by_name_in_any_order(tmp_path: Path) -> None:
    found = read_outputs(table(tmp_path, "cat,id,ant,bee\n0.2,x,0.7,0.1\n0.3,y,0.3,0.4\n"), NAMES)
    assert (found.kind, found.top_k, found.info, found.zero) == ("probabilities", None, None, None)
    assert dict(found.rows) == {"x": 0, "y": 1}
    np.testing.assert_allclose(chances(found.encoded), [[0.7, 0.1, 0.2], [0.3, 0.4, 0.3]], rtol=1e-6)


def test_logits_and_log_probabilities_say_so(tmp_path: Path) -> None:
    logits = read_outputs(table(tmp_path, "id,logit:ant,logit:bee,logit:cat\nx,7.5,-2,0\n"), NAMES)
    assert logits.kind == "logits"
    assert logits.encoded.tolist() == [[7.5, -2.0, 0.0]]
    header = ",".join(f"log_probability:{name}" for name in NAMES)
    logs = read_outputs(table(tmp_path, f"id,{header}\nx,{np.log(0.7)},{np.log(0.3)},-inf\n"), NAMES)
    np.testing.assert_allclose(chances(logs.encoded), [[0.7, 0.3, 0]], rtol=1e-6)
    assert logs.zero == "x"


def split(ids: tuple[str, ...], contents: list[int]) -> Split:
    labels = np.zeros(len(ids), np.int64)
    return Split("test", ids, labels, lambda number: Image.new("RGB", (1, 1)), np.array(contents, np.uint64))


def test_a_row_answers_what_it_says_it_was_shown(tmp_path: Path) -> None:
    large = 2**64 - 1
    text = f"id,content,seen,label\nx,{7:016x},yes,cat\ny,{large:016x},no,ant\nz,{7:016x},no,cat\n"
    found = read_outputs(table(tmp_path, text), NAMES)
    assert (found.kind, dict(found.contents or {}), found.seen) == ("labels", {7: "x", large: "y"}, frozenset("x"))
    assert found.named(split(("x", "b", "y"), [large, 7, 8])) == ["y", "x", None], "whatever it is called"
    by_id = read_outputs(table(tmp_path, "id,label\nx,cat\ny,ant\n"), NAMES)
    assert (by_id.contents, by_id.seen) == (None, None)
    assert by_id.named(split(("x", "b", "y"), [large, 7, 8])) == ["x", None, "y"]
    assert by_id.sha256 != read_outputs(table(tmp_path, text.replace("z,", "w,")), NAMES).sha256 != found.sha256


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,7,yes,cat", r"line 2: column content holds '7', not the 16 hexadecimal digits"),
        (f"x,{'A' * 16},yes,cat", "not the 16 hexadecimal digits"),
        (f"x,{7:016x},maybe,cat", "line 2: column seen holds 'maybe'; expected yes or no"),
        ("x,,yes,cat", "line 2: column content is empty"),
    ],
)
def test_a_damaged_content_is_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(KdcError, match=message):
        read_outputs(table(tmp_path, f"id,content,seen,label\n{row}\n"), NAMES)


def test_classes_may_be_called_content_and_seen(tmp_path: Path) -> None:
    found = read_outputs(table(tmp_path, "id,content,seen\nx,0.25,0.75\n"), ("content", "seen"))
    assert (found.contents, found.seen) == (None, None)
    np.testing.assert_allclose(chances(found.encoded), [[0.25, 0.75]], rtol=1e-6)


def test_a_label_is_a_probability_of_one(tmp_path: Path) -> None:
    found = read_outputs(table(tmp_path, "id,split,label\nx,train,cat\ny,test,ant\n"), NAMES)
    assert (found.kind, found.top_k, found.zero) == ("labels", 1, "x")
    assert found.encoded.tolist() == [[2, 0, NOTHING], [0, 0, NOTHING]]


@pytest.mark.parametrize(("rest", "expected"), [("", 0.1), (",probability_rest", 0.1)])
def test_top_k_says_its_rest_or_leaves_it(tmp_path: Path, rest: str, expected: float) -> None:
    text = f"id,class_1,probability_1,class_2,probability_2{rest}\nx,cat,0.6,ant,0.3{',0.1' if rest else ''}\n"
    found = read_outputs(table(tmp_path, text), NAMES)
    assert (found.kind, found.top_k, found.zero) == ("top-k", 2, None)
    assert found.encoded[0, :2].tolist() == [2, 0]
    np.testing.assert_allclose(chances(found.encoded[0, 2:]), [0.6, 0.3, expected], rtol=1e-5)


def test_top_k_without_a_rest_has_zeros(tmp_path: Path) -> None:
    found = read_outputs(table(tmp_path, "id,class_1,probability_1\nx,cat,0.5\ny,cat,1.0\n"), NAMES)
    assert found.zero == "y"
    assert found.encoded[1].tolist() == [2, 0, NOTHING]


def test_top_k_of_all_classes_is_all_of_them(tmp_path: Path) -> None:
    text = "id,class_1,class_2,class_3,probability_1,probability_2,probability_3\nx,cat,ant,bee,0.6,0.3,0.1\n"
    found = read_outputs(table(tmp_path, text), NAMES)
    assert (found.kind, found.top_k) == ("probabilities", None)
    np.testing.assert_allclose(chances(found.encoded), [[0.3, 0.1, 0.6]], rtol=1e-6)


HEADER = "id,ant,bee,cat\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,ant,bee,cat\nx,1,0,0\n", ["no column id", "name, ant, bee, cat"]),
        (HEADER, ["has no rows"]),
        (HEADER + "x,1,0,0\ny,1,0,0\nx,1,0,0\n", ["line 4", "id x stands twice", "line 2"]),
        (HEADER + "x,1,0,0\n,1,0,0\n", ["line 3", "column id is empty"]),
        (HEADER + "x,1,0\n", ["line 2 has 3 values, the header has 4"]),
        (HEADER + "x,1,,0\n", ["line 2", "column bee is empty"]),
        (HEADER + "x,1,zero,0\n", ["line 2", "column bee holds 'zero', which is no number"]),
        (HEADER + "x,1,nan,0\n", ["line 2", "column bee holds nan, which is no probability"]),
        (HEADER + "x,0.5,0.5,0\ny,1.2,-0.2,0\n", ["line 3", "column bee holds -0.2, which is no probability"]),
        (HEADER + "x,0.5,0.5,0\ny,0.9,0.2,0\n", ["line 3", "sum to 1.1, not to 1", "logit:NAME"]),
        (HEADER + "x,5.5,2,1\n", ["line 2", "sum to 8.5, not to 1"]),
        ("id,ant,bee,cow\nx,1,0,0\n", ["column cow is no class of the data", "ant, bee, cat"]),
        ("id,ant,bee,catt\nx,1,0,0\n", ["column catt is no class of the data", "did you mean cat?"]),
        ("id,ant,bee\nx,1,0\n", ["no column for 1 classes of the data: cat"]),
        ("id,ant,ant,bee\nx,1,0,0\n", ["two columns named ant"]),
        ("id,label\nx,ant\ny,dog\n", ["line 3", "label 'dog' is no class of the data", "ant, bee, cat"]),
        ("id,label,ant\nx,ant,1\n", ["column label is no class"]),
        ("id,logit:ant,log_probability:bee\nx,1,0\n", ["log_probability:…", "logit:…"]),
        ("id,logit:ant,logit:bee,logit:cat\nx,1,inf,0\n", ["line 2", "logit:bee holds inf, which is no finite number"]),
        ("id,class_1,probability_1\nx,ant,1.2\n", ["line 2", "sum to 1.2, more than 1"]),
        ("id,class_1,probability_1\nx,dog,1\n", ["line 2", "class_1 'dog'"]),
        ("id,class_1,class_2,probability_1\nx,ant,bee,1\n", ["top 2, and lacks probability_2"]),
        ("id,class_1,probability_1,more\nx,ant,1,1\n", ["top 1, and has a column more too"]),
        ("id,class_1,class_2,probability_1,probability_2\nx,ant,ant,0.5,0.5\n", ["line 2", "class stands twice among"]),
        ("id,class_1,probability_1,probability_rest\nx,ant,0.5,0.1\n", ["line 2", "sum to 0.6, not to 1"]),
        ("id,class_1,log_probability_1\nx,ant,0.5\n", ["line 2", "holds 0.5, which is no log-probability"]),
        ("#kdc {broken\nid,label\nx,ant\n", ["damaged", "not JSON"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: list[str]) -> None:
    path = table(tmp_path, text)
    with pytest.raises(KdcError) as caught:
        read_outputs(path, NAMES)
    for part in [str(path), *says]:
        assert part in str(caught.value)


def test_a_file_that_is_not_there_or_is_none_of_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="does not exist"):
        read_outputs(tmp_path / "none.csv", NAMES)
    with pytest.raises(KdcError, match=r"none of \.csv, \.parquet"):
        read_outputs(table(tmp_path, "{}", "answers.json"), NAMES)
    (tmp_path / "bytes.csv").write_bytes(b"id,label\n\xff\xfe,ant\n")
    with pytest.raises(KdcError, match="no CSV file in UTF-8"):
        read_outputs(tmp_path / "bytes.csv", NAMES)
    pytest.importorskip("pyarrow")
    with pytest.raises(KdcError, match="no readable Parquet file"):
        read_outputs(table(tmp_path, "no parquet", "answers.parquet"), NAMES)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    names = ("a,b", 'say "x"', "id", "class_1")  # separators, quotes, and names of columns
    chance = np.random.default_rng(0).dirichlet(np.ones(4), 7)
    logs = np.log(chance).astype(np.float32)
    ids = [f"folder/ü {number}.png" for number in range(7)]
    path = tmp_path / f"answers.{ending}"
    columns = ["id", "split", *(f"log_probability:{name}" for name in names)]
    with table_writer(path, info(names=names), columns) as append:
        for start in (0, 4):  # two row groups
            part = slice(start, start + 4)
            rows: list[Column] = [ids[part], ["train"] * len(ids[part]), *logs[part].T]
            append(rows)
    found = read_outputs(path, names)
    assert found.info == info(names=names)
    assert list(found.rows) == ids
    np.testing.assert_array_equal(found.encoded, logs)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name], "nothing temporary is left"


def test_a_table_that_was_not_finished_is_not_there(tmp_path: Path) -> None:
    def stopped() -> None:
        with table_writer(tmp_path / "a.csv", info(), ["id", "label"]) as append:
            append([["x"], ["ant"]])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())


def test_the_identity_is_the_contents_not_the_files(tmp_path: Path) -> None:
    first = read_outputs(table(tmp_path, "id,ant,bee,cat\nx,0.7,0.1,0.2\ny,0.3,0.4,0.3\n"), NAMES)
    same = read_outputs(table(tmp_path, "split,cat,bee,ant,id\ntrain,0.30,.4,.3,y\ntest,2e-1,0.1,0.7,x\n"), NAMES)
    other = read_outputs(table(tmp_path, "id,ant,bee,cat\nx,0.7,0.1,0.2\ny,0.3,0.3,0.4\n"), NAMES)
    assert first.sha256 == same.sha256 != other.sha256


def test_a_parquet_table_by_hand(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "answers.parquet"
    parquet.write_table(pyarrow.table({"id": [7, 8], "ant": [0.5, 1], "bee": [0.5, 0.0], "cat": [0, 0]}), path)
    assert dict(read_outputs(path, NAMES).rows) == {"7": 0, "8": 1}
    parquet.write_table(pyarrow.table({"id": ["7"], "ant": ["0.5"], "bee": [0.5], "cat": [0]}), path)
    with pytest.raises(KdcError, match="column ant holds string; numbers are expected"):
        read_outputs(path, NAMES)
    parquet.write_table(pyarrow.table({"id": ["7", "8"], "ant": [1.0, None], "bee": [0, 0], "cat": [0, 0]}), path)
    with pytest.raises(KdcError, match=r"answers\.parquet row 1: column ant is empty"):
        read_outputs(path, NAMES)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_blanks_around_ids_are_kept_where_kdc_wrote_them(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"answers.{ending}"
    with table_writer(path, info("labels"), ["id", "label"]) as append:
        append([["x", " x", "y "], list(NAMES)])
    found = read_outputs(path, NAMES)
    assert dict(found.rows) == {"x": 0, " x": 1, "y ": 2}
    assert found.encoded[:, 0].tolist() == [0, 1, 2]
    by_hand = read_outputs(table(tmp_path, " id , label\n x , bee\n", "hand.csv"), NAMES)
    assert dict(by_hand.rows) == {"x": 0}


COMPOSED, APART = "caf\xe9", "cafe\u0301"  # one name in Unicode's forms NFC and NFD


@pytest.mark.parametrize("header", ["id,{0},tea", "id,logit:{0},logit:tea", "id,label", "id,class_1,probability_1"])
def test_classes_are_compared_in_one_form(tmp_path: Path, header: str) -> None:
    values = {"id,label": APART, "id,class_1,probability_1": f"{APART},1"}.get(header, "1,0")
    found = read_outputs(table(tmp_path, f"{header.format(APART)}\nx,{values}\n"), (COMPOSED, "tea"))
    assert found.top1(["x"]).tolist() == [0]


def test_two_columns_of_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="two columns for one class") as caught:
        read_outputs(table(tmp_path, f"id,{COMPOSED},{APART},tea\nx,1,0,0\n"), (COMPOSED, "tea"))
    assert r"'caf\xe9' and 'cafe\u0301'" in caught.value.message


def test_answers_are_found_by_id_in_any_order(tmp_path: Path) -> None:
    found = read_outputs(table(tmp_path, "id,ant,bee,cat\nx,0.7,0.1,0.2\ny,0.3,0.4,0.3\nz,0.4,0.2,0.4\n"), NAMES)
    np.testing.assert_allclose(chances(found.of(["y", "x"])), [[0.3, 0.4, 0.3], [0.7, 0.1, 0.2]], rtol=1e-6)
    assert found.top1(["z", "y", "x"]).tolist() == [0, 1, 0], "of equals the first"
    assert found.top1(["y"]).dtype == np.int64
    labels = read_outputs(table(tmp_path, "id,label\nx,cat\ny,ant\nz,bee\n"), NAMES)
    assert labels.top1(["z", "x", "y"]).tolist() == [1, 2, 0]
    assert labels.top1(["x"]).dtype == np.int64


def test_the_top_class_is_one_that_is_named(tmp_path: Path) -> None:
    """Of y the rest would come to 0.35 for each of the others, more than the class that the table names has."""
    one = read_outputs(table(tmp_path, "id,class_1,probability_1\nx,bee,0.6\ny,cat,0.3\n"), NAMES)
    assert one.top1(["x", "y"]).tolist() == [1, 2]
    header = "id,class_1,probability_1,class_2,probability_2"
    two = read_outputs(table(tmp_path, f"{header}\nx,cat,0.3,bee,0.5\ny,ant,0.5,cat,0.4\n"), NAMES)
    assert two.top1(["y", "x"]).tolist() == [0, 1], "whatever order they stand in"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_of_too_many_columns_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"answers.{ending}"
    names = ["id", *(f"class {number}" for number in range(300_000 if ending == "csv" else 100_001))]
    if ending == "csv":
        path.write_text(f"{','.join(names)}\nx,{','.join(['0'] * (len(names) - 1))}\n")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
        parquet.write_metadata(schema, path)
    with pytest.raises(KdcError, match="at most 100,000 are read"):
        read_outputs(path, NAMES)


def test_as_many_classes_as_there_are_are_read_in_a_moment(tmp_path: Path) -> None:
    """Each name was looked for among all others."""
    classes = [f"n{number:08d}" for number in range(21_841)]
    path = tmp_path / "answers.csv"
    path.write_text(f"id,{','.join(classes)}\nx,1,{','.join(['0'] * (len(classes) - 1))}\n")
    found = read_outputs(path, classes)
    assert found.encoded.shape == (1, 21_841)
    assert found.top1(["x"]).tolist() == [0]


def test_metadata_that_is_no_text_is_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "answers.parquet"
    for said, why in ((b"\xff\xfe", "not JSON"), (b"[" * 100_000, "nested")):
        rows = pyarrow.table({"id": ["x"], "label": ["ant"]}).replace_schema_metadata({"kdc": said})
        parquet.write_table(rows, path)
        with pytest.raises(KdcError, match=why):
            read_outputs(path, NAMES)
