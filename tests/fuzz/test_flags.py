"""A command with any flags at all ends with one of the documented codes and few lines, never with a bug of kdc's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.cli import app as cli
from tests.fuzz.kit import fuzzed

pytestmark = pytest.mark.slow

# What is asked for is never there, so that no command gets as far as its work.
COMMANDS = {
    "teach": ["--teacher", "timm:local-dir:nowhere", "--data", "folder:nowhere", "--out", "out"],
    "distill": ["--teacher", "run:nowhere", "--data", "folder:nowhere", "--out", "out"],
    "specialists": ["--teacher", "run:nowhere", "--data", "folder:nowhere", "--out", "out", "--count", "2"],
    "predict": ["--teacher", "run:nowhere", "--data", "folder:nowhere", "--out", "out.csv"],
    "export": ["nowhere", "--profile", "x86-avx2", "--out", "out"],
    "measure": ["nowhere"],
    "report": ["nowhere"],
    "check": ["nowhere"],
    "profiles show": ["nowhere"],
}
FLAGS = (
    "--teacher", "--data", "--out", "--recipe", "--input-size", "--epochs", "--batch-size", "--seed", "--set",
    "--decode-cache", "--teacher-cache", "--tracker", "--resume", "--overwrite", "--skip-bad", "--student",
    "--student-init", "--assistant", "--qat", "--teacher-classes", "--unlabelled", "--precompute", "--profile",
    "--count", "--jobs", "--top-k", "--labels-only", "--target", "--precision", "--device", "--device-python",
    "--baseline", "--rounds", "--seconds", "--allow-unmeasured", "--format", "--json", "--quiet", "--specialty",
    "--teacher-init", "--bake-preprocessing", "--dynamic-batch", "--no-qat", "--no-throughput", "--nix",
)  # fmt: skip
VALUES = st.sampled_from(
    ["0", "-1", "1", "2", "8", "10", "nan", "inf", "-inf", "1e308", "1e-320", "9" * 5_000, "10000000000", "", " ", "x",
     "x" * 5_000, "a\nkdc: error: b", "\x1b[31m", "\u202e", "é", "/dev/zero", "/dev/null", "..", "/", "~", "-", "--",
     "off", "-5GB", "1e400GB", "local", "ssh://", "ssh://-x", "adb:", "timm:", "hf:", "run:", "folder:", "csv:", "idx:",
     "parquet:", "outputs:", "specialists:", "self", "peers", "digits", "timm:@", "epochs=[", "epochs=1e400", "a.b.c=1",
     "losses=[]", "losses.0.weight=-1", "losses.9=1", "=", "md", "json", "junit", "random", "pretrained", "int8"]
) | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)  # fmt: skip


@pytest.mark.timeout(1200)
def test_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)

    @fuzzed
    @given(
        st.sampled_from(sorted(COMMANDS)),
        st.lists(st.tuples(st.sampled_from(FLAGS), VALUES).map(list) | VALUES.map(lambda one: [one]), max_size=3),
    )
    def holds(command: str, more: list[list[str]]) -> None:
        arguments = [*command.split(), *COMMANDS[command], *(text for pair in more for text in pair)]
        monkeypatch.setattr("sys.argv", ["kdc", *arguments])
        code = cli.run()
        out, err = capsys.readouterr()
        assert code in (0, 2, 4), (code, arguments)
        assert "bug in kdc" not in err, (err, arguments)
        assert "\x1b" not in out + err
        assert "\u202e" not in out + err
        lines = err.splitlines()
        assert len(lines) < 12, err
        assert sum(line.startswith("kdc: error:") for line in lines) <= 1, err
        assert len(err) < 30_000

    holds()
