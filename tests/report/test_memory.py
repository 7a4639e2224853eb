"""A bundle of ImageNet's size is judged in little memory: a part of one variant's logits at a time."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressor.report import seal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc/self/status"),
]
SAMPLES, CLASSES = 50_000, 1000
MOST_MB = 500

# Not ru_maxrss: a child inherits that of the process that started it.
RUN = """
import sys
from compressor.cli.app import main
code = 0
try:
    main()
except SystemExit as ended:
    code = ended.code or 0
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("PEAK", code, int(peak.split()[1]) / 1000, file=sys.stderr)
"""


@pytest.fixture
def large(make_bundle: Callable[..., Path]) -> Path:
    """Two students and a teacher: 200 MB of logits each, and as much of torch's."""
    rng = np.random.default_rng(0)
    labels = np.arange(SAMPLES) % CLASSES
    logits = rng.standard_normal((SAMPLES, CLASSES), dtype=np.float32)
    logits[np.arange(SAMPLES), labels] += 6
    variants = {
        name: {"logits": logits, "reference": logits, "role": role, "p50": p50}
        for name, role, p50 in (("a", "student", 2.0), ("b", "student", 3.0), ("t", "teacher", 6.0))
    }
    bundle = make_bundle(variants, {"min_retention": 0.9}, classes=CLASSES, labels=labels)
    seal(bundle)  # `kdc report` puts into best/ what `kdc check` then looks at
    return bundle


def test_check_and_report_of_fifty_thousand_samples(large: Path) -> None:
    for command in (["report", str(large)], ["check", str(large)]):
        done = subprocess.run([sys.executable, "-c", RUN, *command], capture_output=True, text=True, timeout=600)
        [said] = [line for line in done.stderr.splitlines() if line.startswith("PEAK")]
        _, code, peak = said.split()
        assert int(code) == 0, done.stderr
        print(f"kdc {command[0]}: {peak} MB")
        assert float(peak) < MOST_MB, f"kdc {command[0]} took {peak} MB"
