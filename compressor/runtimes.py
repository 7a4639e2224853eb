"""The one table of runtimes: all that kdc knows of a runtime but how its models are made and run.

Adding a runtime is a row here, a runner in targets/, and a builder in export/: docs/own-runtime.md. Names of runtimes
and of precisions are plain strings, held against this table: a Literal of them would be a second place to write a new
one into.
"""

from dataclasses import dataclass

from compressor.errors import EXIT_MISSING, KdcError, did_you_mean
from compressor.install import install_line

__all__ = ["RUNTIMES", "Example", "Runtime", "of_classifiers", "runtime_for"]


@dataclass(frozen=True)
class Example:
    """The example programs that ship with a model. `python`: the script in targets/ that becomes classify.py, and
    `texts`, of a model of texts, which takes integers of 64 bits, and `sounds`, of one of sound, "" for none; `beside`:
    scripts that it imports; `cpp`: the source that becomes classify.cpp, "" for none, and `cmake_root` the variable of
    CMake that says where the runtime lies. `install`: what brings the runtime and numpy to a device, where that is not
    `Runtime.on_device`."""

    python: str
    cpp: str = ""
    cmake_root: str = ""
    install: str = ""
    beside: tuple[str, ...] = ()
    texts: str = ""
    sounds: str = ""


@dataclass(frozen=True)
class Runtime:
    """`module`: what Python imports; `install`: the line that installs it; `runner`: its script in targets/;
    `precisions`: the names that a profile may ask for -> what the runtime must report as executed. `builder`: its
    `export.base.Builder`, as MODULE:NAME, imported when something is exported. `licence`: SPDX's identifier, or words.

    `exports_with`: the modules that an export needs here, and `quantizes_with` those for int8 beside them;
    `export_install` installs them, where that is another line. `package`: what pip installs on a device; "" where
    `install` is the line there too. `build`: the script in targets/ that makes the runtime's own file on the device,
    where that cannot be made elsewhere. `on_gpu`: it runs on an NVIDIA GPU alone; `needs_sm`: what is built here is
    built for one, so the profile has to say its compute capability. `slow_export`: it takes tens of seconds a model, so
    that not every candidate for a student is tried there. `example`: programs that ship with its models."""

    name: str
    module: str
    install: str
    runner: str
    precisions: dict[str, str]
    builder: str
    licence: str
    exports_with: tuple[str, ...] = ()
    export_install: str = ""
    package: str = ""
    quantizes_with: tuple[str, ...] = ()
    build: str | None = None
    on_gpu: bool = False
    needs_sm: bool = False
    slow_export: bool = False
    example: Example | None = None
    generates: bool = False
    generator: str = ""

    @property
    def on_device(self) -> str:
        """The line that installs it on a device."""
        return f"pip install {self.package}" if self.package else self.install

    def ran_as_asked(self, precision: str, executed: str) -> bool:
        """Whether `executed`, as a runner reports it, is what was asked for. In an int8 model the layers that are left
        in float on purpose run beside it, as "mixed f32+int8"; and so with weights in int4, and some in int8."""
        wanted = self.precisions[precision]
        return executed == wanted or (wanted.startswith("int") and wanted in executed.removeprefix("mixed ").split("+"))


# TensorRT has a licence of its own, which is no SPDX licence.
NVIDIA = "NVIDIA Software License Agreement"

