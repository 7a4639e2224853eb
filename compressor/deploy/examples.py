"""Which example programs go with which runtime, and what a user must know of that runtime. One row a runtime."""

from dataclasses import dataclass

__all__ = ["EXAMPLES", "Example"]


@dataclass(frozen=True)
class Example:
    """`python`: the script in targets/ that becomes classify.py; `beside`: scripts that it imports; `cpp`: the source
    that becomes classify.cpp, "" for none. `install`: what brings the runtime (and numpy) to a device. `package`: its
    name on PyPI, and `licence` as an SPDX identifier, or in words where there is none."""

    python: str
    cpp: str
    install: str
    package: str
    licence: str
    beside: tuple[str, ...] = ()


# TensorRT has a licence of its own, which is no SPDX licence.
NVIDIA = "NVIDIA Software License Agreement"

EXAMPLES: dict[str, Example] = {
    "onnxruntime": Example("classify_ort.py", "classify_ort.cpp", "pip install onnxruntime", "onnxruntime", "MIT"),
    "openvino": Example("classify_ov.py", "", "pip install openvino", "openvino", "Apache-2.0"),
    "executorch": Example("classify_et.py", "", "pip install executorch", "executorch", "BSD-3-Clause"),
    "litert": Example("classify_litert.py", "", "pip install ai-edge-litert", "ai-edge-litert", "Apache-2.0"),
    "tensorrt": Example(
        "classify_trt.py",
        "classify_trt.cpp",
        "sudo apt-get install python3-libnvinfer python3-numpy",
        "tensorrt",
        NVIDIA,
        ("trt_cuda.py",),
    ),
    "tensorrt-rtx": Example(
        "classify_trt.py",
        "classify_trt.cpp",
        "pip install tensorrt-rtx numpy",
        "tensorrt-rtx",
        NVIDIA,
        ("trt_cuda.py",),
    ),
}
