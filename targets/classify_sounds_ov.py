"""Says what is to be heard in a file of sound, with OpenVINO: `python3 classify.py FILE [--top 5]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.classify_sounds import Floats, main
else:
    sys.dont_write_bytecode = True  # __pycache__ would hold this machine's paths
    from classify_sounds import Floats, main


def logits(model: Path, batch: dict[str, Any], precision: str) -> Floats:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it reports to its maker
    import openvino  # here, so that main can say how to install it

    # Without a hint it would compute in bf16 wherever the CPU can, whatever was measured.
    hint = "bf16" if precision == "bf16" else "f32"
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    answer: Floats = compiled([batch[port.get_any_name()] for port in compiled.inputs])[compiled.output(0)]
    return answer


if __name__ == "__main__":
    sys.exit(main(logits))
