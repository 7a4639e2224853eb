"""A loss, a device and a runtime are added to a copy of the checkout as the docs say, and used there. The files that an
addition touches are counted. What the pages show is what is tested: all their code, all their commands."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.measurement import Measurement
from tests.forked import python
from tests.kit import TRAINING, call

ROOT = Path(__file__).resolve().parent.parent
STEP = re.compile(
    r"^(?P<how>Make|Add to the imports of|Add as the last row of `(?P<table>\w+)` in) `(?P<file>[\w./-]+)`:\n\n"
    r"```\w+\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Page:
    """A page of docs/: the code that it adds, and the commands that it gives."""

    text: str

    @property
    def steps(self) -> list[re.Match[str]]:
        return list(STEP.finditer(self.text))

    @property
    def commands(self) -> list[str]:
        return [line for kind, code in FENCE.findall(self.text) if kind == "sh" for line in code.splitlines()]


def page(name: str) -> Page:
    found = Page((ROOT / "docs" / name).read_text(encoding="utf-8"))
    code = [code for kind, code in FENCE.findall(found.text) if kind != "sh"]
    assert [step["code"] for step in found.steps] == code, "a block of code that no sentence puts into a file"
    return found


@dataclass(frozen=True)
class Checkout:
    """A copy of the checkout in `root`."""

    root: Path

    def add(self, of: Page) -> set[str]:
        """Do what the page says; returns the files that this touched."""
        for step in of.steps:
            path = self.root / step["file"]
            if step["how"] == "Make":
                assert not path.exists(), step["file"]
                path.write_text(step["code"], encoding="utf-8")
            else:
                lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
                at = end_of_table(path, step["table"]) if step["table"] else place_among_imports(path, step["code"])
                path.write_text("".join([*lines[:at], step["code"], *lines[at:]]), encoding="utf-8")
        return {step["file"] for step in of.steps}

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command of a page, in the copy and with its kdc."""
        program, *arguments = shlex.split(command)
        module = ["-m", "compressor"] if program == "kdc" else []
        assert program in ("kdc", "python")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["OMP_NUM_THREADS"] = "1"  # tiny networks: a second thread mostly waits
        if arguments[:2] == ["-m", "pytest"]:
            # A plugin of a library, which the fork has; nothing here uses it (see pyproject.toml).
            arguments += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        return subprocess.run(
            [*python(), *module, *arguments], cwd=self.root, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def done(self, command: str) -> str:
        """What a command printed that must succeed."""
        ended = self.run(command)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def is_clean(self, files: set[str]) -> None:
        python = [file for file in sorted(files) if file.endswith(".py")]
        for check in ("check", "format --check"):
            self.done(f"python -m ruff {check} {' '.join(python)}")


def end_of_table(path: Path, table: str) -> int:
    """The line before which another row goes: that of the closing bracket."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table:
            rows = node.value.generators[0].iter if isinstance(node.value, ast.DictComp) else node.value
            assert rows is not None
            assert rows.end_lineno is not None
            return rows.end_lineno - 1
    raise AssertionError(f"{path} has no {table}")


def place_among_imports(path: Path, line: str) -> int:
    """Where the line goes among the package's own imports, which are sorted."""
    own = [
        node for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("compressor")
    ]  # fmt: skip
    module = line.split()[1]
    return next((node.lineno - 1 for node in own if (node.module or "") > module), own[-1].end_lineno or 0)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("compressor", "profiles", "targets", "tests"):
        shutil.copytree(ROOT / name, root / name)  # with what is compiled already
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, root)
    copy = Checkout(root)
    where = copy.done("python -c 'import compressor; print(compressor.__file__)'")
    assert Path(where.strip()) == root / "compressor" / "__init__.py"
    return copy


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory, colours: Path, teacher_run: Path) -> Path:
    """A student of convolutions and linear layers alone."""
    out = tmp_path_factory.mktemp("plain") / "run"
    code = call(
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student", "timm:test_resnet",
        "--student-init", "random", "--epochs", 4, "--out", out, *TRAINING, "--set", "optimizer.lr=0.01",
    )  # fmt: skip
    assert code == 0
    return out


