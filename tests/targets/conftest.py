"""Fixtures of the contract tests: the scripts copied as they travel to a device, and an environment that is as bare."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.targets.tiny_bundle import Tiny, make_tiny
else:
    from tiny_bundle import make_tiny

TARGETS = Path(__file__).resolve().parents[2] / "targets"

# Python imports a module `sitecustomize` at its start. This one makes the modules named in BLOCKED impossible to
# import, although they are installed here: compressor always, a runtime where a test wants it missing.
BLOCKER = """
import os, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ["BLOCKED"].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""
NEVER = "compressor torch timm transformers pydantic onnx"


class Runner:
    """A runner process, as bench.py holds one. `ask` returns the reply to one request."""

    def __init__(self, script: Path, cwd: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def send(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        reply: dict[str, Any] = json.loads(self.process.stdout.readline())
        return reply

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        return self.send(json.dumps({"op": op, **fields}))

    def cpu_ticks_in(self, seconds: float) -> int:
        """CPU time, in clock ticks of all its threads, that it uses in the next `seconds`."""
        before = self._ticks()
        time.sleep(seconds)
        return self._ticks() - before

    def _ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def close(self) -> str:
        """End it by end-of-file; whatever it still had to say on stdout."""
        rest, _ = self.process.communicate(timeout=30)
        return rest


StartRunner = Callable[..., Runner]
Environment = Callable[..., dict[str, str]]


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder targets/, alone in a place of its own, as runners/ lies in a bundle."""
    folder = tmp_path_factory.mktemp("device") / "runners"
    folder.mkdir()
    for script in TARGETS.glob("*.py"):
        shutil.copy(script, folder)
    return folder


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment in which compressor, torch and the modules named cannot be imported."""
    folder = tmp_path_factory.mktemp("blocker")
    (folder / "sitecustomize.py").write_text(BLOCKER)

    def environment(*missing: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return {**kept, "PYTHONPATH": str(folder), "BLOCKED": " ".join([NEVER, *missing])}

    return environment


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> "Tiny":
    return make_tiny(tmp_path_factory.mktemp("tiny"))


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
