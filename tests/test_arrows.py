"""The arrows that must never be: who may import whom, read from the source text (design, "Arrows")."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sorted((ROOT / "compressor").rglob("*.py"))
TARGETS = sorted((ROOT / "targets").glob("*.py"))
RUNTIMES = {
    "openvino",
    "nncf",
    "tensorrt",
    "tensorrt_rtx",
    "onnxruntime",
    "executorch",
    "ai_edge_litert",
    "litert_torch",
}
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


# What the scripts run_NAME, classify_NAME and build_NAME may import beside numpy; Pillow reads the pictures of users.
OWN = {
    "ort": {"onnxruntime", "PIL"},
    "ov": {"openvino", "PIL"},
    "trt": {"tensorrt", "tensorrt_rtx", "cuda", "PIL"},
    "trt_rtx": {"tensorrt_rtx"},
    "et": {"executorch", "PIL"},
    "litert": {"ai_edge_litert", "PIL"},
    "pictures": {"PIL"},
}


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", TARGETS, ids=ids)
def test_targets_need_only_numpy_and_their_own_runtime(path: Path) -> None:
    own = (
        OWN.get(path.stem.partition("_")[2], set()) if path.stem.startswith(("run_", "classify_", "build_")) else set()
    )
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
    [p for p in PACKAGE if part(p) in {"spec", "errors", "report", "measure", "statistics", "profiles"}],
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


@pytest.mark.parametrize("path", [p for p in PACKAGE if p.name != "__main__.py"], ids=ids)
def test_nothing_imports_the_command_line(path: Path) -> None:
    assert "cli" not in package_parts(imports(path))


@pytest.mark.parametrize("path", [p for p in PACKAGE if part(p) not in {"cli", "console", "interruption"}], ids=ids)
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


def test_the_engine_knows_neither_pixels_nor_tokens() -> None:
    for name in ("engine.py", "learner.py", "task.py", "checkpoint.py", "interrupt.py"):
        found = imports(ROOT / "compressor" / "distill" / name)
        assert not package_parts(found) & {"data", "models"}, name
        assert not tops(found) & {"PIL", "torchvision", "transformers"}, name


@pytest.mark.parametrize("module", ["compressor", "compressor.cli", "compressor.report", "compressor.measure.session"])
def test_heavy_libraries_stay_out(module: str) -> None:
    code = f"import {module}, sys; print(sorted({{'torch', 'timm', 'transformers', 'onnx'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_module_is_long() -> None:
    long = {ids(path): count for path in (*PACKAGE, *TARGETS) if (count := len(path.read_text().splitlines())) > 320}
    # The command line holds one function a command, most of it signatures.
    assert set(long) <= {"compressor/cli.py"}


def test_no_function_takes_many_arguments_by_position() -> None:
    many = {f"{ids(path)} {name}" for path in (*PACKAGE, *TARGETS) for name in takers(path, more_than=7)}
    # The command line's functions are its flags.
    assert {one for one in many if not one.startswith("compressor/cli.py ")} <= {
        "compressor/distill/specialists.py _finish",
        "compressor/export/bundle.py _fill",
    }


def takers(path: Path, more_than: int) -> Iterator[str]:
    """The functions that take so many arguments by position, `self` left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            if len(names) - (names[:1] in (["self"], ["cls"])) > more_than:
                yield node.name
