"""The one table of runtimes: what a profile may name, how to install it, and which script runs its models.

Adding a runtime is a row here, a runner in targets/, and a builder in export/.
"""

from dataclasses import dataclass

from compressor.errors import EXIT_MISSING, KdcError, did_you_mean

__all__ = ["RUNTIMES", "Runtime", "runtime_for"]


@dataclass(frozen=True)
class Runtime:
    """`module`: what Python imports; `install`: the line that installs it; `runner`: its script in targets/;
    `precisions`: the names that a profile may ask for -> what the runtime must report as executed."""

    name: str
    module: str
    install: str
    runner: str
    precisions: dict[str, str]


RUNTIMES: dict[str, Runtime] = {
    row.name: row
    for row in (
        Runtime("onnxruntime", "onnxruntime", "pip install onnxruntime", "run_ort.py", {"fp32": "fp32"}),
        # f16 is a storage format on CPUs: weights lie as fp16 in the IR and are widened to f32 when it is loaded.
        Runtime(
            "openvino",
            "openvino",
            "pip install 'kdc[openvino]'",
            "run_ov.py",
            {"f32": "f32", "f16": "f32", "bf16": "bf16"},
        ),
    )
}

# Runtimes that devices use and that kdc cannot build for yet: named so that the answer is not "unknown".
NOT_YET = {
    "tensorrt": "pip install tensorrt (with CUDA), then build on the device: trtexec --onnx=BUNDLE/model.onnx",
    "executorch": "pip install executorch",
    "litert": "pip install ai-edge-litert",
    "ncnn": "pip install ncnn",
}


def runtime_for(name: str, where: str) -> Runtime:
    """The row for `name`; raises KdcError: exit 4 for a runtime that kdc has no runner for, 2 for an unknown name."""
    if name in RUNTIMES:
        return RUNTIMES[name]
    permitted = ", ".join(RUNTIMES)
    if name in NOT_YET:
        raise KdcError(
            f"{where} asks for runtime {name}, which this version of kdc cannot build for (it has: {permitted})",
            f"choose one of those with --target, or use model.onnx with it by hand: {NOT_YET[name]}",
            EXIT_MISSING,
        )
    raise KdcError(f"{where}: unknown runtime {name}{did_you_mean(name, [*RUNTIMES, *NOT_YET])}; known: {permitted}")
