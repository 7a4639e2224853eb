"""The arrows that must never be (docs/architecture.md): who may import whom, read from the source text."""

import ast
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from compressor.export.base import Builder
from compressor.export.builders import builder_of
from compressor.export.language import LanguageBuilder, language_builder_of
from compressor.runtimes import RUNTIMES as TABLE
from compressor.runtimes import Runtime

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "compressor").rglob("*.py"))
TARGETS = sorted((ROOT / "targets").glob("*.py"))
# What runs models or makes them run, as the rows say; the libraries of the field belong to no runtime.
RUNTIMES = {name for row in TABLE.values() for name in (row.module, *row.exports_with, *row.quantizes_with)} - {"numpy"}
LEARNING = {"torch", "torchvision", "timm", "transformers"}


@cache
def parsed(path: Path) -> ast.Module:
    """Never change it."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, module_level: bool = False, typing: bool = True) -> frozenset[str]:
    """Every dotted name that the file imports; a string given to `needs` counts as one. Without `typing`, what stands
    under `if TYPE_CHECKING` is left out."""
    body = parsed(path).body
    if not typing:
        body = [node for node in body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))]
    nodes = body if module_level else [below for node in body for below in ast.walk(node)]
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "needs":
            found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return frozenset(found)


def tops(names: AbstractSet[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def part(path: Path) -> str:
    """compressor/report/gate.py -> report; compressor/errors.py -> errors."""
    inside = path.relative_to(ROOT / "compressor").parts
    return inside[0].removesuffix(".py")


def package_parts(names: AbstractSet[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("compressor.")}


def scripts_of(row: Runtime) -> set[str]:
    """The scripts in targets/ that run a runtime's models, and that alone may import it."""
    named = {row.runner, row.build or ""}
    if row.example is not None:
        named |= {row.example.python, row.example.texts, row.example.sounds, *row.example.beside}
    return named - {""}


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def wrong(paths: Iterable[Path], offence: Callable[[Path], Collection[object]]) -> dict[str, list[object]]:
    """What each of the files does that it may not; files that do nothing of the kind are left out."""
    listed = list(paths)
    assert listed, "no file is looked at"
    return {ids(path): sorted(offences, key=str) for path in listed if (offences := offence(path))}


def inside(*parts: str) -> list[Path]:
    """The files of these parts of the package."""
    return [path for path in PACKAGE if part(path) in parts]


def outside(*parts: str) -> list[Path]:
    return [path for path in PACKAGE if part(path) not in parts]


def test_targets_need_only_numpy_and_their_own_runtime() -> None:
    beside = {script.stem for script in TARGETS} | {"targets"}

    def foreign(path: Path) -> set[str]:
        own = {row.module for row in TABLE.values() if path.name in scripts_of(row)}
        if path.stem.startswith("classify_"):
            own.add("PIL")  # Pillow reads the images of users
        own |= {"text_tokens": {"tokenizers"}, "sound_files": {"soundfile"}}.get(path.stem, set())
        return tops(imports(path)) - set(sys.stdlib_module_names) - {"numpy"} - own - beside

    assert wrong(TARGETS, foreign) == {}


def test_the_package_imports_no_script_and_runs_no_model() -> None:
    assert wrong(PACKAGE, lambda path: tops(imports(path)) & {"targets"}) == {}
    assert wrong(outside("export"), lambda path: tops(imports(path)) & RUNTIMES) == {}
    assert wrong(PACKAGE, lambda path: tops(imports(path, module_level=True)) & RUNTIMES) == {}


