"""Says what is on an image, with ExecuTorch: `python3 classify.py IMAGE [--top 5]`."""

from __future__ import annotations

import importlib
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
    from executorch.runtime import Runtime  # here, so that main can say how to install it

    tensors = importlib.import_module("torch")  # ExecuTorch's Python takes these, and depends on the package
    program = Runtime.get().load_program(str(model))
    answer: Floats = program.load_method("forward").execute([tensors.from_numpy(batch)])[0].numpy()
    return answer


if __name__ == "__main__":
    sys.exit(main(logits))
