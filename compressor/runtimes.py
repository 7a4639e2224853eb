"""The one table of runtimes: what a profile may name, how to install it, and which script runs its models.

Adding a runtime is a row here, a runner in targets/, and a builder in export/.
"""

from dataclasses import dataclass

from compressor.errors import EXIT_MISSING, KdcError, did_you_mean
from compressor.install import install_line

__all__ = ["RUNTIMES", "Runtime", "runtime_for"]


@dataclass(frozen=True)
class Runtime:
    """`module`: what Python imports; `install`: the line that installs it; `runner`: its script in targets/;
    `precisions`: the names that a profile may ask for -> what the runtime must report as executed.

    `exports_with`: the modules that an export needs here, and `quantizes_with` those for int8 beside them;
    `export_install` installs them, where that is another line. `package`: what pip installs on a device; "" where
    `install` is the line there too. `build`: the script in targets/ that makes the runtime's own file on the device,
    where that cannot be made elsewhere. `on_gpu`: it runs on an NVIDIA GPU alone."""

    name: str
    module: str
    install: str
    runner: str
    precisions: dict[str, str]
    exports_with: tuple[str, ...] = ()
    export_install: str = ""
    package: str = ""
    quantizes_with: tuple[str, ...] = ()
    build: str | None = None
    on_gpu: bool = False

    def ran_as_asked(self, precision: str, executed: str) -> bool:
        """Whether `executed`, as a runner reports it, is what was asked for. In an int8 model the layers that are left
        in float on purpose run beside it, as "mixed f32+int8"."""
        wanted = self.precisions[precision]
        return executed == wanted or (wanted == "int8" and "int8" in executed.removeprefix("mixed ").split("+"))


RUNTIMES: dict[str, Runtime] = {
    row.name: row
    for row in (
        Runtime(
            "onnxruntime",
            "onnxruntime",
            install_line("onnxruntime"),
            "run_ort.py",
            {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
            exports_with=("onnxruntime",),
            package="onnxruntime",
        ),
        # f16 is a storage format on CPUs: weights lie as fp16 in the IR and are widened to f32 when it is loaded.
        Runtime(
            "openvino",
            "openvino",
            install_line("openvino", "nncf"),
            "run_ov.py",
            {"f32": "f32", "f16": "f32", "bf16": "bf16", "int8": "int8"},
            exports_with=("openvino",),
            quantizes_with=("nncf",),
            package="openvino",
        ),
        # Engines are built on the board. tensorrt_rtx checks here that they can be.
        Runtime(
            "tensorrt",
            "tensorrt",
            "sudo apt-get install python3-libnvinfer",
            "run_trt.py",
            {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
            exports_with=("tensorrt_rtx",),
            export_install=install_line("tensorrt-rtx"),
            build="build_trt.py",
            on_gpu=True,
        ),
        Runtime(
            "tensorrt-rtx",
            "tensorrt_rtx",
            install_line("tensorrt-rtx"),
            "run_trt_rtx.py",
            {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
            exports_with=("tensorrt_rtx",),
            package="tensorrt-rtx",
            on_gpu=True,
        ),
        Runtime(
            "executorch",
            "executorch",
            install_line("executorch"),
            "run_et.py",
            {"fp32": "fp32", "int8": "int8"},
            exports_with=("executorch",),
            quantizes_with=("torchao",),
            package="executorch",
        ),
        Runtime(
            "litert",
            "ai_edge_litert",
            install_line("litert-torch", "ai-edge-litert"),
            "run_litert.py",
            {"fp32": "fp32", "int8": "int8"},
            exports_with=("litert_torch",),
            quantizes_with=("ai_edge_quantizer",),
            package="ai-edge-litert",
        ),
    )
}

# Runtimes that devices use and that kdc cannot build for yet: named so that the answer is not "unknown".
NOT_YET = {"ncnn": "pip install ncnn pnnx"}


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
