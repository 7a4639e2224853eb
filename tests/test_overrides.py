import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from compressor.errors import EXIT_USAGE, KdcError
from compressor.files import reading
from compressor.overrides import apply_overrides, read_yaml

WHERE = "recipe r"


def failure(values: dict[str, Any], *assignments: str) -> KdcError:
    with pytest.raises(KdcError) as caught:
        apply_overrides(values, assignments, WHERE)
    assert caught.value.exit_code == EXIT_USAGE
    return caught.value


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def unreadable(path: Path) -> str:
    with pytest.raises(KdcError) as caught:
        read_yaml(path)
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in caught.value.message
    return caught.value.message


def test_sets_values_without_touching_the_original() -> None:
    values = {"seed": 0, "losses": [{"name": "kd", "weight": 1.0}], "views": {"hflip": True}}
    result = apply_overrides(values, ["seed=7", "losses.0.weight=0.5", "views.hflip=false", "optimizer.lr=1e-3"], WHERE)
    assert result == {
        "seed": 7,
        "losses": [{"name": "kd", "weight": 0.5}],
        "views": {"hflip": False},
        "optimizer": {"lr": 0.001},
    }
    assert values == {"seed": 0, "losses": [{"name": "kd", "weight": 1.0}], "views": {"hflip": True}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("1.5E3", 1500.0),
        ("+2e+1", 20.0),
        ("true", True),
        ("null", None),
        ("[f32, f16]", ["f32", "f16"]),
        ("{name: kd}", {"name": "kd"}),
        ("two words", "two words"),
        ("a=b", "a=b"),
        ("'3'", "3"),
        ("1e", "1e"),
    ],
)
def test_values_are_yaml(text: str, value: object) -> None:
    result = apply_overrides({}, [f"a.b={text}"], WHERE)["a"]["b"]
    assert result == value
    assert type(result) is type(value)


def test_null_on_the_way_becomes_a_mapping() -> None:
    assert apply_overrides({"budget": None}, ["budget.p90_ms=20"], WHERE) == {"budget": {"p90_ms": 20}}


def test_nothing_to_set_is_a_deep_copy() -> None:
    values = {"a": [1]}
    result = apply_overrides(values, [], WHERE)
    result["a"].append(2)
    assert values == {"a": [1]}


@pytest.mark.parametrize("assignment", ["x", "=3", "a..b=1", ".a=1", "a.=1", "a b=1", ""])
def test_malformed(assignment: str) -> None:
    error = failure({}, assignment)
    assert error.message == f"recipe r: --set {assignment!r} is not an assignment"
    assert error.hint == "write it as key.path=value, e.g. --set budget.p90_ms=20 or --set losses.0.weight=0.5"


def test_no_value() -> None:
    error = failure({}, "seed=")
    assert str(error) == "recipe r: --set seed= gives no value (to clear the key, write --set seed=null)"


def test_index_out_of_range() -> None:
    error = failure({"losses": [{}, {}]}, "losses.2.weight=1")
    assert (
        error.message == "recipe r: --set losses.2.weight: losses has 2 entries, so there is no 2 (permitted: 0 to 1)"
    )
    assert error.hint == "to change its length, set it whole: --set losses=[…]"
    assert "permitted: none, for it is empty" in failure({"losses": []}, "losses.0=1").message


@pytest.mark.parametrize("part", ["first", "-1", "1.0", "²"])
def test_no_index(part: str) -> None:
    error = failure({"losses": [[1]]}, f"losses.{part}.weight=1")
    name = part.split(".")[0]
    if name == "1":
        assert "there is no 1" in error.message
    else:
        assert f"losses is a list, and {name} is not an index of it (permitted: 0 to 0)" in error.message


def test_a_key_inside_a_plain_value() -> None:
    error = failure({"batch": 1}, "batch.size=2")
    assert error.message == "recipe r: --set batch.size: batch is 1, which has no keys inside"
    assert error.hint == "set it whole: --set batch=…"


def test_the_same_key_twice() -> None:
    error = failure({}, "seed=1", "seed=2")
    assert error.message == "recipe r: --set gives seed twice, as 1 and as 2"
    assert apply_overrides({}, ["seed=1", "seed=1"], WHERE) == {"seed": 1}


def test_bad_yaml_in_a_value() -> None:
    assert failure({}, "a=[1").message.startswith("recipe r: --set a=[1, line 1, column 3: ")
    assert "!!python/name:os.system is refused" in failure({}, "a=!!python/name:os.system").message


def test_read_yaml(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, "a: 1\nb: {c: [1e-3, ü]}\n")) == {"a": 1, "b": {"c": [0.001, "ü"]}}
    assert read_yaml(written(tmp_path, "a: &x {b: 1}\nc: {<<: *x, d: 2}\n"))["c"] == {"b": 1, "d": 2}


