"""Says what is on an image, with TensorRT or TensorRT for RTX on an NVIDIA GPU: `python3 classify.py IMAGE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.classify_files import ImageError
    from targets.classify_images import Floats, main
    from targets.trt_cuda import Cuda, CudaError
else:
    sys.dont_write_bytecode = True  # __pycache__ would hold this machine's paths
    from classify_files import ImageError
    from classify_images import Floats, main
    from trt_cuda import Cuda, CudaError


def logits(model: Path, batch: npt.NDArray[Any], precision: str) -> Floats:
    if json.loads((model.parent / "manifest.json").read_text(encoding="utf-8"))["runtime"] == "tensorrt-rtx":
        import tensorrt_rtx as trt  # the same API; here, so that main can say how to install it
    else:
        import tensorrt as trt
    if not model.is_file():
        raise ImageError(f"{model.name} is not there yet: build it on this device, see README.md")
    try:
        cuda = Cuda()
    except CudaError as error:
        raise ImageError(str(error)) from error
    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(model.read_bytes())
    if engine is None:
        raise ImageError(f"{model.name} belongs to another GPU or to another version than {trt.__version__}")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    source, result = sorted(names, key=lambda name: engine.get_tensor_mode(name) != trt.TensorIOMode.INPUT)
    context = engine.create_execution_context()
    context.set_input_shape(source, batch.shape)
    answer: Floats = np.empty(tuple(context.get_tensor_shape(result)), np.float32)
    stream, there, back = cuda.stream(), cuda.allocate(batch.nbytes), cuda.allocate(answer.nbytes)
    context.set_tensor_address(source, there)
    context.set_tensor_address(result, back)
    cuda.upload(there, batch.ctypes.data, batch.nbytes, stream)
    if not context.execute_async_v3(stream):
        raise ImageError("TensorRT does not run the engine: its reason stands above")
    cuda.download(answer.ctypes.data, back, answer.nbytes, stream)
    cuda.wait(stream)
    return answer


if __name__ == "__main__":
    sys.exit(main(logits))
