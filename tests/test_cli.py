"""The command line's surface, and how it ends when something is wrong: its code, one clear message, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.export.onnx.graph import to_onnx
from compressor.install import install_line
from compressor.report import seal
from tests.forked import python
from tests.kit import TRAINING, Ended, call, version_of, write_colours
from tests.targets.trt_graphs import needs_rtx

SNAPSHOTS = Path(__file__).parent / "snapshots"
COMMANDS = (
    "", "teach", "specialists", "distill", "predict", "export", "measure", "report", "check", "doctor", "demo",
    "losses", "students",
    "profiles", "profiles list", "profiles show", "profiles new",
)  # fmt: skip

Kdc = Callable[..., Ended]
Command = tuple[object, ...]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_as_reviewed(command: str, kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new flag is a reviewed diff: KDC_UPDATE_SNAPSHOTS=1 writes the files anew."""
    if version_of("typer") < (0, 29):
        pytest.skip("typer below 0.29 spells arguments and defaults otherwise")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    ended = kdc(*command.split(), "--help")
    file = SNAPSHOTS / f"help {command}.txt".replace(" .", ".").replace(" ", "-")
    if os.environ.get("KDC_UPDATE_SNAPSHOTS"):
        file.write_text(ended.out, encoding="utf-8")
    assert ended.code == 0
    assert ended.out == file.read_text(encoding="utf-8")


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = "import sys, typer.core; brought = set(sys.modules); sys.argv = ['kdc', '--help']\n"  # rich, in 0.18
    code += (
        "from compressor.cli.app import run; run()\nheavy = {'torch', 'timm', 'numpy', 'pydantic', 'rich', 'onnx'}\n"
    )
    code += "found = heavy & (set(sys.modules) - brought); sys.exit(str(found or 0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() in ("", "0")


def completed(words: str, monkeypatch: pytest.MonkeyPatch, kdc: Kdc) -> Ended:
    """As bash asks how `words` go on."""
    monkeypatch.setenv("_KDC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    return kdc()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("kdc me", {"measure"}),
        ("kdc report b --for", {"--format"}),
        ("kdc profiles n", {"new"}),
        ("kdc export r --profile x86-avx5", {"x86-avx512-vnni"}),
    ],
)
def test_a_shell_completes_commands_options_and_profiles(
    words: str, found: set[str], monkeypatch: pytest.MonkeyPatch, kdc: Kdc
) -> None:
    ended = completed(words, monkeypatch, kdc)
    assert (ended.code, set(ended.out.split()), ended.err) == (0, found, "")


def test_the_script_for_a_shell_is_shown(monkeypatch: pytest.MonkeyPatch, kdc: Kdc) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    ended = kdc("--show-completion")
    assert ended.code == 0
    assert "_KDC_COMPLETE=complete_bash" in ended.out
    monkeypatch.setenv("_KDC_COMPLETE", "nonsense")
    assert kdc().code == 2, "1 would say that a gate fails"


def test_losses(kdc: Kdc) -> None:
    rows = {row["name"]: row for row in json.loads(kdc("losses", "--json").out)}
    assert rows["kd"]["parameters"] == {"temperature": {"default": 4.0, "lowest": 0.001, "highest": 1000.0}}
    assert (rows["hint"]["taps"], rows["hint"]["connector"]) == ("maps", "project")
    assert (rows["dkd"]["mixed_labels"], rows["kd"]["mixed_labels"]) == (False, True)
    assert (rows["kd"]["zero_probabilities"], rows["soft_bce"]["raw_logits"], rows["crd"]["one_process"]) == (True,) * 3
    lines = kdc("losses").out.splitlines()
    assert lines[0].split() == ["name", "knowledge", "taps", "parameters", "formula", "paper"]
    assert [line.split()[0] for line in lines[1:]] == list(rows)
    assert "alpha=1 [0, 100]" in next(line for line in lines if line.startswith("dkd "))


def test_version(kdc: Kdc) -> None:
    assert kdc("--version").out == "kdc 0.1.0\n"


