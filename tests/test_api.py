"""`import compressor`: the commands as functions, with the same options, results and failures."""

import inspect
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_type_hints

import pytest
import typer

import compressor
from compressor import KdcError, KdcWarning
from compressor.api.call import LIMITS, api_call, listener
from compressor.api.results import RunResult
from compressor.api.values import assignments, path_of, profile_of, recipe_of, several
from compressor.cli import app as cli
from compressor.overrides import apply_overrides
from compressor.profiles import load_profile
from compressor.progress import Progress
from compressor.schema.recipe import Recipe
from compressor.schema.student import Student
from compressor.terminal.spelling import typed_as_options
from tests.kit import MARKUP, MARKUP_SHOWN, Ended, Hearing

Kdc = Callable[..., Ended]

COMMANDS = ("teach", "specialists", "distill", "predict", "export", "measure", "report", "check", "doctor")
OF_THE_TERMINAL = {"help", "json", "quiet", "plan", "precompute", "schema"}
"""Options that say how a result is shown, or is to be read, and --plan and --precompute, functions of their own."""


def function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(compressor, name)
    return found


def options(command: str) -> dict[str, Any]:
    """Keyword -> typer's parameter."""
    found: Any = typer.main.get_command(cli.app)
    rows = {}
    for parameter in found.commands[command].params:
        longest = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.name
        rows[longest.removeprefix("--").replace("-", "_")] = parameter
    return {name: row for name, row in rows.items() if name not in OF_THE_TERMINAL}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_function_has_the_options_of_its_command(command: str) -> None:
    typed, keywords = options(command), dict(inspect.signature(function(command)).parameters)
    keywords.pop("progress", None)
    assert list(typed) == list(keywords)
    for name, parameter in keywords.items():
        is_option = typed[name].param_type_name == "option"
        assert (parameter.kind is inspect.Parameter.KEYWORD_ONLY) == is_option, name
        assert (parameter.default is inspect.Parameter.empty) == typed[name].required, name
        if not typed[name].required:
            assert parameter.default == typed[name].default, name


@pytest.mark.parametrize("command", COMMANDS)
def test_numbers_have_the_limits_of_the_command_line(command: str) -> None:
    (written,) = (found for found in cli.COMMANDS if found.__name__ == command)
    typed = {
        name: (option.min, option.max)
        for name, hint in get_type_hints(written, include_extras=True).items()
        for option in getattr(hint, "__metadata__", ())
        if option.min is not None
    }
    assert typed == {name: limits for name, limits in LIMITS.items() if name in options(command)}


def test_precompute_has_the_options_of_distill_but_those_that_mean_nothing_without_a_run() -> None:
    precompute, distill = (inspect.signature(function(name)).parameters for name in ("precompute", "distill"))
    of_a_race = ["students", "race_share", "race_losses", "allow_surgery", "device", "device_python"]
    of_a_run = ["assistant", "control", "resume", "overwrite"]
    assert [name for name in distill if name not in precompute] == [*of_a_race, *of_a_run]
    assert {name: parameter.default for name, parameter in precompute.items()} == {
        name: distill[name].default for name in precompute
    }


