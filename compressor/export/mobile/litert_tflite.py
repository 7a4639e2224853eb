"""LiteRT: litert-torch converts, AI Edge Quantizer makes int8 of what came out.

    ptq               ranges of all that was seen, and those of least squared error; with squeeze-excite in int8, and in
                      float
    bias-correction   the best of these, its biases corrected in a simulation
    fallback          of that, the layers that cost most back in float

Weights int8 with a scale a channel, activations int8 with a zero point (ai.google.dev/edge/litert, "LiteRT 8-bit
quantization specification"). The model takes NCHW, as all the models of a bundle do, and transposes that itself.
"""

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compressor.errors import KdcError, needs
from compressor.export.base import Artefact, Builder, Candidate, Judge, QatModel, Quantizer, Source
from compressor.export.calibration import batches
from compressor.export.mobile.sizes import tflite_constants
from compressor.export.mobile.torch_rounding import bias_corrected, layers_by_cost, left_in_float, rounded
from compressor.export.quiet import quiet
from compressor.export.sensitivity import growing_sets
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES
from compressor.schema.profile import Profile
from compressor.schema.quantization import Quantization, Scheme

__all__ = ["BUILDER", "LITERT", "litert_scheme", "scope", "to_litert"]

MODEL = "model.tflite"
FAILED = "LiteRT cannot convert the network"
LAYERS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
MOVES = {"PAD", "PADV2", "TRANSPOSE", "RESHAPE"}
"""Operators that change no value: their output is on their input's scale."""

Ranges = dict[str, dict[str, NDArray[np.float32]]]
"""Tensor -> {"min", "max"}, as AI Edge Quantizer keeps them."""


def to_litert(source: Source, precision: str, folder: Path) -> Artefact:
    """Write FOLDER/model.tflite: float32 [profile.batch, 3, height, width] -> logits. Raises KdcError: exit 4 without
    litert-torch, 2 where it cannot convert the network."""
    _needed()
    return Artefact(_written(_converted(source, source.network), folder), "litert_torch.convert")


def litert_scheme(profile: Profile) -> Scheme:
    """int8 with a zero point, which is uint8 shifted by 128."""
    return Scheme(activations="uint8")


