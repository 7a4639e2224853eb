"""The arrows that must never be (docs/architecture.md): who may import whom, read from the source text."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compressor.export.base import Builder
from compressor.export.builders import builder_of
from compressor.runtimes import RUNTIMES as TABLE
from compressor.runtimes import Runtime

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "compressor").rglob("*.py"))
TARGETS = sorted((ROOT / "targets").glob("*.py"))
# What runs models or makes them run, as the rows say; the libraries of the field belong to no runtime.
RUNTIMES = {name for row in TABLE.values() for name in (row.module, *row.exports_with, *row.quantizes_with)} - {"numpy"}
LEARNING = {"torch", "torchvision", "timm", "transformers"}


def imports(path: Path, *, module_level: bool = False) -> set[str]:
    """Every dotted name that the file imports; a string given to `needs` counts as one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if module_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "needs":
            found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def part(path: Path) -> str:
    """compressor/report/gate.py -> report; compressor/errors.py -> errors."""
    inside = path.relative_to(ROOT / "compressor").parts
    return inside[0].removesuffix(".py")


def package_parts(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("compressor.")}


def scripts_of(row: Runtime) -> set[str]:
    """The scripts in targets/ that run a runtime's models, and that alone may import it."""
    named = {row.runner, row.build or "", *((row.example.python, *row.example.beside) if row.example else ())}
    return named - {""}


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", TARGETS, ids=ids)
def test_targets_need_only_numpy_and_their_own_runtime(path: Path) -> None:
    own = {row.module for row in TABLE.values() if path.name in scripts_of(row)}
    if path.stem.startswith("classify_"):
        own.add("PIL")  # Pillow reads the pictures of users
    beside = {script.stem for script in TARGETS} | {"targets"}
    foreign = tops(imports(path)) - set(sys.stdlib_module_names) - {"numpy"} - own - beside
    assert not foreign


@pytest.mark.parametrize("path", PACKAGE, ids=ids)
def test_the_package_imports_no_script_and_runs_no_model(path: Path) -> None:
    found = tops(imports(path))
    assert "targets" not in found
    if part(path) != "export":
        assert not found & RUNTIMES
    assert not tops(imports(path, module_level=True)) & RUNTIMES


@pytest.mark.parametrize(
    "path",
    [p for p in PACKAGE if part(p) in {"schema", "errors", "report", "measure", "stats", "profiles"}],
    ids=ids,
)
def test_the_gate_needs_no_learning_library(path: Path) -> None:
    assert not tops(imports(path)) & LEARNING


@pytest.mark.parametrize("path", [p for p in PACKAGE if part(p) == "losses"], ids=ids)
def test_losses_see_tensors_only(path: Path) -> None:
    assert package_parts(imports(path)) <= {"errors", "losses"}


VERBS = {"distill", "export", "measure", "report"}


@pytest.mark.parametrize("path", [p for p in PACKAGE if part(p) in VERBS], ids=ids)
def test_the_verbs_do_not_import_each_other(path: Path) -> None:
    assert not package_parts(imports(path)) & (VERBS - {part(path)})


@pytest.mark.parametrize("path", [p for p in PACKAGE if part(p) not in {"cli", "__main__"}], ids=ids)
def test_nothing_imports_the_command_line(path: Path) -> None:
    assert "cli" not in package_parts(imports(path))


@pytest.mark.parametrize("path", [p for p in PACKAGE if part(p) not in {"cli", "terminal", "processes"}], ids=ids)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    if ids(path) == "compressor/export/quiet.py":
        pytest.skip("it keeps others from printing")
    assert not list(printing(path))


PRINTING = {"sys.exit", "os._exit", "sys.stdout", "sys.stderr"}


def printing(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and node.id in {"print", "exit", "quit", "SystemExit"}:
            yield node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {
            "sys.exit",
            "os._exit",
            "sys.stdout",
            "sys.stderr",
        }:
            yield node.lineno


def test_every_script_and_builder_that_a_row_names_is_there() -> None:
    for row in TABLE.values():
        assert scripts_of(row) <= {path.name for path in TARGETS}
        assert isinstance(builder_of(row.name), Builder)
        assert ("int8" in row.precisions) == (builder_of(row.name).quantizer is not None)
        assert set(builder_of(row.name).dynamic_batch) <= set(row.precisions)


def test_the_engine_knows_neither_pixels_nor_tokens() -> None:
    for path in [*(ROOT / "compressor" / "distill" / "loop").glob("*.py"), ROOT / "compressor" / "tasks" / "base.py"]:
        found = imports(path)
        assert not package_parts(found) & {"data", "models"}, path
        assert not tops(found) & {"PIL", "torchvision", "transformers"}, path


@pytest.mark.parametrize(
    "module", ["compressor", "compressor.cli.app", "compressor.report", "compressor.measure.session"]
)
def test_heavy_libraries_stay_out(module: str) -> None:
    code = f"import {module}, sys; print(sorted({{'torch', 'timm', 'transformers', 'onnx'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_module_is_long() -> None:
    long = {ids(path): count for path in (*PACKAGE, *TARGETS) if (count := len(path.read_text().splitlines())) > 320}
    assert not long
