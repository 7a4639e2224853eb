"""ExecuTorch: torch.export, XNNPACK's partitioner, and its quantizer (PT2E) for int8.

    ptq               all that XNNPACK computes in int8; the same with the gates of squeeze-excite in float
    bias-correction   the better of the two, its biases corrected in a simulation
    fallback          of that, the layers that cost most back in float

pytorch.org/executorch, "XNNPACK Backend / Quantization": weights int8 with a scale a channel, activations int8 with a
zero point, ranges from histograms of training images.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import needs
from compressor.export.base import Artefact, Builder, Candidate, Judge, QatModel, Quantizer, Source
from compressor.export.calibration import batches
from compressor.export.mobile.sizes import pte_constants
from compressor.export.mobile.torch_rounding import bias_corrected, layers_by_cost, left_in_float, rounded
from compressor.export.quiet import quiet
from compressor.export.sensitivity import growing_sets
from compressor.progress import Progress
from compressor.quantization.folding import fold_batchnorm
from compressor.runtimes import RUNTIMES
from compressor.schema.profile import Profile
from compressor.schema.quantization import Quantization, Scheme
from compressor.tasks.base import example_inputs

__all__ = ["BUILDER", "EXECUTORCH", "executorch_scheme", "to_executorch"]

MODEL = "model.pte"
FAILED = "ExecuTorch cannot convert the network"
LAYERS = {"aten.conv2d.default", "aten.conv2d.padding", "aten.linear.default"}
CLIPS = {"aten.relu.default", "aten.relu_.default", "aten.hardtanh.default", "aten.hardtanh_.default"}


def to_executorch(source: Source, precision: str, folder: Path) -> Artefact:
    """Write FOLDER/model.pte: float32 [profile.batch, 3, height, width] -> logits. Raises KdcError: exit 4 without
    executorch, 2 where it cannot convert the network."""
    _needed()
    with quiet(FAILED):
        program = _lowered(torch.export.export(source.network, source.example()))
    return Artefact(_written(program, folder), "torch.export, to_edge_transform_and_lower(XnnpackPartitioner)")


def executorch_scheme(profile: Profile) -> Scheme:
    """XNNPACK's QS8: int8 with a zero point, which is uint8 shifted by 128."""
    return Scheme(activations="uint8")


@dataclass(frozen=True)
class Plan:
    """What to quantize, of all that XNNPACK can. `floats`: paths of modules whose own operations stay in float;
    `ranges`: those that are fixed, by layer, instead of what calibration finds."""

    floats: frozenset[str] = frozenset()
    ranges: Quantization | None = None