def candidates(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
    """The rungs of post-training quantization, None after each. Raises KdcError: exit 4 without litert-torch."""
    _needed()
    student = rounded(source, litert_scheme(source.profile))
    plain = Float(source, student.network)
    plans = [
        (floats, ranges, f"AI Edge Quantizer, {description}{' and squeeze-excite in float' if floats else ''}")
        for floats, (ranges, description) in product(
            dict.fromkeys((frozenset[str](), student.gates)),
            ((None, "ranges of all that was seen"), (student.quantization, "ranges of least squared error")),
        )
    ]
    made, ranks = [], []
    for number, (floats, ranges, description) in enumerate(plans):
        made.append(Candidate("ptq", description, plain.quantized(floats, ranges, folder / f"ptq-{number}")))
        ranks.append(judge.rank(judge(made[-1].model, "litert", "int8")))
        yield made[-1]
    yield None
    best = ranks.index(max(ranks))
    floats, ranges, description = plans[best]
    shifted = Float(source, bias_corrected(student))
    corrected = shifted.quantized(floats, ranges, folder / "bias-correction")
    yield Candidate("bias-correction", f"{description}; biases corrected", corrected)
    yield None
    if judge.rank(judge(corrected, "litert", "int8")) > ranks[best]:
        plain, description = shifted, f"{description}; biases corrected"
    total = len(student.quantization.inputs)
    for layers in growing_sets(layers_by_cost(student, progress)):
        model = plain.quantized(floats | set(layers), ranges, folder / f"fallback-{len(layers)}")
        yield Candidate("fallback", f"{description}; {len(layers)} of {total} layers in float", model)
        yield None  # a rung of its own: the fewest layers that do are enough


def from_qat(source: Source, qat: QatModel, folder: Path) -> Candidate:
    """The retrained student with its own ranges, and in float what was in float when it was trained."""
    _needed()
    floats = left_in_float(qat.float_network, qat.record)
    model = Float(source, qat.float_network).quantized(floats, qat.record, folder)
    return Candidate("qat", "retrained under fake quantization; AI Edge Quantizer with the trained ranges", model)


def _skeleton(source: Source, folder: Path) -> Path:
    """The first rung's first model; from the float one, where that was made of the same network beside it."""
    _needed()
    beside = folder.with_name("litert-fp32") / MODEL
    plain = Float(source, source.network, beside.read_bytes() if beside.is_file() else None)
    return plain.quantized(frozenset(), None, folder)


LITERT = Quantizer(litert_scheme, candidates, from_qat, _skeleton)
BUILDER = Builder(to_litert, tflite_constants, LITERT)


@dataclass(frozen=True)
class Operator:
    """One operator of the float model, its tensors by name."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Float:
    """A network converted in float (`model`: done before) and calibrated once, to be quantized in several ways."""

    def __init__(self, source: Source, network: nn.Module, model: bytes | None = None) -> None:
        self._network = network
        self._model = _converted(source, network) if model is None else model
        self._operators = _operators(self._model)
        self._layers, self._nameless = _by_layer(network, self._operators)
        self._calibrated = self._calibrate(source)

    def quantized(self, floats: frozenset[str], ranges: Quantization | None, folder: Path) -> Path:
        """Write it in int8. `floats`: paths of modules whose own operations stay in float; `ranges`: those that are
        fixed, by layer, instead of what calibration found."""
        calibrated = self._calibrated if ranges is None else self._fixed(ranges)
        with quiet(FAILED):
            quantizer = self._quantizer()
            for pattern in self._scopes(floats):
                quantizer.update_quantization_recipe(pattern, "*", algorithm_key="no_quantize")
            made = bytes(quantizer.quantize(calibrated, enable_progress_report=False).quantized_model)
        return _written(made, folder)

    def _scopes(self, floats: frozenset[str]) -> list[str]:
        """Regular expressions for what the operators of these modules put out. The last layer puts out the model's
        output, which has a name of its own: layers are found by their weights."""
        layers = [path for path in floats if isinstance(self._network.get_submodule(path), nn.Conv2d | nn.Linear)]
        outputs = [f"^{re.escape(operator.outputs[0])};" for path in layers for operator in self._operators_of(path)]
        return sorted([*outputs, *(scope(self._network, path) for path in floats)])

    def _quantizer(self) -> Any:
        recipe = importlib.import_module("ai_edge_quantizer.recipe")
        quantizer = importlib.import_module("ai_edge_quantizer.quantizer").Quantizer(
            self._model, recipe.static_wi8_ai8()
        )
        for end in ("INPUT", "OUTPUT"):  # float32 for whoever calls the model
            quantizer.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
        return quantizer

    def _calibrate(self, source: Source) -> Ranges:
        """The extremes of each tensor. The quantizer's own way is their moving average over single images, which cuts
        off what few images have, the highest logits above all."""
        library = importlib.import_module("ai_edge_quantizer.calibrator")
        extremes = importlib.import_module("ai_edge_quantizer.utils.qsv_utils").min_max_update
        manager = importlib.import_module("ai_edge_quantizer.recipe_manager").RecipeManager()
        with quiet(FAILED):
            manager.load_quantization_recipe(self._quantizer().get_quantization_recipe())
            name, ends = next(iter(_interpreter(self._model).get_signature_list().items()))
            images = [dict(zip(ends["inputs"], batch.values(), strict=True)) for batch in batches(source)]
            calibrator = library.Calibrator(self._model, num_threads=1, qsv_update_func=extremes)
            calibrator.calibrate({name: images}, manager)
            return dict(calibrator.get_model_qsvs())

    def _fixed(self, ranges: Quantization) -> Ranges:
        """What calibration found, but for the inputs of the layers in `ranges`, and for their outputs where these have
        ranges of their own. A tensor has one range, for all that take it: the widest."""
        maker = {tensor: operator for operator in self._operators for tensor in operator.outputs}
        wanted: dict[str, list[tuple[float, float]]] = {}
        for path, bounds in ranges.inputs.items():
            for layer in self._operators_of(path):
                wanted.setdefault(layer.inputs[0], []).append(bounds)
                if path in ranges.outputs:
                    wanted.setdefault(layer.outputs[0], []).append(ranges.outputs[path])
        for tensor in list(wanted):
            before = tensor
            while before in maker and maker[before].name in MOVES:
                bounds_here, before = wanted[before], maker[before].inputs[0]
                wanted.setdefault(before, []).extend(bounds_here)
        fixed = dict(self._calibrated)
        for tensor, each in wanted.items():
            if tensor in fixed:
                low, high = min(bound for bound, _ in each), max(bound for _, bound in each)
                old = fixed[tensor]
                fixed[tensor] = {**old, "min": np.full_like(old["min"], low), "max": np.full_like(old["max"], high)}
        return fixed

    def _operators_of(self, path: str) -> list[Operator]:
        """What a convolution or linear layer became; nothing where it was folded away, for weights that are all 0.
        Raises KdcError where it may be there under another name: it would be quantized otherwise than it should be."""
        if not self._layers[path] and self._nameless:
            raise KdcError(f"LiteRT: the layer {path} of the network is not in the converted model under its name")
        return self._layers[path]


def _needed() -> None:
    for module in ("litert_torch", "ai_edge_quantizer"):
        needs(module, RUNTIMES["litert"].install, "a LiteRT export")


def _converted(source: Source, network: nn.Module) -> bytes:
    example = source.example()
    with quiet(FAILED):
        # Or JAX, which litert-torch uses, warns at every later fork of this process that its child must not use JAX.
        importlib.import_module("jax._src.xla_bridge")._at_fork_handler_installed = True  # type: ignore[attr-defined]
        model = importlib.import_module("litert_torch").convert(network.eval(), example)
        return bytes(model.model_content())


def _interpreter(model: bytes) -> Any:
    """Without delegates, so that its operators are those of the file."""
    library = importlib.import_module("ai_edge_litert.interpreter")
    plain = library.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return library.Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=plain)


def _operators(model: bytes) -> list[Operator]:
    with quiet(FAILED):
        interpreter = _interpreter(model)
        names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
        return [
            Operator(
                row["op_name"],
                tuple(names[number] for number in row["inputs"] if number in names),
                tuple(names[number] for number in row["outputs"]),
            )
            for row in interpreter._get_ops_details()  # the only way to the operators from Python
        ]


def _by_layer(network: nn.Module, operators: list[Operator]) -> tuple[dict[str, list[Operator]], list[Operator]]:
    """Path of a convolution or linear layer -> the operators that it became, whose weight bears its name; and those
    that bear no layer's."""
    heavy = [operator for operator in operators if operator.name in LAYERS]
    paths = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    layers = {
        path: [operator for operator in heavy if re.search(scope(network, path), operator.inputs[1])] for path in paths
    }
    return layers, [operator for operator in heavy if not any(operator in group for group in layers.values())]


def scope(network: nn.Module, path: str) -> str:
    """A regular expression for the tensors that the module at `path` makes itself. litert-torch names a tensor after
    the modules around the operation, "pkg.Net/torch.nn.modules.conv.Conv2d_stem;", several one after the other where
    operations were fused."""
    name, module = _kind(network), network
    for part in path.split("."):
        module = module.get_submodule(part)
        name += f"/{_kind(module)}_{part}"
    return f"(^|;){re.escape(name)};"


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _written(model: bytes, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MODEL
    file.write_bytes(model)
    return file
