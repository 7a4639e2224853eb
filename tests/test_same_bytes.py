"""The comparing part of benchmarks/same_bytes.py, on folders and checkouts that are made up."""

import json
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from benchmarks import same_bytes
from benchmarks.same_bytes import Identity, Made, compared, differences, hashes, table
from benchmarks.same_bytes_cases import CASES

WHERE = Identity("a" * 40, "3.11.2", {"torch": "2.9.0", "nncf": None}, "x86_64 EPYC", ("avx2", "avx512f"))

KDC = """
import json, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir()
if sys.argv[1] != "export":
    out.joinpath("student.safetensors").write_bytes(b"weights")
    sys.exit(0)
variants = [part for part in sys.argv if part.startswith(("onnxruntime-", "openvino-"))]
for name in variants:
    out.joinpath(name).write_text("MODEL")
entries = [{"name": name, "files": [{"path": name}]} for name in variants]
out.joinpath("bundle.json").write_text(json.dumps({"variants": entries}))
sys.exit(3)
"""


def write_made(folder: Path, files: dict[str, bytes]) -> dict[str, str]:
    """A run and its bundle; `files`: of one variant. Their hashes, as the benchmark takes them."""
    run, bundle = folder / "run", folder / "bundle"
    (run / "float").mkdir(parents=True)
    bundle.mkdir()
    (run / "student.safetensors").write_bytes(b"weights")
    (run / "float/student.safetensors").write_bytes(b"before")
    for name, content in files.items():
        (bundle / name).write_bytes(content)
    entries = [{"path": name, "sha256": "what the manifest says does not count"} for name in files]
    variants = [{"name": "openvino-int8", "files": entries}]
    (bundle / "bundle.json").write_text(json.dumps({"variants": variants}))
    return hashes(run, None) | hashes(None, bundle)


def test_what_is_hashed_are_the_bytes_of_the_student_and_of_every_file_of_a_variant(tmp_path: Path) -> None:
    assert write_made(tmp_path, {"model.xml": b"<net/>", "model.bin": b""}) == {
        "student.safetensors": sha256(b"weights").hexdigest(),
        "float/student.safetensors": sha256(b"before").hexdigest(),
        "openvino-int8: model.xml": sha256(b"<net/>").hexdigest(),
        "openvino-int8: model.bin": sha256(b"").hexdigest(),
    }


def test_equal_folders_are_the_same(tmp_path: Path) -> None:
    old, new = (write_made(tmp_path / side, {"model.xml": b"<net/>"}) for side in ("old", "new"))
    rows = compared({"kd": Made(old)}, {"kd": Made(new)})
    assert rows == [
        ("kd", "student.safetensors", "same"),
        ("kd", "float/student.safetensors", "same"),
        ("kd", "openvino-int8: model.xml", "same"),
    ]


def test_one_other_byte_is_a_difference(tmp_path: Path) -> None:
    old = write_made(tmp_path / "old", {"model.xml": b'<net path="/old"/>'})
    new = write_made(tmp_path / "new", {"model.xml": b'<net path="/new"/>'})
    rows = compared({"kd": Made(old)}, {"kd": Made(new)})
    assert table(rows).splitlines()[1:] == [
        "kd       student.safetensors        same",
        "kd       float/student.safetensors  same",
        "kd       openvino-int8: model.xml   different",
    ]


def test_what_only_one_has_is_missing_in_the_other(tmp_path: Path) -> None:
    old = write_made(tmp_path / "old", {"model.xml": b"", "model.bin": b""})
    new = write_made(tmp_path / "new", {"model.xml": b"", "model.onnx": b""})
    rows = compared({"kd": Made(old)}, {"kd": Made(new)})
    assert rows[2:] == [
        ("kd", "openvino-int8: model.xml", "same"),
        ("kd", "openvino-int8: model.bin", "missing in new"),
        ("kd", "openvino-int8: model.onnx", "missing in old"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "verdicts"),
    [
        (Made({"a": "1"}), Made({}, "no"), ["missing in new", "failed in new: no"]),
        (Made({"a": "1"}, "no"), Made({"a": "1"}, "no"), ["same", "failed in old: no", "failed in new: no"]),
        (Made(), Made(), ["failed in both: nothing was made"]),
    ],
)
def test_what_failed_is_never_the_same(old: Made, new: Made, verdicts: list[str]) -> None:
    assert [row[2] for row in compared({"kd": old}, {"kd": new})] == verdicts


