"""Runs engines of TensorRT for RTX on an NVIDIA GPU: run_trt.py, with the other Python module."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.run_trt import run
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from run_trt import run

if __name__ == "__main__":
    run("tensorrt-rtx")
