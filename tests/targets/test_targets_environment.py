"""What a runner gets of the environment, and what is no fault of a model that is measured."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from compressor.processes import child_environment

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript

TARGETS = Path(__file__).resolve().parents[2] / "targets"

SECRETS = {
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GITHUB_TOKEN",
    "GH_TOKEN", "WANDB_API_KEY", "TF_TOKEN_app_terraform_io", "TF_VAR_password", "NVIDIA_API_KEY", "LC_SECRET",
    "MY_VAR", "OMP_TOKEN", "CUDA_PASSWORD", "SSH_AUTH_SOCK", "PYTHONSTARTUP", "PYTHONINSPECT", "http_proxy",
    "DATABASE_URL",
}  # fmt: skip
NEEDED = {
    "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "VIRTUAL_ENV",
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "MALLOC_ARENA_MAX", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "XDG_CACHE_HOME", "SYSTEMROOT",
}  # fmt: skip


def test_the_two_lists_are_one(load: "LoadScript") -> None:
    script = load("runner_environment")
    assert script.NAMES == child_environment.NAMES
    assert script.FAMILIES == child_environment.FAMILIES
    assert script.SECRET.pattern == child_environment.SECRET.pattern
    assert script.SILENT == child_environment.SILENT


def test_a_child_gets_what_it_needs_and_no_secret(load: "LoadScript") -> None:
    given = dict.fromkeys(SECRETS | NEEDED, "value")
    for found in (load("runner_environment").runner_environment(given), child_environment.child_environment(given)):
        assert found == dict.fromkeys(NEEDED, "value") | {"ORT_DISABLE_TELEMETRY": "1"}


def test_what_the_user_says_of_reports_to_makers_holds(load: "LoadScript") -> None:
    given = {"ORT_DISABLE_TELEMETRY": "0"}
    for found in (load("runner_environment").runner_environment(given), child_environment.child_environment(given)):
        assert found == given


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_started_by_hand_reports_to_nobody(runtime: str) -> None:
    """Each has a thread for that, which numpy alone has not."""
    code = f"""
import os, sys
sys.path.insert(0, {str(TARGETS)!r})
import runner_common as common
before = len(os.listdir("/proc/self/task"))
common.Session(common.Runtime({runtime!r}, "", (), lambda module: [], lambda *_: None))._module()
assert {runtime!r} in sys.modules
print(len(os.listdir("/proc/self/task")) - before)
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ran.stdout.strip(), ran.stderr) == ("0", "")


def test_no_file_is_full_by_a_models_fault(load: "LoadScript") -> None:
    process = load("runner_process")
    full: dict[int, str] = {}
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES):

        class Session:
            def predict(self, request: Any, number: int = number) -> None:
                raise OSError(number, os.strerror(number))

        full[number] = process.answer(Session(), b'{"op": "predict"}')[0]["kind"]
    assert full == {errno.ENOSPC: "disk", errno.EDQUOT: "disk", errno.EFBIG: "disk", errno.EACCES: "failed"}

    runner = load("bench_runner")
    for kind, wanted in (("disk", "BenchError"), ("failed", "RunnerError")):

        def refuses(*_: object, kind: str = kind, **__: object) -> None:
            raise runner.RunnerError("No space left on device", kind)

        one = SimpleNamespace(
            variant={"inputs": "eval/inputs.npy"}, load=lambda runner: None, _preprocess=lambda: {},
            process=lambda: SimpleNamespace(ask=refuses, close=lambda: None),
        )  # fmt: skip
        with pytest.raises(Exception, match="No space left") as caught:
            runner.Contestant.predict(one, Path("out.npy"))
        assert type(caught.value).__name__ == wanted


def test_too_few_open_files_are_the_machines_fault(
    load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = load("bench_runner")
    (tmp_path / "run_ort.py").touch()
    for number, wanted in ((errno.EMFILE, "BenchError"), (errno.ENOENT, "RunnerError")):

        def refuses(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(runner.subprocess, "Popen", refuses)
            with pytest.raises(Exception, match="cannot start") as caught:
                runner.Runner("python3", tmp_path / "run_ort.py", tmp_path)
            assert type(caught.value).__name__ == wanted
