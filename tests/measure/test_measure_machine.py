import json
import sys
from pathlib import Path

import pytest

from compressor.errors import EXIT_MISSING, EXIT_USAGE, KdcError
from compressor.install import install_line
from compressor.measure import machine as module
from compressor.measure.machine import RuntimeInfo, last_line, runtime_info, this_machine
from tests.kit import MACHINE as BOARD

MACHINE = BOARD.model_copy(
    update={"cpu": "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)", "isa": ("asimd", "asimddp")}
).model_dump(mode="json")


@pytest.fixture
def targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "asset_dir", lambda name: tmp_path)
    return tmp_path


def runner(targets: Path, reply: object) -> None:
    """A runner that answers `reply` when asked for info, and fails on everything else."""
    (targets / "run_ov.py").write_text(
        "import json, sys\n"
        "assert json.loads(sys.stdin.readline()) == {'op': 'info'}\n"
        f"print(json.dumps({reply!r}))\n",
        encoding="utf-8",
    )


def failure() -> KdcError:
    with pytest.raises(KdcError) as caught:
        runtime_info("openvino")
    assert caught.value.exit_code == EXIT_MISSING
    return caught.value


def test_this_machine_is_parsed(targets: Path) -> None:
    (targets / "bench.py").write_text(
        f"import json, sys\nassert sys.argv[1:] == ['--info']\nprint(json.dumps({MACHINE!r}, indent=2))\n",
        encoding="utf-8",
    )
    machine = this_machine()
    assert machine.cpu == "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"
    assert machine.isa == ("asimd", "asimddp")
    assert machine.load_1m is None


def test_a_machine_that_lacks_a_key(targets: Path) -> None:
    text = json.dumps({key: value for key, value in MACHINE.items() if key != "cpu"})
    (targets / "bench.py").write_text(f"print({text!r})\n", encoding="utf-8")
    with pytest.raises(KdcError, match=r"^targets/bench.py --info: key cpu is missing$") as caught:
        this_machine()
    assert caught.value.exit_code == EXIT_USAGE


def test_a_crash_gives_the_last_line_of_stderr(targets: Path) -> None:
    (targets / "bench.py").write_text(
        "import sys\nprint('on the way')\nraise ValueError('no /proc')\n", encoding="utf-8"
    )
    with pytest.raises(KdcError) as caught:
        this_machine()
    assert caught.value.message == "targets/bench.py failed (1): ValueError: no /proc"
    assert caught.value.exit_code == EXIT_MISSING


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed(targets: Path) -> None:
    (targets / "run_ov.py").write_text("import os\nos.kill(os.getpid(), 9)\n", encoding="utf-8")
    assert failure().message == "targets/run_ov.py was killed by signal 9: it said nothing"


def test_no_answer_in_time(targets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    (targets / "run_ov.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    assert failure().message == "targets/run_ov.py did not answer within 0.3 s"


def test_no_json(targets: Path) -> None:
    (targets / "run_ov.py").write_text("print('hello')\n", encoding="utf-8")
    assert failure().message == "targets/run_ov.py answered no JSON object: 'hello\\n'"
    (targets / "run_ov.py").write_text("", encoding="utf-8")
    assert failure().message == "targets/run_ov.py answered no JSON object: ''"


def test_a_runtime_that_works(targets: Path) -> None:
    runner(targets, {"ok": True, "runtime": "openvino", "version": "2026.4", "precisions": ["f32"], "machine": {}})
    assert runtime_info("openvino") == RuntimeInfo("openvino", "2026.4", ("f32",))


def test_only_the_first_line_counts(targets: Path) -> None:
    (targets / "run_ov.py").write_text(
        'print(\'{"ok": true, "version": "1", "precisions": []}\')\nprint(\'{"ok": false}\')\n', encoding="utf-8"
    )
    assert runtime_info("openvino") == RuntimeInfo("openvino", "1", ())


def test_a_runtime_that_is_missing(targets: Path) -> None:
    message = "pip install openvino (cannot import openvino: No module named 'openvino')"
    runner(targets, {"ok": False, "kind": "missing", "message": message})
    error = failure()
    assert error.message == "openvino does not work here: cannot import openvino: No module named 'openvino'"
    assert error.hint == install_line("openvino", "nncf")


def test_a_runtime_that_fails(targets: Path) -> None:
    runner(targets, {"ok": False, "kind": "failed", "message": "RuntimeError: no CPU plugin (broken)"})
    assert failure().message == "openvino does not work here: RuntimeError: no CPU plugin (broken)"
    runner(targets, {"ok": True})
    assert failure().message == "targets/run_ov.py gave an answer without version and precisions"
    runner(targets, {"ok": False})
    assert failure().message == "openvino does not work here: it gave no reason"


def test_runtimes_that_kdc_does_not_have() -> None:
    with pytest.raises(KdcError, match="unknown runtime openvin; did you mean openvino") as caught:
        runtime_info("openvin")
    assert caught.value.exit_code == EXIT_USAGE
    with pytest.raises(KdcError, match="ncnn") as caught:
        runtime_info("ncnn")
    assert caught.value.exit_code == EXIT_MISSING


def test_last_line() -> None:
    assert last_line("a\n b \n\n") == "b"
    assert last_line(" \n") == "it said nothing"


def test_the_real_scripts() -> None:
    machine = this_machine()
    assert machine.usable_cores <= machine.cores
    assert machine.memory_gb > 0
    assert machine.python == ".".join(str(part) for part in sys.version_info[:3])
    info = runtime_info("onnxruntime")
    assert {"fp32", "int8"} <= set(info.precisions)
    assert info.version[0].isdigit()
