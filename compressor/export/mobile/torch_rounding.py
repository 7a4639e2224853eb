"""A student that rounds in torch as int8 kernels do: what rounding shifts, and which layers it hurts.

For runtimes whose own tools correct no biases and measure no layer. Only choices are made from it, on training
images; what they are worth is scored in the runtime itself.
"""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.export.base import Source
from compressor.export.calibration import batches
from compressor.export.sensitivity import divergence
from compressor.modes import evaluating
from compressor.progress import Progress
from compressor.quantization.fake_quant import add_fake_quant
from compressor.quantization.folding import fold_batchnorm
from compressor.quantization.plan import quant_plan
from compressor.quantization.ranges import calibrate
from compressor.schema.quantization import Quantization, Scheme
from compressor.tasks.base import example_inputs

__all__ = ["Rounded", "bias_corrected", "layers_by_cost", "left_in_float", "rounded"]

SAMPLES = 64
"""How many training samples biases are corrected on, and layers are measured on."""


@dataclass(frozen=True)
class Rounded:
    """`network`: the student with its BatchNorms folded, in float. `quantization`: what it rounds to, and where.
    `inputs`: training samples as the network takes them."""

    network: nn.Module
    quantization: Quantization
    inputs: tuple[Tensor, ...]

    @property
    def gates(self) -> frozenset[str]:
        return left_in_float(self.network, self.quantization)


def rounded(source: Source, scheme: Scheme) -> Rounded:
    """The student of `source` with ranges from its calibration images. Raises KdcError where these are too few."""
    example = example_inputs(source.preprocess.inputs)
    network = fold_batchnorm(source.network, example).requires_grad_(False)
    plan = quant_plan(network, example)
    inputs = [tuple(map(torch.from_numpy, batch.values())) for batch in batches(source)]
    quantization = calibrate(network, plan, scheme, inputs)
    return Rounded(network, quantization, tuple(torch.cat(parts)[:SAMPLES] for parts in zip(*inputs, strict=True)))


def left_in_float(network: nn.Module, quantization: Quantization) -> frozenset[str]:
    """Paths of the convolutions and linear layers that `quantization` does not name, which are those of squeeze-excite,
    and of the modules that they lie in, which multiply with what they answer."""
    layers = [path for path, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    floats = {path for path in layers if path not in quantization.inputs}
    return frozenset(floats | {path.rpartition(".")[0] for path in floats if "." in path})


def bias_corrected(student: Rounded) -> nn.Module:
    """A copy of the float network, to be quantized in its place: from each bias is subtracted what rounding adds to the
    mean of that channel.

    Nagel et al. 2019 (arXiv 1906.04721), section 4.2, the empirical variant. One pass: a layer is corrected as soon as
    it has answered, so that the next ones see what the runtime will show them.
    """
    network, paths = copy.deepcopy(student.network), tuple(student.quantization.inputs)
    for path in paths:
        layer: Any = network.get_submodule(path)
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(len(layer.weight)), requires_grad=False)
    wanted: dict[str, Tensor] = {}

    def observe(module: nn.Module, args: Any, answer: Tensor, path: str) -> None:
        wanted[path] = _channel_means(module, answer)

    def correct(module: nn.Module, args: Any, answer: Tensor, path: str) -> Tensor:
        shift = _channel_means(module, answer) - wanted[path]
        network.get_submodule(path).bias -= shift  # type: ignore[operator]
        return answer - (shift[:, None, None] if isinstance(module, nn.Conv2d) else shift)

    # Outputs are not rounded here: their ranges begin where an activation clips, and the means are those before it.
    rounding = add_fake_quant(network, student.quantization.model_copy(update={"outputs": {}}))
    for model, hook in ((network, observe), (rounding, correct)):
        handles = [model.get_submodule(path).register_forward_hook(partial(hook, path=path)) for path in paths]
        with evaluating(model):
            model(*student.inputs)
        for handle in handles:
            handle.remove()
    return network


def _channel_means(layer: nn.Module, answer: Tensor) -> Tensor:
    """[channels] of a convolution's [B, channels, height, width] or a linear layer's [..., channels]."""
    channel = 1 if isinstance(layer, nn.Conv2d) else answer.ndim - 1
    return answer.mean(dim=[number for number in range(answer.ndim) if number != channel])


def layers_by_cost(student: Rounded, progress: Progress) -> list[str]:
    """The paths of the layers that round, those first that hurt most: by KL(fp32 || rounded) of the logits where that
    layer alone rounds."""
    wanted = _logits(student.network, student.inputs)
    costs = {}
    paths = list(student.quantization.inputs)
    for path in progress.track(paths, len(paths), "sensitivity of layers"):
        every = {"inputs": student.quantization.inputs, "outputs": student.quantization.outputs}
        single = {end: {path: ranges[path]} if path in ranges else {} for end, ranges in every.items()}
        alone = add_fake_quant(student.network, student.quantization.model_copy(update=single))
        costs[path] = divergence(wanted, _logits(alone, student.inputs))
    return sorted(costs, key=lambda path: costs[path], reverse=True)


def _logits(network: nn.Module, inputs: tuple[Tensor, ...]) -> NDArray[np.float32]:
    with evaluating(network):
        answer: NDArray[np.float32] = network(*inputs).numpy()
    return answer
