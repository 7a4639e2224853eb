"""What the scripts are as files: they travel alone, to old Pythons, and say what machine they run on."""

import ast
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TARGETS = Path(__file__).resolve().parents[2] / "targets"
SCRIPTS = sorted(TARGETS.glob("*.py"))
OWN_RUNTIME = {"run_ort.py": "onnxruntime", "run_ov.py": "openvino"}

PI = """processor\t: 0
Features\t: fp asimd evtstrm crc32 fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd0b
processor\t: 1
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""
PHONE = "".join(f"CPU implementer : 0x41\nCPU part : {part}\n" for part in ("0xd80", "0xd81", "0xd81", "0xd82"))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a script by its name, as the scripts do with one another."""
    monkeypatch.syspath_prepend(str(TARGETS))

    def by_name(name: str) -> ModuleType:
        return __import__(name)

    return by_name


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_depends_on_nothing_that_does_not_travel(script: Path) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", *(path.stem for path in SCRIPTS), OWN_RUNTIME.get(script.name, "")}
    tree = ast.parse(script.read_text(encoding="utf-8"), feature_version=(3, 9))
    # `if TYPE_CHECKING:` names the same scripts by their place in the checkout, and never runs.
    never = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for statement in branch.body
        for node in ast.walk(statement)
    }
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in never
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= allowed
    if script.name.startswith("bench"):
        assert not imported & {"runner_common", "onnxruntime", "openvino"}


def test_the_machine_is_a_raspberry_pi(load: Callable[[str], ModuleType]) -> None:
    info = load("machine_info")
    assert info.cpu_name(PI, "Raspberry Pi 5 Model B Rev 1.0\0") == "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    assert info.isa(PI) == ["fp", "asimd", "evtstrm", "crc32", "fphp", "asimdhp", "asimddp"]


def test_the_machine_has_three_kinds_of_cores(load: Callable[[str], ModuleType]) -> None:
    assert load("machine_info").cpu_name(PHONE, "") == "Cortex-A520 + Cortex-A720 + Cortex-X4"


def test_an_unknown_arm_core_keeps_its_number(load: Callable[[str], ModuleType]) -> None:
    name = load("machine_info").cpu_name("CPU implementer : 0x41\nCPU part : 0xfff\n", "")
    assert name == "ARM core 0x41/0xfff"


def test_x86_flags_are_a_selection(load: Callable[[str], ModuleType]) -> None:
    info = load("machine_info")
    text = "model name\t: Intel(R) N100\nflags\t\t: fpu avx2 sse4_2 avx_vnni avx fma hypervisor\n"
    assert info.isa(text) == ["sse4_2", "avx", "avx2", "fma", "avx_vnni"]
    assert info.cpu_name(text, "") == "Intel(R) N100"


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "cpu.max": "400000 100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_usable_cores_follow_the_quota(
    load: Callable[[str], ModuleType], tmp_path: Path, limits: dict[str, str], cores: int | None
) -> None:
    for name, text in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert load("machine_info").quota_cores(tmp_path, "0::/a/b\n") == cores


def test_a_machine_without_proc_and_sys_has_nulls(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = load("machine_info")
    monkeypatch.setattr(info, "_text", lambda path: "")
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.delattr("os.getloadavg")
    found = info.machine()
    assert {key for key, value in found.items() if value is None} >= {"load_1m", "steal_s", "governor", "mhz"}
    assert found["cores"] >= found["usable_cores"] >= 1
    assert found["memory_gb"] > 0


def test_pictures_are_normalized_exactly(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", pictures)
    mean, std = np.array([0.1, 0.5, 0.9], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    batch = np.empty((3, 3, 4, 6), np.float32)
    with closing(load("runner_common").Pictures(str(tmp_path / "x.npy"), mean, std)) as read:
        read.fill(batch, [4, 0, 4])
    expected = ((pictures.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(batch, expected[[4, 0, 4]])


@pytest.mark.parametrize("values", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 3, 4, 4), np.uint8)])
def test_other_arrays_are_no_pictures(
    load: Callable[[str], ModuleType], tmp_path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    np.save(tmp_path / "x.npy", values)
    common = load("runner_common")
    with pytest.raises(common.RequestError, match=r"expected uint8 \[N, H, W, 3\]"):
        common.Pictures(str(tmp_path / "x.npy"), [0, 0, 0], [1, 1, 1])


def test_precisions_that_differ_are_mixed(load: Callable[[str], ModuleType]) -> None:
    mixed = load("runner_common").mixed
    assert mixed(["f32", "bf16", "f32"]) == "mixed bf16+f32"
    assert mixed(["f32", "f32"]) == "f32"


def test_the_readme_knows_every_script_and_operation(load: Callable[[str], ModuleType]) -> None:
    readme = (TARGETS / "README.md").read_text(encoding="utf-8")
    for name in [path.name for path in SCRIPTS] + list(load("runner_common").OPERATIONS):
        assert re.search(rf"`{re.escape(name)}[` ]", readme), name