def test_a_case_that_one_side_has_not_run_has_failed_there() -> None:
    rows = compared({"kd": Made({"a": "1"})}, {})
    assert rows == [("kd", "a", "missing in new"), ("kd", "-", "failed in new: not run")]


def test_a_file_that_the_manifest_names_and_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_made(tmp_path, {"model.xml": b""})
    (tmp_path / "bundle/model.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.xml"):
        hashes(None, tmp_path / "bundle")


def test_the_same_place_has_no_differences_whatever_the_commit() -> None:
    assert differences(WHERE, replace(WHERE, commit="b" * 40)) == []


def test_what_differs_is_named() -> None:
    other = Identity("a" * 40, "3.12.0", {"torch": "2.10.0", "nncf": "3.4.0"}, "aarch64 0xd0b", ("avx2", "vnni"))
    assert differences(WHERE, other) == [
        "Python: 3.11.2 and 3.12.0",
        "nncf: not installed and 3.4.0",
        "torch: 2.9.0 and 2.10.0",
        "CPU: x86_64 EPYC and aarch64 0xd0b",
        "CPU flags that only one has: avx512f, vnni",
    ]


def test_every_case_needs_cases_that_run_before_it_and_six_are_exported() -> None:
    names = list(CASES)
    assert all(names.index(need) < names.index(name) for name in names for need in CASES[name].needs)
    assert sum(bool(case.variants) for case in CASES.values()) == 6


def write_checkout(folder: Path, model: str) -> Path:
    """A `compressor` that does nothing but write files; `model`: the bytes of every model."""
    (folder / "compressor").mkdir(parents=True)
    (folder / "compressor/__init__.py").touch()
    (folder / "compressor/__main__.py").write_text(KDC.replace("MODEL", model))
    return folder


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of the benchmark, on one command, with this interpreter."""
    pythons = ["--old-python", sys.executable, "--new-python", sys.executable]
    monkeypatch.setattr("sys.argv", ["same_bytes", *map(str, arguments), "--only", "peers", *pythons])
    with pytest.raises(SystemExit) as exited:
        same_bytes.main()
    assert isinstance(exited.value.code, int)
    return exited.value.code


@pytest.mark.slow
def test_each_checkout_runs_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, again, new = (write_checkout(tmp_path / name, name[:3]) for name in ("old", "old-again", "new"))
    assert ended(monkeypatch, old, again) == 0
    assert "4 of 4 the same" in capsys.readouterr().out
    assert ended(monkeypatch, old, new) == 1
    said = capsys.readouterr().out
    assert f"{new}: commit unknown, compressor from {new}/compressor/__init__.py" in said
    assert "peers    onnxruntime-int8: onnxruntime-int8  different" in said
    assert "1 of 4 the same" in said


@pytest.mark.slow
def test_a_record_stands_in_for_a_checkout_on_the_same_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, again, new = (write_checkout(tmp_path / name, name[:3]) for name in ("old", "old-again", "new"))
    record = tmp_path / "record.json"
    assert ended(monkeypatch, old, "--record", record) == 0
    assert ended(monkeypatch, again, "--against", record) == 0
    assert ended(monkeypatch, new, "--against", record) == 1
    values = json.loads(record.read_text())
    values["identity"]["packages"]["torch"] = "1.0"
    record.write_text(json.dumps(values))
    capsys.readouterr()
    assert ended(monkeypatch, again, "--against", record) == 2
    assert "torch: 1.0 and " in capsys.readouterr().err
    values["commands"]["peers"].append("--seed")
    record.write_text(json.dumps(values))
    assert ended(monkeypatch, again, "--against", record) == 2
    assert "no record of these commands as they are now: peers" in capsys.readouterr().err


@pytest.mark.slow
def test_the_error_of_a_command_is_shown_and_nothing_of_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = write_checkout(tmp_path / "old", "m"), write_checkout(tmp_path / "new", "m")
    (new / "compressor/__main__.py").write_text("import sys\nsys.exit('kdc: error: no such option: --quiet')")
    assert ended(monkeypatch, old, new) == 1
    assert "failed in new: distill ended with 1: kdc: error: no such option: --quiet" in capsys.readouterr().out
    assert ended(monkeypatch, new, "--record", tmp_path / "record.json") == 1
    assert not (tmp_path / "record.json").exists()
