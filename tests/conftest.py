"""Shared: `kdc` called in this process, and one small teacher, student and bundle that many tests look at."""

import compileall
import functools
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer.main

from compressor.assets import asset_dir
from compressor.measure import constants, doctor, session
from compressor.measure.devices import local
from compressor.measure.machine import runtime_info, this_machine
from compressor.processes import python as processes
from compressor.profiles import write_new_profile
from compressor.report.checks import conditions
from compressor.schema.base import read_json, write_json
from compressor.schema.doctor import Diagnosis
from tests.forked import FOLDER, begun, interpreter, python
from tests.kept_graphs import KEPT_GRAPHS
from tests.kit import TRAINING, Ended, call, write_colours
from tests.shared import each_graph_once, each_registry_once, made_once, shared_folder

pytest_plugins = ["tests.image_fixtures", "tests.model_fixtures"]

AA_BIAS = conditions.AA_BIAS

WHOLE_WAY = {"teacher_run", "student_run", "finished_bundle", "installed"}
"""Fixtures that train, export or build: what needs one of them is slow."""
WHOLE_PROCESSES = {
    "test_export_onnx", "test_export_openvino_int8", "test_measure_devices_adb", "test_measure_devices_doctor",
    "test_measure_by_force", "test_measure_devices_ssh", "test_measure_local", "test_measure_ssh",
    "test_measure_ssh_devices",
    "test_quantization_squeeze_excite",
    "test_targets_agent", "test_targets_bench", "test_targets_events", "test_targets_lock", "test_targets_runners",
}  # fmt: skip
"""Modules whose tests export networks or start programs (runtimes, servers, bench.py): all of them are slow."""
REALLY_STARTED = {
    "test_measure_by_force", "test_measure_devices_local", "test_measure_local", "test_measure_machine",
    "test_processes_runner",
}  # fmt: skip
"""Modules about the processes of bench.py and of the runners."""
STARTERS = ("compressor.measure.devices.local", "compressor.measure.machine", "compressor.processes.runner")
"""The modules of kdc that start them."""


BEGUN_FIRST = (
    "test_kill_points", "test_every_precision", "test_distill_processes", "test_ci_examples", "test_additions",
    "test_text_export", "test_cli", "test_distill_api", "test_export_executorch", "test_export_by_force",
    "test_distill_terms", "test_targets_whole_way", "test_examples", "test_export_qat", "test_distill_specialists",
    "test_text_whole_way", "test_export_skeletons", "test_deploy_mobile", "test_explain_whole_way",
    "test_terminal_console", "test_quantization_squeeze_excite", "test_measure_by_force", "test_export_quick",
    "test_bundle_change", "test_export_onnx", "test_measure_local", "test_measure_ssh", "test_export_openvino_int8",
    "test_nouns", "test_distill_kills", "test_students_whole_way", "test_distill_qat", "test_memory",
    "test_distill_resources", "test_export_openvino", "test_second_task", "test_predictions_whole_way",
    "test_deploy_clean", "test_distill_run_folder", "test_targets_agent", "test_targets_bench",
)  # fmt: skip
"""Modules that take longest, so that two workers, each with whole modules, come to their end together. The first needs
nothing that the second makes."""


def pytest_configure(config: pytest.Config) -> None:
    """A place for the servers that fork programs (forked.py), of all worker processes."""
    if FOLDER not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="kdc-", ignore_cleanup_errors=True)
        os.environ[FOLDER] = folder.name

        def end() -> None:
            del os.environ[FOLDER]
            folder.cleanup()

        config.add_cleanup(end)