def test_importing_imports_nothing_heavy_nor_does_looking() -> None:
    code = (
        "import sys; before = set(sys.modules); import compressor; brought = set(sys.modules) - before\n"
        "assert not [name for name in brought if name.startswith('compressor.')], brought\n"
        "assert not {'torch', 'numpy', 'pydantic', 'rich', 'typer', 'yaml'} & set(sys.modules)\n"
        "assert set(compressor.__all__) <= set(dir(compressor))\n"
        "compressor.teach, compressor.distill, compressor.KdcError, compressor.RunResult\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'rich', 'typer', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_named_is_there_and_what_is_not_is_said() -> None:
    for name in compressor.__all__:
        assert getattr(compressor, name) is getattr(compressor, name)
    with pytest.raises(AttributeError, match="has no attribute 'destill'"):
        compressor.destill  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_function_is_not_lost_to_the_folder_of_its_name(order: str) -> None:
    imports = ["import compressor.report, compressor.measure.machine", "report = compressor.report"]
    lines = ["import compressor", *(imports if order == "before" else reversed(imports))]
    code = "\n".join([*lines, "from compressor.report import seal", "import types"])
    code += "\nassert isinstance(compressor.report, types.FunctionType) and report is compressor.report"
    code += "\nfrom compressor import measure; assert isinstance(measure, types.FunctionType)"
    code += "\nassert seal.__module__ == 'compressor.report.integrity'; assert compressor.profiles.profile_names()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@api_call
def example(
    *,
    out: str = "",
    overwrite: bool = False,
    throughput: bool = True,
    epochs: int = 1,
    progress: bool | Progress = False,
) -> tuple[str, ...]:
    heard = listener(progress)
    heard.note(f"epochs {epochs!r}")
    if out == "full":
        raise OSError(28, "No space left on device")
    if out == "bug":
        raise ZeroDivisionError("division by zero")
    if out:
        raise KdcError(
            f"--out {out} exists, and --json, --no-throughput", "--overwrite, or kdc teach --out x; --epochs"
        )
    heard.warn("--epochs is small")
    return heard.warnings


def test_failures_name_the_keywords_and_commands_as_they_are_typed() -> None:
    with pytest.raises(KdcError) as caught:
        example(out="run")
    assert caught.value.message == "out run exists, and --json, throughput=False"
    assert caught.value.hint == "overwrite=True, or kdc teach --out x; epochs"
    assert str(caught.value) == f"{caught.value.message} ({caught.value.hint})"
    with typed_as_options(), pytest.raises(KdcError) as caught:
        example(out="run")
    assert caught.value.message == "--out run exists, and --json, --no-throughput"
    assert caught.value.hint == "--overwrite, or kdc teach --out x; --epochs"


@pytest.mark.parametrize(
    ("typed", "called"),
    [
        ("--set views.distinct=10", "set=['views.distinct=10']"),
        ("--set 'peers=[{student: timm:NAME}]', and", "set=['peers=[{student: timm:NAME}]'], and"),
        ("--set targets=[a, b]; --out x", "set=['targets=[a, b]']; out x"),
        ("--set name of it", "set name of it"),
        ("kdc distill --set qat.epochs=2", "kdc distill --set qat.epochs=2"),
    ],
)
def test_assignments_are_named_as_they_are_given(typed: str, called: str) -> None:
    @api_call
    def assigning(
        *,
        set: object = None,  # noqa: A002
        out: str = "",
    ) -> None:
        raise KdcError("no", typed)

    with pytest.raises(KdcError) as caught:
        assigning()
    assert caught.value.hint == called


def test_what_the_api_itself_refuses_names_no_command() -> None:
    for call in (
        lambda: compressor.teach(teacher=1, data="digits", out="x"),  # type: ignore[arg-type]
        lambda: compressor.teach(teacher="timm:test_vit", data="", out="x"),
        lambda: compressor.distill(teacher=["self", "timm:test_vit"], data="digits", out="x"),
        lambda: compressor.distill(teacher="", data="digits", out="x"),
        lambda: compressor.export("run", profile="", out="x"),
        lambda: compressor.report("bundle", format="pdf"),
    ):
        with pytest.raises(KdcError) as caught:
            call()
        assert not re.search(r"kdc |--", str(caught.value)), caught.value


def test_a_full_disk_is_a_failure_and_a_bug_stays_one() -> None:
    with pytest.raises(KdcError, match="no space left on the device") as caught:
        example(out="full")
    assert caught.value.hint == "free some space, or choose another out"
    with pytest.raises(ZeroDivisionError):
        example(out="bug")


def test_warnings_come_through_warnings_where_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert example() == ("epochs is small",)
    (warning,) = caught
    assert warning.category is KdcWarning
    assert str(warning.message) == "epochs is small"
    assert Path(warning.filename).name == Path(__file__).name, "it is the caller's line that is shown"
    assert capsys.readouterr() == ("", "")


def test_whoever_listens_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    told = Hearing()
    assert example(progress=told) == ("epochs is small",)
    assert (told.notes, told.warnings) == (["epochs 1"], ["epochs is small"])
    assert example(progress=True) == ("epochs is small",)
    assert capsys.readouterr() == ("", "epochs 1\nkdc: warning: epochs is small\n")
    with pytest.raises(KdcError, match="progress is str"):
        example(progress="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("epochs", [0, 1_000_001, 1.5, "3", True, float("nan")])
def test_numbers_out_of_their_range_are_refused(epochs: Any) -> None:
    with pytest.raises(KdcError, match="epochs is "):
        example(epochs=epochs)


def test_numbers_of_other_libraries_are_numbers() -> None:
    import numpy as np

    told = Hearing()
    example(epochs=np.int64(3), progress=told)  # type: ignore[arg-type]
    assert told.notes == ["epochs 3"]
    with pytest.raises(KdcError, match="seconds is nan"):
        compressor.measure("bundle", seconds=float("nan"))


def test_values_of_the_recipe_are_given_as_a_mapping_or_as_typed() -> None:
    values = {"optimizer.lr": 1e-5, "name": 'a "b" \U0001f984: {c}', "on": True, "none": None, "list": [1, {"a": 0.5}]}
    applied = apply_overrides({"optimizer": {}}, assignments(values), "here")
    assert applied.pop("optimizer") == {"lr": 1e-5}
    assert applied == {name: value for name, value in values.items() if name != "optimizer.lr"}
    assert assignments(["a=1", "b=[2]"]) == ["a=1", "b=[2]"]
    assert assignments(None) == []


@pytest.mark.parametrize("wrong", ["epochs=3", 3, [1], {"epochs": object()}, {"epochs": float("nan")}])
def test_what_is_no_assignment_is_refused(wrong: Any) -> None:
    with pytest.raises(KdcError, match="set"):
        assignments(wrong)


def test_a_recipe_is_a_file_its_values_or_a_recipe(tmp_path: Path) -> None:
    from compressor.distill.recipes import recipe_from
    from compressor.distill.regimes import built_in

    values = {"epochs": 3, "losses": [{"name": "kd", "temperature": 2.0}]}
    recipe = Recipe.model_validate(values)
    (tmp_path / "recipe.yaml").write_text(json.dumps(values), encoding="utf-8")
    default = built_in("large")
    for given in (values, recipe, tmp_path / "recipe.yaml", str(tmp_path / "recipe.yaml")):
        assert recipe_from(default, recipe_of(given), {"seed": 1}, []) == recipe.model_copy(update={"seed": 1})


def test_a_profile_is_a_name_a_path_or_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("x86-avx2")
    assert profile_of("x86-avx2") == profile_of(profile) == profile
    changed = profile_of(profile, ["budget.p90_ms=7"])
    assert (changed.budget.p90_ms, profile.budget.p90_ms != 7) == (7, True)
    with pytest.raises(KdcError, match=r"budget\.p91_ms"):
        profile_of(profile, ["budget.p91_ms=7"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KdcError, match="does not exist"):
        profile_of(Path("x86-avx2"))  # a path is no name


def test_paths_and_texts_are_what_they_should_be() -> None:
    assert path_of("a/b", "out") == path_of(Path("a/b"), "out") == Path("a/b")
    assert several("a", "teacher") == several(("a",), "teacher") == ["a"]
    for wrong in cast("list[str]", ["", 3]):
        with pytest.raises(KdcError, match="out is"):
            path_of(wrong, "out")
    for wrongs in cast("list[list[str]]", [[""], [3]]):
        with pytest.raises(KdcError, match="teacher holds"):
            several(wrongs, "teacher")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compressor.distill(teacher=["self", "x"], data="digits", out="o"), "teacher self stands alone"),
        (lambda: compressor.distill(teacher=["run:a", "run:a"], data="digits", out="o"), "the same teacher is given"),
        (lambda: compressor.distill(teacher=[], data="digits", out="o"), "teacher names none"),
        (lambda: compressor.distill(teacher="x", data=cast(str, 3), out="o"), "data is 3, and is to be a text"),
        (lambda: compressor.teach(teacher="x", data="digits", out="o", teacher_init="no"), "teacher_init 'no'"),
        (lambda: compressor.report("bundle", format="pdf"), "format 'pdf' is not one of text, md, json"),
        (lambda: compressor.report("bundle", out="bundle/x.md"), "out bundle/x.md lies in the bundle"),
        (lambda: compressor.check(""), "bundle is empty"),
        (lambda: compressor.check("nowhere"), "nowhere"),
        (lambda: compressor.doctor(device_python="python3"), "device_python names an interpreter"),
    ],
)  # fmt: skip
def test_what_cannot_go_well_is_refused(
    call: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KdcError) as caught:
        call()
    assert message in caught.value.message
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def student_called(name: str, student: Student) -> Student:
    values = student.model_dump(mode="json")
    values["architecture"] = values["init"] = values["data"]["source"] = name
    return Student.model_validate(values)


