"""Says what is on an image, with LiteRT: `python3 classify.py IMAGE [--top 5]`."""

from __future__ import annotations

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
    from ai_edge_litert.interpreter import Interpreter  # here, so that main can say how to install it

    interpreter = Interpreter(model_path=str(model))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
    interpreter.invoke()
    answer: Floats = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return answer


if __name__ == "__main__":
    sys.exit(main(logits))
