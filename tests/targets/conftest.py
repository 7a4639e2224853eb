"""Fixtures of the contract tests: the scripts copied as they travel to a device, and an environment that is as bare."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import STUB, Bench, Environment, LoadScript, Runner, Session, StartBench, StartRunner
    from tests.targets.tiny_bundle import Tiny, make_tiny
else:
    from harness import STUB, Bench, Environment, LoadScript, Runner, Session, StartBench, StartRunner
    from tiny_bundle import make_tiny

TARGETS = Path(__file__).resolve().parents[2] / "targets"

# Python imports a module `sitecustomize` at its start. This one makes the modules named in it impossible to
# import, although they are installed here: compressor always, a runtime where a test wants it missing. The names
# stand in the file: bench.py gives its runners no variable that it does not know.
BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""
NEVER = "compressor torch timm transformers pydantic onnx"


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder targets/, alone in a place of its own, as runners/ lies in a bundle."""
    folder = tmp_path_factory.mktemp("device") / "runners"
    folder.mkdir()
    for script in TARGETS.glob("*.py"):
        shutil.copy(script, folder)
    (folder / "run_stub.py").write_text(STUB)
    return folder


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which compressor, torch and the modules named cannot be imported."""
    temporary = tmp_path_factory.mktemp("tmp")  # another place for the lock than that of real measurements

    def environment(*missing: str, never: str = NEVER) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("blocker")
        blocked = {name for names in (never, *missing) for name in names.split()}
        (folder / "sitecustomize.py").write_text(f"BLOCKED = {blocked!r}\n{BLOCKER}")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return {**kept, "PYTHONPATH": str(folder), "TMPDIR": str(temporary)}

    return environment


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def bundle(tiny: "Tiny", tmp_path: Path) -> Path:
    """A folder with the files that variants name, and no bundle.json yet."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.folder, folder)
    (folder / "broken.onnx").write_bytes(b"\x08\x07 no model")
    return folder


@pytest.fixture
def bench(scripts: Path, bare: Environment, tmp_path: Path) -> Bench:
    """Runs bench.py to its end, beside the bundle."""

    def run(*arguments: str, missing: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(scripts / "bench.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=bare(missing), capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def begin(scripts: Path, bare: Environment, tmp_path: Path) -> Iterator[StartBench]:
    """Starts bench.py with --json, for a dialogue."""
    sessions: list[Session] = []

    def start(*arguments: str) -> Session:
        command = [sys.executable, str(scripts / "bench.py"), *arguments, "--json"]
        sessions.append(Session(command, tmp_path, bare()))
        return sessions[-1]

    yield start
    for session in sessions:
        session.process.kill()
        session.process.wait()
        for pipe in (session.process.stdin, session.process.stdout, session.process.stderr):
            with suppress(BrokenPipeError):  # an answer that was still buffered
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> LoadScript:
    """Imports a script by its name, as the scripts do with one another."""
    monkeypatch.syspath_prepend(str(TARGETS))

    def by_name(name: str) -> ModuleType:
        return __import__(name)

    return by_name


@pytest.fixture
def start(scripts: Path, bare: Environment, tiny: "Tiny") -> Iterator[StartRunner]:
    """Starts runners, in the folder of the models and not in their own; ends them after the test."""
    runners: list[Runner] = []

    def begin(script: str, *missing: str) -> Runner:
        runners.append(Runner(scripts / script, tiny.folder, bare(*missing)))
        return runners[-1]

    yield begin
    for runner in runners:
        runner.process.kill()
        runner.process.communicate()
