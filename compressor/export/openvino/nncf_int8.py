"""NNCF on an OpenVINO model: quantize, and pack the weights."""

import importlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.errors import needs
from compressor.export.base import Source
from compressor.export.openvino.ir import quietly, save
from compressor.export.schemes import saturates
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES
from compressor.tasks.base import Arrays

__all__ = ["Ranges", "batch", "batch_count", "biases", "part_of_nncf", "quantized", "save_packed"]

Floats = NDArray[np.float32]
Ranges = Literal["mean", "minmax"]
"""Of activations: from the mean of all samples' smallest values to the mean of their largest, as NNCF has it, so that
about half of the samples are clipped somewhere; or everything that was seen."""


def batch_count(source: Source) -> int:
    """How many batches the calibration images fill."""
    return -(-len(source.calibration) // source.profile.batch)


def batch(source: Source, number: int) -> Arrays:
    """Calibration samples as the network takes them. The last batch is filled up from the start."""
    size = source.profile.batch
    rows = np.arange(number * size, (number + 1) * size) % len(source.calibration)
    return source.calibration.fed(rows)


def quantized(
    model: Any, source: Source, preset: str, progress: Progress, *, fast: bool, ranges: Ranges = "mean"
) -> Any:
    """A copy of the openvino.Model `model` with FakeQuantize in front of what runs in int8, its weights still float.

    `fast`: NNCF's quick bias correction, which treats each layer alone; else the one that goes through the network
    layer by layer, each corrected with all before it quantized. Networks that read tokens are quantized as the
    transformers that NNCF knows: as anything else, a MiniLM has lost 18 of 80 points. Raises KdcError: exit 4 without
    nncf.
    """
    nncf = part_of_nncf("nncf")
    count = batch_count(source)
    doing = f"OpenVINO int8, preset {preset}, {ranges} ranges, {'fast' if fast else 'full'} bias correction"
    estimators = part_of_nncf("nncf.quantization.range_estimator").RangeEstimatorParametersSet

    def taken(number: int) -> Arrays:
        progress.at(doing, number + 1, count)
        return batch(source, number)

    advanced = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE if saturates(source.profile) else nncf.OverflowFix.DISABLE,
        activations_range_estimator_params=estimators.MINMAX if ranges == "minmax" else None,
        batchwise_statistics=source.profile.batch > 1,
        backend_params={"compress_weights": False},  # save_packed does it: a fallback needs them as they are
    )
    try:
        with quietly("NNCF cannot quantize the network"):
            return nncf.quantize(
                model,
                nncf.Dataset(list(range(count)), taken),
                preset=nncf.QuantizationPreset(preset),
                model_type=nncf.ModelType.TRANSFORMER if source.takes_tokens else None,
                subset_size=count,
                fast_bias_correction=fast,
                advanced_parameters=advanced,
            )
    finally:
        progress.end()


def save_packed(model: Any, folder: Path) -> Path:
    """Write FOLDER/model.xml and model.bin with the fake-quantized weights as int8 and all else as it is, in f32."""
    packed = model.clone()
    # What nncf.quantize does at its end, unless told otherwise. Without it the file holds float weights.
    importlib.import_module("openvino._offline_transformations").compress_quantize_weights_transformation(packed)
    return save(packed, folder, half=False)


def biases(model: Any) -> dict[str, Floats]:
    """The constant that is added to the result of each convolution and matrix product, by that layer's name."""
    by_layer: dict[str, Floats] = {}
    for layer in model.get_ops():
        if layer.get_type_name() not in ("Convolution", "GroupConvolution", "MatMul"):
            continue
        for use in layer.output(0).get_target_inputs():
            added = [port.get_source_output().get_node() for port in use.get_node().inputs()]
            if use.get_node().get_type_name() == "Add":
                by_layer |= {
                    layer.get_friendly_name(): addend.data for addend in added if addend.get_type_name() == "Constant"
                }
    return by_layer


def part_of_nncf(name: str) -> Any:
    """The module `name` of NNCF, which says hello on stdout when it is imported."""
    with quietly("NNCF cannot be imported"):
        needs("nncf", RUNTIMES["openvino"].install, "OpenVINO in int8")
        return importlib.import_module(name)