def candidates(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
    """The rungs of post-training quantization, None after each. Raises KdcError: exit 4 without executorch."""
    _needed()
    student = rounded(source, executorch_scheme(source.profile))
    plans = [(Plan(), "XNNPACKQuantizer")]
    if student.gates:
        plans.append((Plan(student.gates), "XNNPACKQuantizer, squeeze-excite in float"))
    made, ranks = [], []
    for number, (plan, description) in enumerate(plans):
        made.append(Candidate("ptq", description, quantized(source, student.network, plan, folder / f"ptq-{number}")))
        ranks.append(judge.rank(judge(made[-1].model, "executorch", "int8")))
        yield made[-1]
    yield None
    best = ranks.index(max(ranks))
    plan, description = plans[best]
    network = bias_corrected(student)
    corrected = quantized(source, network, plan, folder / "bias-correction")
    yield Candidate("bias-correction", f"{description}; biases corrected", corrected)
    yield None
    if judge.rank(judge(corrected, "executorch", "int8")) > ranks[best]:
        description = f"{description}; biases corrected"
    else:
        network = student.network
    total = len(student.quantization.inputs)
    for layers in growing_sets(layers_by_cost(student, progress)):
        model = quantized(source, network, Plan(plan.floats | set(layers)), folder / f"fallback-{len(layers)}")
        yield Candidate("fallback", f"{description}; {len(layers)} of {total} layers in float", model)
        yield None  # a rung of its own: the fewest layers that do are enough


def from_qat(source: Source, qat: QatModel, folder: Path) -> Candidate:
    """The retrained student with its own ranges, and in float what was in float when it was trained."""
    _needed()
    plan = Plan(left_in_float(qat.float_network, qat.record), qat.record)
    model = quantized(source, qat.float_network, plan, folder)
    return Candidate("qat", "retrained under fake quantization; XNNPACKQuantizer with the trained ranges", model)


def _skeleton(source: Source, folder: Path) -> Path:
    """The first rung's first program."""
    _needed()
    network = fold_batchnorm(source.network, example_inputs(source.preprocess.inputs)).requires_grad_(False)
    return quantized(source, network, Plan(), folder)


EXECUTORCH = Quantizer(executorch_scheme, candidates, from_qat, _skeleton)
BUILDER = Builder(to_executorch, pte_constants, EXECUTORCH)


def quantized(source: Source, network: nn.Module, plan: Plan, folder: Path) -> Path:
    """Write `network` in int8 as `plan` says, calibrated on all of the calibration images."""
    pt2e = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    with quiet(FAILED):
        example = source.example()
        graph = torch.export.export(network.eval(), example).module()
        prepared = pt2e.prepare_pt2e(graph, _quantizer(plan))
        with torch.no_grad():
            for batch in batches(source):
                prepared(*map(torch.from_numpy, batch.values()))
        if plan.ranges is not None:
            _fix_ranges(prepared, plan.ranges)
        program = _lowered(torch.export.export(pt2e.convert_pt2e(prepared), example))
    return _written(program, folder)


def _needed() -> None:
    for module in ("executorch", "torchao"):
        needs(module, RUNTIMES["executorch"].install, "an ExecuTorch export")


def _quantizer(plan: Plan) -> Any:
    library = importlib.import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")

    def wanted(node: Any) -> bool:
        return _layer_of(node) not in plan.floats

    config = library.get_symmetric_quantization_config(is_per_channel=True)
    quantizer = library.XNNPACKQuantizer().set_global(config).set_filter_function(wanted)
    # In a network for inference nothing is like the patterns of training. To look for them it would export each, a
    # third of the time that something small takes.
    quantizer.SUPPORTED_PATTERNS = [pattern for pattern in quantizer.SUPPORTED_PATTERNS if not pattern.is_qat]
    return quantizer


def _layer_of(node: Any) -> str:
    """The path of the innermost module that a node of the graph comes from."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    return str(list(stack.values())[-1][0])


def _fix_ranges(prepared: Any, ranges: Quantization) -> None:
    """Put the trained range into the observer of each layer's input, and of its output where that has one. A tensor has
    one observer, under a name for each that takes it, and gets the widest of their ranges."""
    names = dict(prepared.named_modules(remove_duplicate=False))
    wanted: dict[int, list[tuple[float, float]]] = {}
    for node in prepared.graph.nodes:
        path = _layer_of(node)
        if str(node.target) not in LAYERS or path not in ranges.inputs:
            continue
        observed = {node.args[0].target: ranges.inputs[path]}
        if path in ranges.outputs:
            observed |= dict.fromkeys(_observers_after(node), ranges.outputs[path])
        for name, bounds in observed.items():
            wanted.setdefault(id(names[name]), []).append(bounds)
    fixed = {number: _observer(bounds) for number, bounds in wanted.items()}
    for name, observer in names.items():
        if id(observer) in fixed:
            prepared.set_submodule(name, fixed[id(observer)])


def _observers_after(node: Any) -> Iterator[str]:
    """The observers of what a layer answers, at most through the activation that is fused into it."""
    for user in node.users:
        if user.op == "call_module":
            yield user.target
        elif str(user.target) in CLIPS:
            yield from _observers_after(user)


def _observer(bounds: list[tuple[float, float]]) -> Any:
    library = importlib.import_module("torchao.quantization.pt2e.observer")
    kept = library.MinMaxObserver(torch.int8, torch.per_tensor_affine, quant_min=-128, quant_max=127, eps=2**-12)
    kept.min_val = torch.tensor(min(low for low, _ in bounds))
    kept.max_val = torch.tensor(max(high for _, high in bounds))
    return kept


def _lowered(program: Any) -> bytes:
    exir = importlib.import_module("executorch.exir")
    partition = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    lower: Callable[..., Any] = exir.to_edge_transform_and_lower
    return bytes(lower(program, partitioner=[partition.XnnpackPartitioner()]).to_executorch().buffer)


def _written(program: bytes, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / MODEL
    model.write_bytes(program)
    return model
