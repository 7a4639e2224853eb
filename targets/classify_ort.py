"""Says what is on an image, with onnxruntime: `python3 classify.py IMAGE [--top 5]`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.classify_images import Floats, main
else:
    sys.dont_write_bytecode = True  # __pycache__ would hold this machine's paths
    from classify_images import Floats, main


def logits(model: Path, batch: npt.NDArray[Any], precision: str) -> Floats:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports to its maker where nothing forbids it
    import onnxruntime  # here, so that main can say how to install it

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answers: list[Floats] = session.run(None, {session.get_inputs()[0].name: batch})
    return answers[0]


if __name__ == "__main__":
    sys.exit(main(logits))
