"""OpenVINO in int8: NNCF quantizes after training, and the true Q/DQ ONNX of a retrained student is converted.

    ptq               both of NNCF's presets, and one with wider ranges, with its fast bias correction; of tokens, the
                      preset that it has for transformers
    bias-correction   the closest of these to torch, with the slower bias correction that is better; not of tokens,
                      where it cost 6 dB of a MiniLM's logits
    fallback          of that, the layers that cost most back in f32

What is quantized has its weights in the file as int8; all else is stored and computed in f32.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import KdcError
from compressor.export.base import Candidate, Judge, QatModel, Quantizer, Source
from compressor.export.bundle.sizes import weight_bytes
from compressor.export.openvino.fallback import Layers, fallback
from compressor.export.openvino.ir import converted, ir_constants, save
from compressor.export.openvino.nncf_int8 import Ranges, biases, quantized, save_packed
from compressor.export.schemes import saturates
from compressor.progress import Progress, Silent
from compressor.schema.profile import Profile
from compressor.schema.quantization import Scheme

__all__ = ["OPENVINO", "openvino_scheme"]

Way = tuple[str, Ranges]
"""A preset of NNCF's, and the ranges of its activations."""

WAYS: tuple[Way, ...] = (("performance", "mean"), ("mixed", "mean"), ("mixed", "minmax"))
"""Weights are symmetric in both presets, with a scale a channel. Activations: symmetric in the first (unsigned where
they are never negative), with a zero point in the second, which suits hard-swish and the like. Where samples differ
much in what they excite, as sounds do, mean ranges clip some of them beyond recognition
(docs/experiments/ranges-of-sounds.md)."""
OF_TOKENS: Way = ("mixed", "mean")


def openvino_scheme(profile: Profile) -> Scheme:
    """uint8 with a zero point: the one type that x86's kernels and ARM's have in common, and ARM's want the same type
    before and after a convolution (github.com/openvinotoolkit/openvino, pull request 35280). Where kernels saturate,
    weights of 8 bits have cost an EfficientNet-Lite0 7 dB of its logits, and 7 bits 2 dB (docs.openvino.ai, "Saturation
    (overflow) Issue Workaround"; NNCF calls it OverflowFix)."""
    return Scheme(activations="uint8", weight_bits=7 if saturates(profile) else 8)


def candidates(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
    """The rungs of post-training quantization, None after each. Raises KdcError: exit 4 without openvino or nncf."""
    model = converted(source.onnx_file)
    ways = (OF_TOKENS,) if source.takes_tokens else WAYS
    made: list[Candidate] = []
    for preset, ranges in ways:
        result = quantized(model, source, preset, progress, fast=True, ranges=ranges)
        path = save_packed(result, folder / f"ptq-{preset}-{ranges}")
        made.append(Candidate("ptq", _description(source, (preset, ranges), "fast", model, result), path))
        yield made[-1]
    yield None
    description = made[-1].description
    if not source.takes_tokens:
        ranks = [judge.rank(judge(candidate.model, "openvino", "int8")) for candidate in made]
        # The closest, whatever is right of few samples: higher rungs bring no clipped sample back.
        preset, ranges = ways[max(range(len(ways)), key=lambda number: (ranks[number][0], ranks[number][-1]))]
        result = quantized(model, source, preset, progress, fast=False, ranges=ranges)
        description = _description(source, (preset, ranges), "full", model, result)
        yield Candidate("bias-correction", description, save_packed(result, folder / "bias-correction"))
        yield None
    best = fallback(source, Layers(model, result), description, folder, judge, progress)
    if best is not None:
        yield best
        yield None


def from_qat(source: Source, qat: QatModel, folder: Path) -> Candidate:
    """The retrained student's Q/DQ ONNX as IR: FakeQuantize with the trained ranges, int8 weights as they are.

    Raises KdcError where no weight came out as int8.
    """
    model = save(converted(qat.onnx_file), folder, half=False)
    if not weight_bytes(ir_constants(model)).get("int8"):
        raise KdcError("OpenVINO found no int8 weights in the Q/DQ ONNX of the retrained student")
    return Candidate("qat", "retrained under fake quantization; its Q/DQ ONNX by openvino.convert_model", model)


def _skeleton(source: Source, folder: Path) -> Path:
    """The first rung's graph, from as few samples as NNCF takes."""
    few = replace(source, calibration=source.calibration.first(source.profile.batch, source.onnx_file.parent))
    preset, ranges = OF_TOKENS if source.takes_tokens else WAYS[0]
    return save_packed(quantized(converted(source.onnx_file), few, preset, Silent(), fast=True, ranges=ranges), folder)


OPENVINO = Quantizer(openvino_scheme, candidates, from_qat, _skeleton)


def _description(source: Source, way: Way, correction: str, model: Any, result: Any) -> str:
    before, after = biases(model), biases(result)
    changed = sum(not np.array_equal(bias, after[name]) for name, bias in before.items())
    weights = "7-bit weights, " if saturates(source.profile) else ""
    corrected = f"{correction} bias correction (changed {changed} of {len(before)} biases)"
    return f"NNCF, preset {way[0]}, {way[1]} ranges, {weights}{corrected}"