def test_missing_file(tmp_path: Path) -> None:
    assert unreadable(tmp_path / "no.yaml") == f"{tmp_path / 'no.yaml'} does not exist"


def test_a_folder(tmp_path: Path) -> None:
    assert f"{tmp_path} is a folder, not a regular file" in unreadable(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert unreadable(path) == f"{path} is not a text file in UTF-8"
    path.write_bytes(b"a: \x00")
    assert unreadable(path) == f"{path}: not YAML: the character at position 3 is not allowed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " is empty: expected a mapping of keys to values"),
        ("- 1\n", ": expected a mapping of keys to values, found a list"),
        ("hello", ": expected a mapping of keys to values, found text"),
        ("a: 1\nb: 2\na: 3\n", ", line 3, column 1: key a stands twice in one mapping"),
        ("a:\n  b: {c: 1, c: 2}\n", ", line 2, column 13: key c stands twice in one mapping"),
        ("a: [1\nb: 2\n", ", line 2, column 2: expected ',' or ']', but got ':'"),
        (
            "mode: !!python/name:torch.optim.SGD\n",
            ", line 1, column 7: the tag !!python/name:torch.optim.SGD is refused: these files hold plain values",
        ),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            ", line 1, column 4: the tag !!python/object/apply:os.system ",
        ),
        ("a: !mine 3\n", ", line 1, column 4: the tag !mine is refused"),
        ("a: *x\n", ", line 1, column 4: found undefined alias 'x'"),
        ("? [a]\n: 1\n", ", line 1, column 3: found unhashable key"),
        ("a: 2024-13-45\n", ": not YAML: month must be in 1..12"),
        ("a: " + "[" * 500, ", line 1, column 53: nested deeper than 50 levels"),
        ("a: 1\n--- \nb: 2\n", ", line 2, column 1: but found another document"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    assert unreadable(path).startswith(f"{path}{message}")


NESTED = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGED = "a: &a {k0: 1}\n" + "".join(
    f"{name}: &{name}\n  <<: [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NESTED, "holds more than 20,000 values, aliases counted out"),
        (MERGED, "holds more than 20,000 values, aliases counted out"),
        ("a: &x [*x]\n", "*x stands for what it is itself in"),
        ("a: &x {b: *x}\n", "*x stands for what it is itself in"),
        ("a: " + "{a: " * 60 + "1" + "}" * 60, "nested deeper than 50 levels"),
        ("a: " + "- " * 3_000, "not allowed here"),
        ("a: " + "[" * 100_000, "nested deeper than 50 levels"),
        ("a: " + ":".join(["59"] * 50_000), "a number of more than 60 characters"),
        ("a: 0x" + "f" * 100_000, "a number of more than 60 characters"),
        ("a: " + "9" * 5_000, "a number of more than 60 characters"),
        ("a: !!timestamp", "not YAML"),
        ("a: !!int x", "not YAML"),
        ("a: [" + "1, " * 100_000 + "]", "is larger than 256 kB"),
    ],
)
@pytest.mark.timeout(30)
def test_yaml_that_would_take_gigabytes_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    assert message in unreadable(written(tmp_path, text))


def test_anchors_within_the_bounds_are_read(tmp_path: Path) -> None:
    text = "a: &x {b: [1, 2]}\nc: [*x, *x]\nd: {<<: *x, e: 3}\n"
    value = {"b": [1, 2]}
    assert read_yaml(written(tmp_path, text)) == {"a": value, "c": [value, value], "d": {**value, "e": 3}}


def test_nested_anchors_in_an_assignment() -> None:
    assert "20,000" in failure({}, f"a={{{NESTED[:-1].replace(chr(10), ', ')}}}").message
    assert "deeper or longer" in failure({}, "a" + ".a" * 5_000 + "=1").message
    assert "has 1 entries" in failure({"a": [1]}, f"a.{'9' * 5_000}=1").message


def test_settings_may_come_from_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a: 1\n" * 1 + "b: [2]\n",))
    writer.start()
    assert read_yaml(pipe) == {"a": 1, "b": [2]}
    writer.join()
    reader, end = os.pipe()
    os.write(end, b"a: 3\n")
    os.close(end)
    assert read_yaml(Path(f"/dev/fd/{reader}")) == {"a": 3}
    os.close(reader)


@pytest.mark.timeout(60)
def test_a_pipe_that_says_nothing_or_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIPE_S", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "a pipe that nobody ends writing into" in unreadable(pipe)
    endless = subprocess.Popen(["sh", "-c", f"exec yes > {pipe}"])
    try:
        monkeypatch.setattr(reading, "PIPE_S", 10)
        assert "is larger than 256 kB" in unreadable(pipe)
    finally:
        endless.kill()
        endless.wait()
    assert "is a device, not a regular file" in unreadable(Path("/dev/zero"))
