"""Two processes on documents (gloo) learn what one learns that takes its steps in two parts."""

import json
import subprocess
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from compressor.models import load_run
from compressor.schema.accuracy import BitsPerByte
from tests.forked import python
from tests.kit import call
from tests.tasks.causal_lm.kit import made_documents

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_documents(tmp_path_factory)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_two_processes_learn_from_documents_what_one_learns(made: Path, tmp_path: Path, share: float) -> None:
    """Of whose parts of a step none has as many tokens as the other. `share`: of the steps in which the student
    writes."""
    losses = "losses=[{name: kd, temperature: 1}, {name: cross_entropy}, {name: hidden_states}]"
    writing = ("--set", f"on_policy.share={share}", "--set", "on_policy.max_new_tokens=8") if share else ()

    def command(out: str, *more: str) -> list[str]:
        return [
            "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"jsonl:{made / 'data.jsonl'}", "--student",
            "layers:2", "--epochs", "2", "--batch-size", "16", "--set", losses, "--out", str(tmp_path / out),
            *writing, *more,
        ]  # fmt: skip

    assert call(*command("one", "--set", "accumulate=2")) == 0
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launcher = [*launcher, "--rdzv-endpoint", "localhost:0", "--no-python", *python(), "-m", "compressor"]
    done = subprocess.run([*python(), *launcher, *command("two")], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    rows = {
        name: [json.loads(line)["loss"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    }
    for one, two in zip(rows["one"], rows["two"], strict=True):
        assert two == pytest.approx(one, abs=1e-4)
    weights = [load_file(tmp_path / name / "student.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        assert weights[1][name] == pytest.approx(tensor, abs=2e-4), name
    scores = [load_run(tmp_path / name)[1].test for name in ("one", "two")]
    assert isinstance(scores[0], BitsPerByte)
    assert isinstance(scores[1], BitsPerByte)
    assert scores[1].bits_per_byte == pytest.approx(scores[0].bits_per_byte, abs=1e-4)
    assert (scores[1].tokens, scores[1].bytes) == (scores[0].tokens, scores[0].bytes)
