"""Two processes on texts (gloo) learn what one learns that takes its steps in two parts: as of images."""

import json
import subprocess
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from compressor.models import load_run
from compressor.schema.accuracy import accuracy_in
from tests.forked import python
from tests.kit import call
from tests.shared import made_once
from tests.tasks.text_classification.kit import ENCODER, taught, texts, tokenizer_json, write_csv

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOSSES = "losses=[{name: kd}, {name: cross_entropy}, {name: hidden_states}, {name: relations}]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        write_csv(folder / "data.csv", texts(240))
        taught(folder, folder / "data.csv")

    return made_once(tmp_path_factory, "texts", make)


def test_two_processes_learn_from_texts_what_one_learns(made: Path, tmp_path: Path) -> None:
    """Of few labels, so that the parts of a step have not as many; and of losses over tokens, of which they have not
    as many either."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_hidden_layers": 2}
    size = len(json.loads(tokenizer_json())["model"]["vocab"])
    (tmp_path / "small.json").write_text(json.dumps({"model_type": "bert", "vocab_size": size, **ENCODER, **still}))

    def command(out: str, *more: str) -> list[str]:
        return [
            "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}", "--student",
            f"hf:{tmp_path / 'small.json'}", "--student-init", "random", "--max-length", "32", "--epochs", "2",
            "--batch-size", "16", "--set", "optimizer.lr=0.0001", "--set", "transfer.labelled=0.3", "--set", LOSSES,
            "--out", str(tmp_path / out), *more,
        ]  # fmt: skip

    assert call(*command("one", "--set", "accumulate=2")) == 0
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launcher = [*launcher, "--rdzv-endpoint", "localhost:0", "--no-python", *python(), "-m", "compressor"]
    done = subprocess.run([*python(), *launcher, *command("two")], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    rows = {
        name: [json.loads(line)["loss"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    }
    for one, two in zip(rows["one"], rows["two"], strict=True):
        assert two == pytest.approx(one, abs=1e-4)
    weights = [load_file(tmp_path / name / "student.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        assert weights[1][name] == pytest.approx(tensor, abs=2e-4), name
    first, second = (load_run(tmp_path / name)[1] for name in ("one", "two"))
    assert (second.test.n, accuracy_in(second.test).correct) == (first.test.n, accuracy_in(first.test).correct)