def test_a_loss_is_a_function_and_a_row(checkout: Checkout) -> None:
    touched = checkout.add(page("own-loss.md"))
    assert touched == {"compressor/losses/sharpened.py", "compressor/losses/__init__.py"}
    checkout.is_clean(touched)
    listed, contract, teach, distill = page("own-loss.md").commands
    assert any(
        line.startswith("sharpened ") and "power=2 [1, 10]" in line for line in checkout.done(listed).splitlines()
    )
    told = checkout.done(f"{contract} tests/distill/loop/test_distill_learner.py -p no:cacheprovider -v")
    passed = [
        line for line in told.splitlines() if re.search(r"test_losses\w*\.py::\w+\[\S*\bsharpened\b\S*\] PASSED", line)
    ]
    assert len(passed) >= 17, "the contract of the losses runs for every row of the table"
    checkout.done(teach)
    checkout.done(distill)
    history = [json.loads(line) for line in (checkout.root / "run" / "history.jsonl").read_text().splitlines()]
    assert [list(row["loss"]) for row in history] == [["sharpened"]] * 2
    assert history[1]["loss"]["sharpened"] < history[0]["loss"]["sharpened"]


def test_a_trait_that_is_not_true_fails_the_contract(checkout: Checkout) -> None:
    checkout.add(page("own-loss.md"))
    table = checkout.root / "compressor" / "losses" / "__init__.py"
    row = "zero_at_agreement=False, zero_probabilities=True,\n"
    text = table.read_text(encoding="utf-8")
    assert text.count(row) == 1
    table.write_text(text.replace(row, "raw_logits=True,\n"), encoding="utf-8")
    ended = checkout.run("python -m pytest tests/losses -p no:cacheprovider -q -k sharpened")
    failed = re.findall(r"^FAILED \S+::(\w+)", ended.stdout, re.MULTILINE)
    assert len(failed) == 3, ended.stdout
    for trait in ("agrees", "rule_a_class_out", "raw_logits"):
        assert any(trait in name for name in failed), trait


def test_a_device_is_one_file(checkout: Checkout, plain_run: Path) -> None:
    touched = checkout.add(page("own-device.md"))
    assert touched == {"profiles/my-board.yaml"}
    shutil.copytree(plain_run, checkout.root / "run")
    listed, shown, export = page("own-device.md").commands
    assert any(line.split()[0] == "my-board" for line in checkout.done(listed).splitlines()[1:])
    assert "4x Cortex-A76 at 2.2 GHz" in checkout.done(shown)
    checkout.done(f"{export} --rounds 12 --no-throughput")
    bundle = read_json(checkout.root / "bundle" / "bundle.json", Bundle)
    assert [one.name for one in bundle.variants if one.role == "student"] == ["onnxruntime-fp32", "onnxruntime-int8"]
    assert bundle.profile.name == "my-board"
    checkout.done("python -m pytest tests/test_profiles.py -p no:cacheprovider -q")


def test_a_runtime_is_a_runner_a_builder_and_a_row(checkout: Checkout, plain_run: Path, student_run: Path) -> None:
    touched = checkout.add(page("own-runtime.md"))
    assert touched == {"compressor/export/numpy_network.py", "targets/run_numpy.py", "compressor/runtimes.py"}
    checkout.is_clean(touched)
    shutil.copytree(plain_run, checkout.root / "run")
    new, export, measure, check, arrows = page("own-runtime.md").commands
    checkout.done(new)
    assert "runtime: numpy" in (checkout.root / "here.yaml").read_text(encoding="utf-8")
    checkout.done(f"{export} --rounds 12 --no-throughput")
    folder = checkout.root / "bundle"
    bundle = read_json(folder / "bundle.json", Bundle)
    (student,) = (one for one in bundle.variants if one.role == "student")
    assert (student.name, student.runner, student.model) == ("numpy-fp32", "run_numpy.py", "numpy-fp32/model.npz")
    assert student.weight_bytes["float32"] == pytest.approx(4 * student.parameters, rel=0.01)
    answers = np.load(folder / "measurements" / "numpy-fp32.npy")
    reference = np.load(folder / student.reference_logits)
    np.testing.assert_allclose(answers, reference, atol=1e-4 * np.abs(reference).max())
    assert student.score is not None
    assert student.score.same == student.score.n, "torch's answers to the images for validation"
    checkout.done(f"{measure} --rounds 12 --no-throughput")
    measured = read_json(folder / "measurements" / "measurement.json", Measurement)
    ours = next(one for one in measured.contestants if one.variant == "numpy-fp32")
    assert (ours.executed_precision, ours.error) == ("fp32", None)
    checkout.done(check)
    assert (folder / "best" / "model.npz").is_file()
    checkout.done(f"{arrows} -p no:cacheprovider -q")
    # A student with operators that it cannot compute: said by name, and no bundle is left.
    shutil.copytree(student_run, checkout.root / "other")
    ended = checkout.run("kdc export other --profile ./here.yaml --target numpy --set threads=1 --out refused")
    assert ended.returncode == 2
    assert "the runtime numpy cannot compute" in ended.stderr
    assert "timm:test_resnet" in ended.stderr
    assert not (checkout.root / "refused").exists()