RUNTIMES: dict[str, Runtime] = {
    row.name: row
    for row in (
        Runtime(
            "onnxruntime",
            "onnxruntime",
            install_line("onnxruntime"),
            "run_ort.py",
            {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
            builder="compressor.export.onnx.builder:BUILDER",
            licence="MIT",
            exports_with=("onnxruntime",),
            package="onnxruntime",
            example=Example(
                "classify_ort.py",
                "classify_ort.cpp",
                "ONNXRUNTIME_ROOT",
                texts="classify_texts_ort.py",
                sounds="classify_sounds_ort.py",
            ),
            generator="onnxruntime-genai",
        ),
        # f16 is a storage format on CPUs: weights lie as fp16 in the IR and are widened to f32 when it is loaded.
        Runtime(
            "openvino",
            "openvino",
            install_line("openvino", "nncf"),
            "run_ov.py",
            {"f32": "f32", "f16": "f32", "bf16": "bf16", "int8": "int8"},
            builder="compressor.export.openvino.builder:BUILDER",
            licence="Apache-2.0",
            exports_with=("openvino",),
            quantizes_with=("nncf",),
            package="openvino",
            example=Example("classify_ov.py", texts="classify_texts_ov.py", sounds="classify_sounds_ov.py"),
            generator="openvino-genai",
        ),
        # Engines are built on the board. tensorrt_rtx checks here that they can be.
        Runtime(
            "tensorrt",
            "tensorrt",
            "sudo apt-get install python3-libnvinfer",
            "run_trt.py",
            {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
            builder="compressor.export.tensorrt.engine:TENSORRT",
            licence=NVIDIA,
            exports_with=("tensorrt_rtx",),
            export_install=install_line("tensorrt-rtx"),
            build="build_trt.py",
            on_gpu=True,
            example=Example(
                "classify_trt.py",
                "classify_trt.cpp",
                "TENSORRT_ROOT",
                install="sudo apt-get install python3-libnvinfer python3-numpy",
                beside=("trt_cuda.py",),
            ),
        ),
        Runtime(
            "tensorrt-rtx",
            "tensorrt_rtx",
            install_line("tensorrt-rtx"),
            "run_trt_rtx.py",
            {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
            builder="compressor.export.tensorrt.engine:TENSORRT_RTX",
            licence=NVIDIA,
            exports_with=("tensorrt_rtx",),
            package="tensorrt-rtx",
            on_gpu=True,
            needs_sm=True,
            example=Example(
                "classify_trt.py",
                "classify_trt.cpp",
                "TENSORRT_ROOT",
                install="pip install tensorrt-rtx numpy",
                beside=("trt_cuda.py",),
            ),
        ),
        Runtime(
            "executorch",
            "executorch",
            install_line("executorch"),
            "run_et.py",
            {"fp32": "fp32", "int8": "int8"},
            slow_export=True,
            builder="compressor.export.mobile.executorch_pte:BUILDER",
            licence="BSD-3-Clause",
            exports_with=("executorch",),
            quantizes_with=("torchao",),
            package="executorch",
            example=Example("classify_et.py"),
        ),
        Runtime(
            "litert",
            "ai_edge_litert",
            install_line("litert-torch", "ai-edge-litert"),
            "run_litert.py",
            {"fp32": "fp32", "int8": "int8"},
            slow_export=True,
            builder="compressor.export.mobile.litert_tflite:BUILDER",
            licence="Apache-2.0",
            exports_with=("litert_torch",),
            quantizes_with=("ai_edge_quantizer",),
            package="ai-edge-litert",
            example=Example("classify_litert.py"),
        ),
        # Of those that generate text, a precision is that of the weights.
        Runtime(
            "onnxruntime-genai",
            "onnxruntime_genai",
            install_line("onnxruntime-genai"),
            "run_ort_genai.py",
            {"fp32": "fp32", "int8": "int8", "int4": "int4"},
            builder="compressor.export.language.ort_genai:BUILDER",
            licence="MIT",
            exports_with=("onnxruntime_genai",),
            package="onnxruntime-genai",
            example=Example("generate_ort_genai.py"),
            generates=True,
        ),
        Runtime(
            "openvino-genai",
            "openvino_genai",
            install_line("openvino-genai", "openvino-tokenizers", "nncf"),
            "run_ov_genai.py",
            {"f32": "f32", "int8": "int8", "int4": "int4"},
            builder="compressor.export.language.ov_genai:BUILDER",
            licence="Apache-2.0",
            exports_with=("openvino", "openvino_genai", "openvino_tokenizers"),
            quantizes_with=("nncf",),
            package="openvino-genai",
            example=Example("generate_ov_genai.py"),
            generates=True,
        ),
    )
}

# Runtimes that devices use and that kdc cannot build for yet: named so that the answer is not "unknown".
NOT_YET = {"ncnn": "pip install ncnn pnnx"}


def of_classifiers() -> list[str]:
    """The names of the runtimes that run classifiers. Language models go by some of them too, by their `generator`."""
    return [name for name, row in RUNTIMES.items() if not row.generates]


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