def test_a_run_is_what_the_command_prints(student_run: Path, kdc: Kdc, colours: Path, teacher_run: Path) -> None:
    """A finished run that is resumed trains nothing."""
    request = json.loads((student_run / "run.json").read_text(encoding="utf-8"))
    asked: dict[str, Any] = {
        "teacher": f"run:{teacher_run}", "data": f"folder:{colours}", "out": student_run, "resume": True,
        "student": "timm:test_efficientnet", "student_init": "random", "input_size": 32,
    }  # fmt: skip
    done = compressor.distill(**asked, recipe=request["recipe"])
    ways = {"--teacher": asked["teacher"], "--data": asked["data"], "--out": student_run, "--student": asked["student"]}
    typed = kdc(
        "distill", *(word for pair in ways.items() for word in pair), "--student-init", "random", "--input-size", 32,
        "--epochs", 8, "--batch-size", 16, "--set", "crop_pct=1.0", "--set", "optimizer.lr=0.01", "--resume", "--json",
    )  # fmt: skip
    assert typed.code == 0
    assert done.to_dict() == json.loads(typed.out)
    assert done.reference == f"run:{student_run}"
    assert done.test == done.student.test
    assert f"(n={done.test.n})" in done.summary
    assert done.summary in repr(done)
    shown = RunResult(Path(MARKUP), student_called(MARKUP, done.student))._repr_html_()
    assert "<script" not in shown
    assert shown.count(MARKUP_SHOWN) == 4
    with pytest.raises(KdcError) as caught:
        compressor.distill(**{**asked, "resume": False}, recipe=request["recipe"])
    assert "overwrite=True" in caught.value.hint
    assert "--" not in str(caught.value)