def refused(ended: Ended, code: int, *says: str) -> None:
    """Exit `code`, nothing on stdout, one error and at most one hint, no traceback, and every text in `says`."""
    assert ended.code == code, ended
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert ended.err.count("error:") + ended.err.count("Error:") == 1, ended.err
    for text in says:
        assert text in ended.err, ended.err


def distill(teacher: object, data: object, out: Path, *more: object) -> tuple[object, ...]:
    start = ("--student", "timm:test_efficientnet", "--student-init", "random", "--epochs", 1)
    return ("distill", "--teacher", teacher, "--data", data, "--out", out, *start, *TRAINING, *more)


def test_unknown_option(kdc: Kdc) -> None:
    refused(kdc("distill", "--techer", "x"), 2, "--techer")


def test_unknown_command(kdc: Kdc) -> None:
    refused(kdc("destill"), 2, "destill", "distill")


def test_missing_data_path(kdc: Kdc, teacher_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused(kdc(*distill(f"run:{teacher_run}", f"folder:{tmp_path / 'nowhere'}", out)), 2, "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_a_new_profile_twice(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = kdc("profiles", "new", "here", "--set", "input_size=48")
    assert first.code == 0
    assert "Of images, kdc distill takes its input size, 48, where --input-size gives" in " ".join(first.out.split())
    refused(kdc("profiles", "new", "here"), 2, "here.yaml exists already", "--overwrite to replace it")
    assert json.loads(kdc("profiles", "new", "here", "--overwrite", "--json").out) == {"path": "here.yaml"}
    assert json.loads(kdc("profiles", "show", "here", "--json").out)["input_size"] == 224


def test_missing_unlabelled_images(kdc: Kdc, colours: Path, tmp_path: Path) -> None:
    command = distill(
        "timm:test_resnet", f"folder:{colours}", tmp_path / "run", "--unlabelled", f"folder:{tmp_path / 'none'}"
    )
    refused(kdc(*command), 2, "--unlabelled", "none does not exist")
    assert list(tmp_path.iterdir()) == []


def test_empty_class_folder(kdc: Kdc, teacher_run: Path, tmp_path: Path) -> None:
    data = write_colours(tmp_path / "data", each=4)
    (data / "yellow").mkdir()
    refused(kdc(*distill(f"run:{teacher_run}", f"folder:{data}", tmp_path / "run")), 2, "yellow")
    assert not (tmp_path / "run").exists()


def test_truncated_jpeg_is_named_and_can_be_skipped(kdc: Kdc, teacher_run: Path, tmp_path: Path) -> None:
    data = write_colours(tmp_path / "data", each=20)
    bad = data / "red" / "bad.jpg"
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(bad)
    bad.write_bytes(bad.read_bytes()[:300])
    command = distill(f"run:{teacher_run}", f"folder:{data}", tmp_path / "run")
    refused(kdc(*command), 2, "bad.jpg", "--skip-bad")
    assert not (tmp_path / "run").exists()
    ended = kdc(*command, "--skip-bad", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["data"]["skipped"] == ["red/bad.jpg"]


def test_label_outside_the_classes(kdc: Kdc, teacher_run: Path, tmp_path: Path, colours: Path) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted(colours.rglob("*.png"))]
    (tmp_path / "train.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    (tmp_path / "test.csv").write_text(f"path,label\n{colours / 'red' / '001.png'},purple\n")
    refused(kdc(*distill(f"run:{teacher_run}", f"csv:{tmp_path}", tmp_path / "run")), 2, "purple")
    assert not (tmp_path / "run").exists()


def test_teacher_whose_classes_do_not_match(kdc: Kdc, teacher_run: Path, tmp_path: Path) -> None:
    ended = kdc(*distill(f"run:{teacher_run}", "digits", tmp_path / "run"))
    refused(ended, 2, "do not match", "kdc teach")
    assert list(tmp_path.iterdir()) == []


class Harmful:
    """A pickle that would run code when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickle_with_code_is_refused_and_not_run(kdc: Kdc, colours: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Harmful(tmp_path / "it-ran")}, tmp_path / "harmful.pth")
    teacher = f"timm:test_resnet@{tmp_path / 'harmful.pth'}"
    refused(kdc(*distill(teacher, f"folder:{colours}", tmp_path / "run")), 2, "harmful.pth", "safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["harmful.pth"]


@pytest.mark.parametrize("command", ["distill", "export"])
def test_out_that_is_not_ours_is_left_alone(
    command: str, kdc: Kdc, teacher_run: Path, student_run: Path, here: Path, colours: Path, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    if command == "distill":
        ended = kdc(*distill(f"run:{teacher_run}", f"folder:{colours}", tmp_path, "--overwrite"))
    else:
        ended = kdc("export", student_run, "--profile", here, "--out", tmp_path, "--overwrite")
    refused(ended, 2, str(tmp_path), "left alone")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_demo_leaves_a_foreign_folder_alone(kdc: Kdc, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    refused(kdc("demo", "--out", tmp_path), 2, "left alone")
    assert (tmp_path / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_demo_leaves_folders_of_its_words_alone(kdc: Kdc, tmp_path: Path, overwrite: list[str]) -> None:
    """What is called as its parts are is not its own."""
    for name in ("teacher", "run", "bundle"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    refused(kdc("demo", "--out", tmp_path, *overwrite), 2, "is no demo of kdc, so it is left alone")
    assert len(list(tmp_path.rglob("thesis.txt"))) == 3
    assert len(list(tmp_path.rglob("*"))) == 6


def test_demo_is_replaced_only_when_asked_to_and_only_its_own(kdc: Kdc, tmp_path: Path) -> None:
    (tmp_path / "demo.txt").touch()
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "thesis.txt").write_text("mine")
    refused(kdc("demo", "--out", tmp_path), 2, "holds a demo", "--overwrite")
    refused(kdc("demo", "--out", tmp_path, "--overwrite"), 2, "teacher exists and is no run of kdc")
    (tmp_path / "notes").mkdir()
    refused(kdc("demo", "--out", tmp_path, "--overwrite"), 2, "holds notes too", "left alone")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["demo.txt", "notes", "teacher", "thesis.txt"]


def test_demo_says_who_writes_there(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with held_by_another(tmp_path / "out", file=False):
        refused(kdc("demo", "--out", "out"), 2, "is being written by kdc teach (process ")


@contextmanager
def held_by_another(place: Path, *, file: bool) -> Iterator[None]:
    code = "import sys, pathlib, time; from compressor.files.locks import locked\n"
    code += (
        f"with locked(pathlib.Path(sys.argv[1]), 'kdc teach', file={file}): print('held', flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", code, place], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.kill()


def test_finished_run_is_not_overwritten_unasked(kdc: Kdc, teacher_run: Path, student_run: Path, colours: Path) -> None:
    before = (student_run / "student.safetensors").read_bytes()
    ended = kdc(*distill(f"run:{teacher_run}", f"folder:{colours}", student_run))
    refused(ended, 2, "finished run", "--overwrite")
    assert (student_run / "student.safetensors").read_bytes() == before


def test_misspelt_profile_key(kdc: Kdc, student_run: Path, here: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(here.read_text().replace("p50_ms:", "p50:"))
    ended = kdc("export", student_run, "--profile", wrong, "--out", tmp_path / "bundle")
    refused(ended, 2, "budget.p50", "did you mean budget.p50_ms?")
    assert not (tmp_path / "bundle").exists()


def test_runtime_that_is_not_installed(
    kdc: Kdc, student_run: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # what Python keeps for a module that cannot be imported
    ended = kdc("export", student_run, "--profile", here, "--out", tmp_path / "bundle")
    refused(ended, 4, "openvino", install_line("openvino", "nncf"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("profile", "target", "module", "install"),
    [
        ("x86-avx2", "openvino-int8", "nncf", ("openvino", "nncf")),
        ("jetson-orin-nano", "tensorrt-fp32", "tensorrt_rtx", ("tensorrt-rtx",)),
        ("rtx-ada", "tensorrt-rtx-fp16", "tensorrt_rtx", ("tensorrt-rtx",)),
        ("android-snapdragon-8gen3", "executorch-fp32", "executorch", ("executorch",)),
        ("android-snapdragon-8gen3", "litert-fp32", "litert_torch", ("litert-torch", "ai-edge-litert")),
    ],
)
def test_what_an_export_needs_is_asked_for_before_anything_is_made(
    profile: str, target: str, module: str, install: tuple[str, ...],
    kdc: Kdc, student_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also of a runtime that this machine could not run: what is asked of it here is to build for it."""
    monkeypatch.setitem(sys.modules, module, None)
    ended = kdc("export", student_run, "--profile", profile, "--target", target, "--out", tmp_path / "bundle")
    refused(ended, 4, f"profile {profile} needs {module}, which is not installed", install_line(*install))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("runtime", "code"), [("ncnn", 4), ("onnxrutime", 2)])
def test_runtime_that_kdc_does_not_have(
    runtime: str, code: int, kdc: Kdc, student_run: Path, here: Path, tmp_path: Path
) -> None:
    ended = kdc(
        "export", student_run, "--profile", here, "--out", tmp_path / "bundle", "--set", f"targets.0.runtime={runtime}"
    )
    refused(ended, code, runtime, "onnxruntime")
    assert list(tmp_path.iterdir()) == []


def test_recipe_errors(kdc: Kdc, teacher_run: Path, colours: Path, tmp_path: Path) -> None:
    base = distill(f"run:{teacher_run}", f"folder:{colours}", tmp_path / "run")
    refused(kdc(*base, "--set", "optimiser.lr=1"), 2, "optimiser", "did you mean optimizer?")
    refused(kdc(*base, "--set", "losses.0.name=kdd"), 2, "kdd", "did you mean kd?")
    refused(kdc(*base, "--set", "losses.0.temprature=2"), 2, "temprature", "did you mean temperature?")
    refused(kdc(*base, "--set", "epochs=3"), 2, "--epochs 1", "epochs=3")
    refused(kdc(*base, "--recipe", tmp_path / "none.yaml"), 2, "none.yaml")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", ["self", "peers"])
def test_who_teaches_alone_is_no_part_of_an_ensemble(kdc: Kdc, teacher_run: Path, tmp_path: Path, other: str) -> None:
    ended = kdc(*distill(f"run:{teacher_run}", "digits", tmp_path / "run", "--teacher", other))
    refused(ended, 2, f"--teacher {other} stands alone")
    assert not (tmp_path / "run").exists()


def test_the_same_teacher_twice_is_refused(kdc: Kdc, teacher_run: Path, tmp_path: Path) -> None:
    ended = kdc(*distill(f"run:{teacher_run}", "digits", tmp_path / "run", "--teacher", f"run:{teacher_run}"))
    refused(ended, 2, "the same --teacher is given twice", "ensemble.weights")


def test_pretrained_student_without_the_hub_names_the_other_ways(
    kdc: Kdc, teacher_run: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.hub._unreachable", lambda endpoint: "no network in this test")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    ended = kdc(
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--out", tmp_path / "run",
        "--student", "timm:mobilenetv3_small_050", "--quiet",
    )  # fmt: skip
    refused(ended, 2, "--student-init random", "--student-init PATH")
    assert not (tmp_path / "run").exists()


Disk = Callable[[int], Path]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Disk]:
    """`tiny_disk(96)`: a file system of so many KiB; where none can be mounted, the test is skipped (CI runs as root
    and mounts it)."""
    place = tmp_path / "tiny"
    place.mkdir()

    def mount(kilobytes: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("a tmpfs can only be mounted by root")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("command", ["distill", "export"])
def test_full_disk(
    command: str, kdc: Kdc, tiny_disk: Disk, teacher_run: Path, student_run: Path, here: Path, colours: Path
) -> None:
    disk = tiny_disk(96)
    if command == "distill":
        ended = kdc(*distill(f"run:{teacher_run}", f"folder:{colours}", disk / "out"))
    else:
        ended = kdc("export", student_run, "--profile", here, "--out", disk / "out")
    refused(ended, 2, "no space left")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("profile", "target", "kilobytes", "says"),
    [
        ("x86-avx2", "onnxruntime-int8", 1000, "no space left on the device while writing"),
        ("x86-avx2", "openvino-int8", 1000, "OpenVINO cannot write"),
        pytest.param("rtx-ada", "tensorrt-rtx-fp32", 1300, "No space left on device", marks=needs_rtx),
    ],
)
def test_a_disk_that_fills_up_while_a_runtime_writes_its_artefact(
    profile: str, target: str, kilobytes: int, says: str, kdc: Kdc, tiny_disk: Disk, student_run: Path
) -> None:
    """Each writes in its own way, some of them in C++ or in another process."""
    disk = tiny_disk(kilobytes)
    ended = kdc("export", student_run, "--profile", profile, "--target", target, "--out", disk / "out", "--quiet")
    refused(ended, 2, says, f"{target}")
    assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_while_what_ships_is_made_anew_keeps_what_shipped(
    kdc: Kdc, tiny_disk: Disk, finished_bundle: Path
) -> None:
    files = [path for path in finished_bundle.rglob("*") if path.is_file()]
    pages = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
    shipped = sum(-(-path.stat().st_size // 4096) * 4 for path in files if path.parent.name == "best")
    copy = Path(shutil.copytree(finished_bundle, tiny_disk(pages + shipped // 2) / "bundle"))
    (copy / "report.md").write_text("an older one")
    seal(copy)
    refused(kdc("report", copy), 2, "no space left on the device while writing", "best")
    kept = {path.name: path.read_bytes() for path in (copy / "best").iterdir()}
    assert kept == {path.name: path.read_bytes() for path in (finished_bundle / "best").iterdir()}
    assert kdc("check", copy).code == 0


@pytest.mark.parametrize(
    ("opset", "said"),
    [(16, "opset: should be greater than or equal to 17"), (24, "opset: should be less than or equal to 23")],
)
def test_an_opset_that_cannot_be_had(
    opset: int, said: str, kdc: Kdc, student_run: Path, here: Path, tmp_path: Path
) -> None:
    ended = kdc("export", student_run, "--profile", here, "--set", f"opset={opset}", "--out", tmp_path / "bundle")
    refused(ended, 2, said, str(opset))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("onnxruntime-fp32", "onnxruntime: InvalidProtobuf"),
        ("openvino-int8", "OpenVINO cannot convert the network"),
    ],
)
def test_a_broken_onnx_file_ends_the_export(
    target: str, said: str, kdc: Kdc, student_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from an exporter that writes half of it."""

    def half(*arguments: Any) -> None:
        to_onnx(*arguments)
        path = arguments[-1]
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    monkeypatch.setattr(import_module("compressor.export.bundle.items"), "to_onnx", half)
    ended = kdc(
        "export", student_run, "--profile", "x86-avx2", "--target", target, "--out", tmp_path / "bundle", "--quiet"
    )
    refused(ended, 2, said)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_broke_in_the_bundle_is_named_before_it_is_measured(kdc: Kdc, bundle: Path) -> None:
    model = bundle / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    measured = (bundle / "measurements" / "measurement.json").read_bytes()
    refused(kdc("measure", bundle), 2, "model.onnx was changed after it was made", "kdc export")
    assert (bundle / "measurements" / "measurement.json").read_bytes() == measured


def test_check_passes_and_names_any_file_with_one_byte_changed(kdc: Kdc, bundle: Path) -> None:
    assert kdc("check", bundle).code == 0
    for file in sorted(path for path in bundle.rglob("*") if path.is_file()):
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        name = file.relative_to(bundle).as_posix()
        refused(kdc("check", bundle), 2, name if name != "SHA256SUMS" else "")
        file.write_bytes(content)
    assert kdc("check", bundle).code == 0


def test_check_without_torch(bundle: Path) -> None:
    """The gate works where no learning library is installed."""
    code = (
        "import sys\n"
        "for name in ('torch', 'timm', 'transformers', 'onnx', 'onnxruntime', 'openvino'): sys.modules[name] = None\n"
        f"sys.argv = ['kdc', 'check', {str(bundle)!r}]\n"
        "from compressor.cli.app import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pass" in done.stdout.lower()


def test_report_formats(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    shown = kdc("report", bundle)
    assert shown.code == 0
    assert shown.out.startswith("PASS  the budget holds on here\n")
    markdown = kdc("report", bundle, "--format", "md")
    assert markdown.out == (bundle / "report.md").read_text()
    assert json.loads(kdc("report", bundle, "--format", "json").out)["verdict"] == "pass"
    assert kdc("report", bundle, "--format", "junit", "--out", tmp_path / "junit.xml").code == 0
    assert (tmp_path / "junit.xml").read_text().startswith("<?xml")
    page = (bundle / "report.html").read_text(encoding="utf-8")
    assert kdc("report", bundle, "--format", "html").out == page
    assert "ends at" in page, "the course of the training came along"
    assert "data:image/bmp;base64," in page, "so did the test images, of which the teacher's temperature shows some"
    refused(kdc("report", bundle, "--format", "pdf"), 2, "pdf", "text, md, json, html, junit, bencher")
    refused(kdc("report", tmp_path), 2, "no bundle")


def test_export_is_whole_and_true(finished_bundle: Path) -> None:
    report = json.loads((finished_bundle / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert {"onnxruntime-fp32", "openvino-f32", "openvino-f16", "teacher-onnxruntime-fp32"} <= set(rows)
    for row in rows.values():
        assert row["p50_ms"]["n"] >= 11
        assert row["accuracy"]["n"] == report["test_n"] == 24
        assert row["parity_agreement"] == 1.0
    assert rows["openvino-f16"]["size_bytes"] < 0.8 * rows["openvino-f32"]["size_bytes"]
    assert not list(finished_bundle.parent.glob(".*"))


def test_a_failed_budget_is_exit_1_and_an_unmeasured_one_3(
    kdc: Kdc, student_run: Path, here: Path, tmp_path: Path
) -> None:
    only = ("--target", "onnxruntime-fp32")
    base = ("export", student_run, "--profile", here, "--rounds", 12, "--quiet", "--json", *only)
    # On one thread there is one way to run at full tilt, and each is tried for seconds.
    failed = kdc(*base, "--out", tmp_path / "a", "--set", "budget.size_mb=0.01", "--set", "threads=1")
    assert (failed.code, json.loads(failed.out)["verdict"]) == (1, "fail")
    assert all(row["throughput"]["images_per_s"]["n"] > 1 for row in json.loads(failed.out)["rows"])
    foreign = (*base, "--no-throughput", "--set", "fingerprint.cpu=Cortex-A76", "--out", tmp_path / "b")
    unmeasured = kdc(*foreign)
    assert (unmeasured.code, json.loads(unmeasured.out)["verdict"]) == (3, "unmeasured")
    assert kdc("check", tmp_path / "b", "--allow-unmeasured").code == 0
    assert kdc("check", tmp_path / "b").code == 3
    assert kdc("measure", tmp_path / "b", "--rounds", 11, "--no-throughput", "--quiet").code == 3


def test_export_refuses_what_it_cannot_do(
    kdc: Kdc, teacher_run: Path, student_run: Path, here: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "bundle")
    refused(kdc("export", teacher_run, "--profile", here, *out), 2, "kdc teach")
    refused(kdc("export", tmp_path, "--profile", here, *out), 2, "student.json")
    refused(kdc("export", student_run, "--profile", here, *out, "--target", "openvino-int8"), 2, "openvino-int8")
    refused(kdc("export", student_run, "--profile", "raspbery-pi-5", *out), 2, "raspberry-pi-5")
    refused(
        kdc("export", student_run, "--profile", here, *out, "--teacher", f"run:{student_run}"), 2, "not the teacher"
    )
    assert list(tmp_path.iterdir()) == []


def test_profiles(kdc: Kdc) -> None:
    assert "raspberry-pi-5" in kdc("profiles", "list").out
    assert {row["name"] for row in json.loads(kdc("profiles", "list", "--json").out)} >= {
        "jetson-orin-nano",
        "x86-avx2",
    }
    assert "source:" in kdc("profiles", "show", "jetson-orin-nano").out


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_a_profile_of_this_machine(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with held_by_another(tmp_path / "mine.yaml", file=True):
        refused(kdc("profiles", "new", "mine"), 2, "is being written by kdc teach (process ")
    assert not (tmp_path / "mine.yaml").exists()
    assert kdc("profiles", "new", "mine", "--set", "budget.p50_ms=7").code == 0
    assert json.loads(kdc("profiles", "show", "mine", "--json").out)["budget"]["p50_ms"] == 7
    refused(kdc("profiles", "new", "mine"), 2, "mine.yaml")


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_doctor(kdc: Kdc) -> None:
    found = json.loads(kdc("doctor", "--json").out)
    assert {check["name"] for check in found["runtimes"] if check["works"]} >= {"onnxruntime", "openvino"}


def test_profile_is_read_also_where_the_size_is_given(
    kdc: Kdc, teacher_run: Path, colours: Path, tmp_path: Path
) -> None:
    ended = kdc(*distill(f"run:{teacher_run}", f"folder:{colours}", tmp_path / "run", "--profile", "nope"))
    refused(ended, 2, "unknown profile nope")


def test_report_does_not_write_into_the_sealed_bundle(kdc: Kdc, bundle: Path) -> None:
    refused(kdc("report", bundle, "--out", bundle / "bundle.json"), 2, "sealed")
    assert kdc("check", bundle).code == 0


def test_measured_elsewhere_and_unfinished_say_what_to_do(kdc: Kdc, bundle: Path) -> None:
    (bundle / "measurements" / "new.txt").write_text("x")
    refused(kdc("check", bundle), 2, "kdc report")
    (bundle / "SHA256SUMS").unlink()
    refused(kdc("check", bundle), 2, "kdc measure")


def kdc_process(*arguments: object) -> "subprocess.Popen[str]":
    """`kdc` in a process of its own. On one thread: the order in which threads add up shows in the last bits."""
    command = (*python(), "-m", "compressor", *map(str, arguments))
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=one_thread, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, teacher_run: Path, colours: Path) -> tuple[Path, Command]:
    """A training that nobody stopped, and its command but for --out."""
    start = ("distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student")
    command = (*start, "timm:test_efficientnet", "--student-init", "random", *TRAINING, "--epochs", 12)
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert call(*command, "--out", out) == 0
    return out, command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_training_says_so_and_resumes(
    number: signal.Signals, uninterrupted: tuple[Path, Command], kdc: Kdc, tmp_path: Path
) -> None:
    """What was never stopped, and what goes on, run in this process, which has one thread as well."""
    whole, command = uninterrupted
    with kdc_process(*command, "--out", tmp_path / "stopped") as process:
        assert process.stderr is not None
        while "epoch 1/12" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        rest = process.communicate()[1]
    assert process.returncode == 130
    assert "--resume goes on" in rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    ended = kdc(*command, "--out", tmp_path / "stopped", "--resume")
    assert ended.code == 0, ended.err
    weights = [(run / "student.safetensors").read_bytes() for run in (tmp_path / "stopped", whole)]
    assert weights[0] == weights[1]


def test_a_closed_stdout_does_not_change_the_verdict(bundle: Path) -> None:
    script = 'exec "$0" -m compressor check "$1" >&-'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, str(bundle)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == "kdc: warning: the result could not be printed: stdout is closed\n"


def test_a_closed_pipe_does_not_change_the_verdict(bundle: Path) -> None:
    with kdc_process("report", bundle) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode == 0


@pytest.mark.parametrize("option", ["--resume", "--overwrite", "--json"])
def test_precomputing_refuses_what_has_no_meaning_with_it(kdc: Kdc, tmp_path: Path, option: str) -> None:
    ended = kdc(
        "distill", "--teacher", "run:none", "--data", "digits", "--out", tmp_path / "run", "--precompute", option
    )  # fmt: skip
    assert ended.code == 2
    assert "--precompute makes no run" in ended.err
    assert not (tmp_path / "run").exists()