class Forking:
    """What those modules need of `sys`. The servers are started where it is asked for."""

    @property
    def executable(self) -> str:
        return str(interpreter())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """bench.py and the runners are forked where a slow test is not about them: importing a runtime is most of what
    they do. Those that they start are forked too. What is quick forks nothing. And windows of throughput are a fifth of
    what they are: how much goes through counts for nothing here."""
    if item.get_closest_marker("slow") is None or item.path.stem in REALLY_STARTED:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        for module in STARTERS:
            patch.setattr(import_module(module), "sys", Forking())
        bench = local.LocalLink.bench
        patch.setattr(local.LocalLink, "bench", lambda link, arguments: bench(link, [*arguments, "--window", "0.1"]))
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if WHOLE_WAY & set(getattr(item, "fixturenames", ())) or item.path.stem in WHOLE_PROCESSES:
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {name: place for place, name in enumerate(BEGUN_FIRST)}

    def place(item: pytest.Item) -> tuple[int, bool]:
        return places.get(item.path.stem, len(places)), item.path not in slow

    items.sort(key=place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What has been imported and collected stays to the end: looking through it for garbage takes half a second, each
    time. And torch.export makes hundreds of thousands of objects, few of them garbage: they are looked through less
    often than Python does by itself. Workers will need the servers of forked.py, and nobody shall wait for them."""
    gc.freeze()
    gc.set_threshold(50_000)
    if hasattr(session.config, "workerinput") and any(item.get_closest_marker("slow") for item in session.items):
        begun()


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> Iterator[None]:
    """Also for the processes that tests start: under nohup, or in a shell's background, they would ignore what they are
    sent."""
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items() if ignored(number)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_of_a_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each worker has its own, and with them its own lock for measurements: figures count for nothing here, so that two
    workers may measure at once. In one process too: else its tests would wait for whatever else measures on this
    machine, and fail where that takes more than ten minutes."""
    folder = tmp_path_factory.getbasetemp() / "tmp"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def _caches_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Not the user's; also for the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDC_CACHE", str(tmp_path_factory.mktemp("cache")))
        graphs = shared_folder(tmp_path_factory) / "graphs"
        graphs.mkdir(exist_ok=True)
        patch.setenv(KEPT_GRAPHS, str(graphs))
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_exports() -> Iterator[None]:
    with each_registry_once(), each_graph_once():
        yield


@pytest.fixture(scope="module")
def real_exports() -> Iterator[None]:
    """Of modules that are about what torch.onnx.export makes: each network is followed each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(KEPT_GRAPHS)
        yield


@pytest.fixture(scope="session", autouse=True)
def _runners_are_compiled() -> None:
    """Once, and not in each of a thousand processes: they keep no bytecode themselves, since in a bundle it would be
    this machine's."""
    compileall.compile_dir(asset_dir("targets"), maxlevels=0, quiet=1)


@pytest.fixture(scope="session", autouse=True)
def _programs_of_kdc_are_forked() -> Iterator[None]:
    """Where kdc starts kdc. test_processes_python has the real commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "python_command", forked_command)
        yield


def forked_command(code: str) -> list[str]:
    return [*python(), "-c", f"{processes.SAFE}\n{code}"]


@pytest.fixture(scope="session", autouse=True)
def _few_fresh_starts() -> Iterator[None]:
    """bench.py starts each contestant once beside the process that it measures in, and not twice: starting is most of
    what measuring something tiny takes, and how long it takes counts for nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Samples", functools.partial(session.Samples, fresh_starts=1))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_machine_is_too_busy() -> Iterator[None]:
    """Where other work sets an artefact apart from its twin (A/A), kdc leaves the lines on latency open. That is right,
    and would let any test of something else fail on a busy machine. `honest_bias` is for those that are about it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions, "AA_BIAS", 1e9)
        yield


@pytest.fixture(scope="session", autouse=True)
def _the_command_line_is_read_once() -> Iterator[None]:
    """typer makes the commands and their options anew from the functions' signatures in each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def honest_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """As kdc has it."""
    monkeypatch.setattr(conditions, "AA_BIAS", AA_BIAS)


@pytest.fixture
def kdc(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`kdc("check", "bundle")`: the command line, in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = call(*arguments)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def _diagnosis(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Diagnosis]:
    """Of a torch that is imported already: test_measure_doctor asks as kdc does."""
    diagnose = doctor.diagnose

    def ask(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(doctor, "python_command", forked_command)
            write_json(folder / "doctor.json", diagnose())

    return lambda: read_json(made_once(tmp_path_factory, "doctor", ask) / "doctor.json", Diagnosis)


@pytest.fixture
def asked_once(_diagnosis: Callable[[], Diagnosis], monkeypatch: pytest.MonkeyPatch) -> None:
    """kdc asks every runtime of this machine, each in a process of its own; here once, and not in each test. And what
    it computes at most is measured in one round, and not in five."""
    for module in ("compressor.measure.doctor", "compressor.students.api"):
        monkeypatch.setattr(import_module(module), "diagnose", _diagnosis)
    monkeypatch.setattr(constants, "ROUNDS", 1)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of three classes."""
    return made_once(tmp_path_factory, "data", lambda folder: write_colours(folder / "colours")) / "colours"


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory, colours: Path) -> Path:
    """A teacher of them, trained in about a second. Never change it."""

    def make(folder: Path) -> None:
        code = call(
            "teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", "--data", f"folder:{colours}",
            "--epochs", 8, "--out", folder / "teacher", *TRAINING, "--set", "head_epochs=0",
            "--set", "optimizer.lr=0.01",
        )  # fmt: skip
        assert code == 0

    return made_once(tmp_path_factory, "teacher", make) / "teacher"


@pytest.fixture(scope="session")
def student_run(tmp_path_factory: pytest.TempPathFactory, colours: Path, teacher_run: Path) -> Path:
    """Its student, trained in about a second. Never change it."""

    def make(folder: Path) -> None:
        code = call(
            "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}",
            "--student", "timm:test_efficientnet", "--student-init", "random",
            "--epochs", 8, "--out", folder / "run", *TRAINING, "--set", "optimizer.lr=0.01",
        )  # fmt: skip
        assert code == 0

    return made_once(tmp_path_factory, "student", make) / "run"


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of this machine, in float, with a budget that is easy to hold. Never change it."""

    def make(folder: Path) -> None:
        available = {
            name: [precision for precision in runtime_info(name).precisions if precision != "int8"]
            for name in ("onnxruntime", "openvino")
        }
        budget = ["budget.p50_ms=1000", "budget.size_mb=20", "budget.min_retention=0.5"]
        write_new_profile("here", folder, this_machine(), available, budget)

    return made_once(tmp_path_factory, "profile", make) / "here.yaml"


@pytest.fixture(scope="session")
def finished_bundle(tmp_path_factory: pytest.TempPathFactory, student_run: Path, here: Path) -> Path:
    """The student for two runtimes, measured in about ten seconds. Never change it: take `bundle` for that."""

    def make(folder: Path) -> None:
        out = folder / "bundle"
        assert call("export", student_run, "--profile", here, "--out", out, "--rounds", 12, "--no-throughput") == 0

    return made_once(tmp_path_factory, "bundle", make) / "bundle"


@pytest.fixture
def bundle(finished_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the finished bundle, to do anything to."""
    return Path(shutil.copytree(finished_bundle, tmp_path / "bundle"))
