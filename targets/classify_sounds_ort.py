"""Says what is to be heard in a file of sound, with onnxruntime: `python3 classify.py FILE [--top 5]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.classify_sounds import Floats, main
else:
    sys.dont_write_bytecode = True  # __pycache__ would hold this machine's paths
    from classify_sounds import Floats, main


def logits(model: Path, batch: dict[str, Any], precision: str) -> Floats:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports to its maker where nothing forbids it
    import onnxruntime  # here, so that main can say how to install it

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as it was measured: exact without VNNI, too
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    answers: list[Floats] = session.run(None, {port.name: batch[port.name] for port in session.get_inputs()})
    return answers[0]


if __name__ == "__main__":
    sys.exit(main(logits))
