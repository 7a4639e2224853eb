"""A runtime that takes its process with it: the row says so, it is not tried for ever, and everything else goes on."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import compressor.assets
from compressor.files.bundle_folder import counted
from compressor.measure.devices import parse_device
from compressor.processes import runner as runner_module
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.report import build_report
from compressor.report.next_step import next_step
from compressor.schema.students import Figures, Wish
from compressor.students import Wanted, skeletons, students
from compressor.students.kept import all_kept
from tests.kit import Ended

pytestmark = pytest.mark.slow
Kdc = Callable[..., Ended]
ROOT = Path(__file__).resolve().parents[1]
DIED = f"its process died (signal {signal.SIGSEGV.value})"
DEADLY = (
    "import os, signal\nfrom compressor.students import exporting\nmade = exporting._artefact\n"
    "def deadly(source, runtime, precision, folder):\n"
    "    if precision == 'int8':\n        os.kill(os.getpid(), signal.SIGSEGV)\n"
    "    return made(source, runtime, precision, folder)\n"
    "exporting._artefact = deadly\n"
)
"""In front of a worker's code: to export in int8 ends the process."""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Of this machine, one runtime in fp32 and int8, and a budget that is easy to hold."""
    path = tmp_path / "quick.yaml"
    values = json.loads(load_profile("x86-avx2").model_dump_json(exclude_none=True)) | {
        "name": "quick", "input_size": 32, "threads": 1, "budget": {"size_mb": 20.0, "min_speedup": 0.001},
        "targets": [{"runtime": "onnxruntime", "precisions": ["fp32", "int8"]}],
    }  # fmt: skip
    path.write_text(json.dumps(values))
    return path


@pytest.fixture
def deadly_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts, of which onnxruntime's runner dies where it loads a model in int8; a line each time it does."""
    scripts = Path(shutil.copytree(ROOT / "targets", tmp_path / "targets"))
    told, script = tmp_path / "deaths", scripts / "run_ort.py"
    text, first = script.read_text(), "    sessions = [ort.InferenceSession"
    assert text.count(first) == 1
    deadly = (
        f"    if precision == 'int8':\n        import os, signal\n        open({str(told)!r}, 'a').write('died\\n')\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    script.write_text(text.replace(first, deadly + first))
    told.touch()
    asset_dir = compressor.assets.asset_dir
    for module in (compressor.assets, runner_module):
        monkeypatch.setattr(module, "asset_dir", lambda name: scripts if name == "targets" else asset_dir(name))
    return told


def screened(profile: Path, names: tuple[str, ...]) -> dict[tuple[str, str], Figures]:
    wanted = Wanted(5, (32,), names)
    answer = students(load_profile(str(profile)), wanted, parse_device("local"), python=None, progress=Silent())
    return {(row.figures.student.removeprefix("timm:"), row.figures.precision): row.figures for row in answer.rows}


@pytest.mark.usefixtures("asked_once")
@pytest.mark.parametrize("names", [("lcnet_035",), ("lcnet_035", "lcnet_050")])
def test_a_candidate_that_dies_while_it_is_exported(
    names: tuple[str, ...], profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One alone, too: it is not exported in kdc's own process."""
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(skeletons, "WORKER", DEADLY + skeletons.WORKER)
    rows = screened(profile, names)
    for name in names:
        assert rows[name, "fp32"].error is None
        assert rows[name, "fp32"].p50_ms is not None
        assert rows[name, "int8"].error == f"{DIED} while it was exported"
    assert {row.figures.precision for row in all_kept(tmp_path / "cache" / "students")} == {"fp32"}
    monkeypatch.undo()
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    assert screened(profile, names)[names[0], "int8"].error is None, "the next call tries it again"


def test_one_that_dies_before_any_variant_has_no_row_that_is_whole(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once, and not for each of its variants."""
    told = tmp_path / "asked"
    dying = (
        "import os, signal, sys\nsys.stdin.readline(), sys.stdin.readline()\n"
        f"open({str(told)!r}, 'a').write('asked\\n')\nos.kill(os.getpid(), signal.SIGSEGV)"
    )
    monkeypatch.setattr(skeletons, "WORKER", dying)
    pairs = (("onnxruntime", "fp32"), ("onnxruntime", "int8"))
    wish = Wish(task="image-classification", name="lcnet_035", family="-", input_size=32, classes=5, variants=pairs)
    [made] = skeletons.make_skeletons([wish], load_profile(str(profile)), tmp_path, 2, Silent())
    assert made.failures == dict.fromkeys(wish.names, f"{DIED} while it was exported")
    assert told.read_text() == "asked\n"


@pytest.mark.usefixtures("asked_once")
def test_a_candidate_that_dies_while_it_is_measured(
    profile: Path, deadly_runner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    rows = screened(profile, ("lcnet_035", "lcnet_050"))
    for name in ("lcnet_035", "lcnet_050"):
        assert rows[name, "fp32"].error is None
        assert rows[name, "int8"].error == f"{DIED} during load"
        assert rows[name, "int8"].p50_ms is None
    assert deadly_runner.read_text().count("died") == 2, "once each"


@pytest.mark.usefixtures("asked_once")
def test_an_export_goes_on_and_the_measurement_says_it(
    kdc: Kdc, student_run: Path, profile: Path, deadly_runner: Path, tmp_path: Path
) -> None:
    """int8 is built, and cannot be scored; fp32 ships; and `kdc measure` says the same again."""
    out = tmp_path / "bundle"
    quick = ("--rounds", 11, "--no-throughput")
    ended = kdc("export", student_run, "--profile", profile, "--out", out, "--no-qat", *quick)
    assert ended.code == 1, ended.err  # what was asked for does not run
    assert "none could be scored; the first is kept, and a measurement tells if it runs" in ended.err
    assert f"onnxruntime: {DIED}" in ended.err
    built = deadly_runner.read_text().count("died")
    assert built <= 20, "each candidate once, and once in the measurement"
    report = build_report(counted(out))
    rows = {row.name: row for row in report.rows}
    assert rows["onnxruntime-int8"].error == f"{DIED} during load"
    assert rows["onnxruntime-fp32"].p50_ms is not None
    assert report.winner == "onnxruntime-fp32"
    step = next_step(report)
    assert step is not None
    assert step.command.endswith("--target onnxruntime-fp32")
    again = kdc("measure", out, *quick)
    assert again.code == 1, again.err
    assert deadly_runner.read_text().count("died") == built + 1
    assert {row.name: row.error for row in build_report(counted(out)).rows}["onnxruntime-int8"] == f"{DIED} during load"