def test_openvino_has_one_core_in_a_process() -> None:
    """Several that end out of order leave no stack for signals: see `export.openvino.ir.core`. NNCF's end in order."""
    calls = [
        (path.relative_to(ROOT).as_posix(), ast.unparse(node.func))
        for path in (*PACKAGE, *TARGETS)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("Core", "compile_model")
    ]
    made = sorted(path for path, called in calls if called.endswith("Core"))
    assert made == [
        "compressor/export/openvino/ir.py",
        "targets/classify_ov.py",
        "targets/classify_sounds_ov.py",
        "targets/classify_texts_ov.py",
        "targets/run_ov.py",
    ]
    assert {called for _, called in calls if called.endswith("compile_model")} == {
        "core().compile_model", "core(ov).compile_model", "openvino.Core().compile_model",
    }  # fmt: skip


def test_the_gate_needs_no_learning_library() -> None:
    gate = inside("schema", "errors", "report", "measure", "stats", "profiles")
    assert wrong(gate, lambda path: tops(imports(path)) & LEARNING) == {}


def test_losses_see_tensors_only() -> None:
    assert wrong(inside("losses"), lambda path: package_parts(imports(path)) - {"errors", "losses"}) == {}


VERBS = {"distill", "export", "measure", "report"}


def test_the_verbs_do_not_import_each_other() -> None:
    assert wrong(inside(*VERBS), lambda path: package_parts(imports(path)) & (VERBS - {part(path)})) == {}


def test_nothing_imports_the_command_line() -> None:
    assert wrong(outside("cli", "__main__"), lambda path: package_parts(imports(path)) & {"cli"}) == {}


def test_only_the_command_line_prints_or_exits() -> None:
    silent = [path for path in outside("cli", "terminal", "processes") if path != QUIET]
    assert wrong(silent, lambda path: list(printing(path))) == {}


def test_only_the_command_line_is_built_on_the_python_api() -> None:
    others = outside("cli", "api", "__init__", "__main__")
    assert wrong(others, lambda path: package_parts(imports(path)) & {"api"}) == {}


QUIET = ROOT / "compressor" / "export" / "quiet.py"
"""It keeps others from printing."""
PRINTING = {"sys.exit", "os._exit", "sys.stdout", "sys.stderr"}


def printing(path: Path) -> Iterator[int]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Name) and node.id in {"print", "exit", "quit", "SystemExit"}:
            yield node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node) in PRINTING:
            yield node.lineno


def test_every_script_and_builder_that_a_row_names_is_there() -> None:
    for row in TABLE.values():
        assert scripts_of(row) <= {path.name for path in TARGETS}
        assert not row.generator or TABLE[row.generator].generates
        if row.generates:
            assert isinstance(language_builder_of(row.name), LanguageBuilder)
            continue
        assert isinstance(builder_of(row.name), Builder)
        assert ("int8" in row.precisions) == (builder_of(row.name).quantizer is not None)
        assert set(builder_of(row.name).dynamic_batch) <= set(row.precisions)


def test_the_engine_knows_neither_pixels_nor_tokens() -> None:
    for path in (ROOT / "compressor" / "distill" / "loop").glob("*.py"):
        found = imports(path)
        assert not package_parts(found) & {"data", "models"}, path
        assert not tops(found) & {"PIL", "torchvision", "transformers"}, path


def test_the_seam_knows_no_task() -> None:
    for path in (ROOT / "compressor" / "tasks").glob("*.py"):
        found = imports(path, typing=False)
        assert "models" not in package_parts(found), path
        assert not tops(found) & {"PIL", "torchvision", "timm", "transformers"}, path


@pytest.mark.parametrize(
    "module",
    [
        "compressor",
        "compressor.cli.app",
        "compressor.report",
        "compressor.report.language",
        "compressor.measure.session",
        "compressor.measure.language",
        "compressor.language_bundles",
    ],
)
def test_heavy_libraries_stay_out(module: str) -> None:
    code = f"import {module}, sys; print(sorted({{'torch', 'timm', 'transformers', 'onnx'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


CONCRETE = sorted(path.parent.name for path in (ROOT / "compressor" / "tasks").glob("*/__init__.py"))


