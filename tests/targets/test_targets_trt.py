"""The functions behind the scripts of TensorRT that need neither it nor a GPU."""

import ast
import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript
    from tests.targets.trt_graphs import CHANNELS, SIDE, without_gpu
else:
    from trt_graphs import CHANNELS, SIDE, without_gpu


@without_gpu
def test_cuda_names_the_library_that_is_missing(load: "LoadScript") -> None:
    cuda = load("trt_cuda")
    with pytest.raises(cuda.CudaError, match=r"libcuda\.so\.1 of its driver cannot be loaded"):
        cuda.Cuda()


def uses(script: Path) -> set[tuple[str, str]]:
    """(the runtime's class, the member) for all that `script` asks of an engine, a context and their like."""
    classes = {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "context": "IExecutionContext",
        "inspector": "EngineInspector",
        "TensorIOMode": "TensorIOMode",
        "DataType": "DataType",
        "LayerInformationFormat": "LayerInformationFormat",
    }
    found = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            if name in classes:
                found.add((classes[name], node.attr))
    return found


def test_the_runtime_has_all_that_the_runner_asks_of_it() -> None:
    """The runner cannot run here; a misspelt name would only be found on a GPU."""
    trt = pytest.importorskip("tensorrt_rtx")
    asked = uses(Path(__file__).resolve().parents[2] / "targets" / "run_trt.py")
    assert {("IExecutionContext", "execute_async_v3"), ("ICudaEngine", "get_tensor_dtype")} <= asked
    assert len(asked) >= 15
    assert [(owner, name) for owner, name in sorted(asked) if not hasattr(getattr(trt, owner), name)] == []


# Pure functions, on what NVIDIA documents that the inspector says


def layer(kind: str, *inputs: str, **more: object) -> dict[str, object]:
    return {"Name": "x", "LayerType": kind, "Inputs": [{"Format/Datatype": name} for name in inputs], **more}


INT8 = "Thirty-two wide channel vectorized row major Int8 format."
HALF = "Channel major FP16 format where channel % 8 == 0"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([layer("CaskConvolution", INT8), layer("Reformat", "Row major linear FP32")], "int8"),
        ([layer("CaskConvolution", INT8), layer("gemm", HALF)], "mixed fp16+int8"),
        ([layer("kgen", "Float"), layer("correlation", "Half")], "fp16"),
        ([layer("kgen", "Half"), layer("NoOp", "Float")], "fp16"),  # nothing heavy: all that compute
        ([layer("Myelin", "Float", ParameterType="MatrixMultiply"), layer("kgen", "Half")], "fp32"),
        ([layer("CaskConvolution", "Float", TacticName="sm80_xmma_fprop_tf32f32_tf32f32")], "tf32"),
        ([layer("CaskConvolution", "BFloat16")], "bf16"),
        ([layer("CaskConvolution", "something new")], "unknown"),
        ([layer("CaskConvolution")], "unknown"),
        (["conv + relu", "fc"], "unknown"),  # an engine that was built without details
        ([], "unknown"),
    ],
)
def test_the_executed_precision_is_that_of_the_heavy_layers(
    load: "LoadScript", layers: list[object], expected: str
) -> None:
    assert load("run_trt").of_layers(json.dumps({"Layers": layers, "Bindings": ["image"]})) == expected


def test_dimensions_that_may_vary_have_no_size(load: "LoadScript") -> None:
    assert load("run_trt").shape((-1, 3, 64, 64)) == [None, 3, 64, 64]


def test_only_the_batch_of_an_input_may_vary(load: "LoadScript") -> None:
    script: ModuleType = load("build_trt")
    assert script.fixed_shape((-1, 3, SIDE, SIDE), 4, "image") == (4, 3, SIDE, SIDE)
    assert script.fixed_shape((2, 3, SIDE, SIDE), 2, "image") == (2, 3, SIDE, SIDE)
    assert script.fixed_shape((CHANNELS, 3), None, "image") == (CHANNELS, 3)
    for shape in ((1, 3, -1, 64), ()):
        with pytest.raises(script.BuildError, match="only its first dimension may vary"):
            script.fixed_shape(shape, 1, "image")