def test_the_whole_way_in_python(
    teacher_run: Path, student_run: Path, here: Path, colours: Path, kdc: Kdc, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Against the commands, whose files are the same to the byte."""
    told = Hearing()
    start: dict[str, Any] = {"data": f"folder:{colours}", "input_size": 32, "batch_size": 16, "epochs": 8}
    run = compressor.distill(
        teacher=f"run:{teacher_run}", student="timm:test_efficientnet", student_init="random", out=tmp_path / "run",
        set={"crop_pct": 1.0, "optimizer.lr": 0.01}, progress=told, **start,
    )  # fmt: skip
    assert (run.out / "student.safetensors").read_bytes() == (student_run / "student.safetensors").read_bytes()
    assert any(note.startswith("data folder:") for note in told.notes)
    table = compressor.predict(teacher=run.reference, data=start["data"], out=tmp_path / "answers.csv", progress=told)
    assert isinstance(table, compressor.PredictionsResult)
    typed = kdc("predict", "--teacher", run.reference, "--data", start["data"], "--out", tmp_path / "b.csv", "--json")
    assert json.loads(typed.out) | {"out": str(table.out)} == table.to_dict()
    assert table.out.read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (table.reference, table.validation.n) == (f"outputs:{table.out}", json.loads(typed.out)["validation"]["n"])
    made = compressor.export(
        run.out, profile=here, out=tmp_path / "bundle", target="onnxruntime", rounds=12, throughput=False, progress=told
    )
    assert {row.runtime for row in made.report.rows if row.role == "student"} == {"onnxruntime"}
    assert made.to_dict() == compressor.check(made.bundle).to_dict()
    assert compressor.check(made.bundle).exit_code == made.exit_code == kdc("check", made.bundle).code
    again = compressor.measure(made.bundle, rounds=12, throughput=False, progress=told)
    assert again.report.session is not None
    assert again.report.session.rounds >= 12
    capsys.readouterr()
    assert compressor.check(made.bundle).verdict == again.verdict
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_what_a_machine_lacks(kdc: Kdc) -> None:
    done = compressor.doctor(profile="android-snapdragon-8gen3")
    typed = kdc("doctor", "--profile", "android-snapdragon-8gen3", "--json")
    assert (done.exit_code, done.passed) == (typed.code, not done.missing)
    kinds = json.loads(typed.out)
    assert [row["name"] for row in done.to_dict()["runtimes"]] == [row["name"] for row in kinds["runtimes"]]
    assert "<pre>" in done._repr_html_()


def test_the_runtimes_that_it_imports_report_to_nobody() -> None:
    """Each has a thread for that, where nothing forbids it."""
    pytest.importorskip("openvino")
    code = """
import os
import numpy
before = len(os.listdir("/proc/self/task"))
import compressor
import onnxruntime, openvino
print(len(os.listdir("/proc/self/task")) - before)
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