def test_nothing_imports_a_concrete_task() -> None:
    """The table names them, and imports them when they are asked for."""

    def concrete(path: Path) -> set[str]:
        own = path.relative_to(ROOT / "compressor").parts[:2]
        others = {f"compressor.tasks.{name}" for name in CONCRETE if own != ("tasks", name)}
        return {name for name in imports(path) if any(name == one or name.startswith(f"{one}.") for one in others)}

    seam = ROOT / "compressor" / "tasks"
    assert wrong([path for path in PACKAGE if path.parent != seam], concrete) == {}


def test_what_is_below_the_tasks_knows_none() -> None:
    assert wrong(inside("losses", "schema", "stats"), lambda path: package_parts(imports(path)) & {"tasks"}) == {}


def unit(path: Path) -> str:
    """A folder or module of the package; of tasks, the seam is one, and each task another."""
    inside = path.relative_to(ROOT / "compressor").with_suffix("").parts
    return "tasks/" + (inside[1] if inside[1] in CONCRETE else "seam") if inside[0] == "tasks" else inside[0]


def test_no_import_runs_in_a_circle() -> None:
    """Between the folders of the package, wherever in a file the import stands; what only types need is left out."""
    known = {".".join(p.relative_to(ROOT).with_suffix("").parts): unit(p) for p in PACKAGE}
    known |= {name.removesuffix(".__init__"): own for name, own in known.items() if name.endswith(".__init__")}
    graph: dict[str, set[str]] = {}
    for path in PACKAGE:
        found = {known[name] for name in imports(path, typing=False) if name in known}
        graph.setdefault(unit(path), set()).update(found - {unit(path), "__init__"})
    assert list(TopologicalSorter(graph).static_order())


def test_no_module_is_long() -> None:
    long = {ids(path): count for path in (*PACKAGE, *TARGETS) if (count := len(path.read_text().splitlines())) > 320}
    assert not long


def test_no_function_takes_many_arguments_by_position() -> None:
    many = {f"{ids(path)} {name}" for path in (*PACKAGE, *TARGETS) for name in takers(path, more_than=7)}
    # The command line's functions are its flags.
    assert not {function for function in many if not function.startswith("compressor/cli/")}


def takers(path: Path, more_than: int) -> Iterator[str]:
    """The functions that take so many arguments by position, `self` left out."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            if len(names) - (names[:1] in (["self"], ["cls"])) > more_than:
                yield node.name


LONG = {
    # A parameter an option.
    "compressor/api/predicting.py predict",
    "compressor/cli/predict.py predict",
    "compressor/cli/ship.py export",
    "compressor/cli/train.py distill",
    # One value after the other into a noun; parts of it would mean nothing alone.
    "compressor/deploy/folder.py _written",
}


def test_no_function_is_long() -> None:
    """About 40 lines beside its docstring; a longer one stands in LONG, with a reason."""
    long = {
        f"{ids(path)} {name}": lines for path in (*PACKAGE, *TARGETS) for name, lines in lengths(path) if lines > 45
    }
    assert {name: lines for name, lines in long.items() if name not in LONG} == {}
    assert set(long) >= LONG, "no longer long: take it out"


def lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Every function and its lines, without its docstring."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            documented = len((ast.get_docstring(node, clean=False) or "").splitlines())
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - documented


PRONOUNS = {"how", "one", "own", "found", "place"}
# Names that are keys on disk: of a bundle's manifest, and of the state that a run is resumed from.
ON_DISK = {"compressor/schema/quantization.py how", "compressor/distill/features/connectors.py own"}


def test_names_are_nouns() -> None:
    """`found` says that something was found, not what it is."""
    names = {f"{ids(path)} {name}" for path in (*PACKAGE, *TARGETS) for name in bound(path) if name in PRONOUNS}
    assert sorted(names - ON_DISK) == []
    assert names >= ON_DISK, "no longer there: take it out"


def bound(path: Path) -> Iterator[str]:
    """Every name that the file gives something: variables, parameters, fields and attributes, functions, classes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name
