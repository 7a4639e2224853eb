"""Fake quantization: a float network that rounds where an int8 kernel will, so that it can be trained to bear it.

Jacob et al. 2018 (arXiv 1712.05877). Gradients pass straight through the rounding, and are 0 where a value is clipped
(Bengio et al. 2013, arXiv 1308.3432). Activations have fixed ranges, from training images; the scales of weights
follow the weights.
"""

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers import Linear as TimmLinear
from timm.layers.conv2d_same import conv2d_same
from torch import Tensor, nn

from compressor.schema.quantization import Quantization, Scheme

__all__ = [
    "LARGEST_WEIGHT",
    "FakeQuantLayer",
    "Rounding",
    "WeightRounding",
    "add_fake_quant",
    "equalise_channels",
    "fake_quant_layers",
    "remove_fake_quant",
    "restore_channels",
]


SMALLEST = float(np.finfo(np.float32).tiny) * 2**10
"""Scales below it stand for values that are all 0."""

LARGEST_WEIGHT = {8: 127, 7: 64}
"""Bits of a weight -> the integer that its largest value becomes; symmetric. x86 without VNNI adds two products of
uint8 by int8 in 16 bits, which end at 32,767: 2 · 255 · 64 = 32,640 still fits, and 65 would saturate."""


class Rounding(nn.Module):
    """An activation, any shape, rounded to 256 values a step `scale` apart, a scale a tensor, as QuantizeLinear and
    DequantizeLinear do (onnx.ai/onnx/operators/onnx__QuantizeLinear.html).

    "uint8": (low, high), widened to hold 0, lies on 0 … 255, and 0 on a whole step, `zero_point`, since padding is
    made of it. "int8": the larger of |low| and |high| lies on 127, and 0 on 0.
    """

    def __init__(self, low: float, high: float, activations: str) -> None:
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        if activations == "uint8":
            self.least, self.most = 0, 255
            self.scale = _float32((high - low) / 255)
            self.zero_point = min(max(round(-low / self.scale), 0), 255)
        else:
            self.least, self.most = -128, 127
            self.scale = _float32(max(-low, high) / 127)
            self.zero_point = 0

    def forward(self, values: Tensor) -> Tensor:
        # In float32 under autocast too: bfloat16 has fewer than 256 steps.
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(
            values.float(), self.scale, self.zero_point, self.least, self.most
        )
        return rounded

    def extra_repr(self) -> str:
        return f"scale={self.scale:.4g}, zero_point={self.zero_point}, {self.least}…{self.most}"


class WeightRounding(nn.Module):
    """A weight [out, …] rounded to whole steps, symmetric: the largest of a channel (or of all) lies on the last.
    `gain` [out, 1, …]: multiplied with the weight before that, while it is trained in other units."""

    gain: Tensor | None

    def __init__(self, scheme: Scheme) -> None:
        super().__init__()
        self.register_buffer("gain", None)
        self.most = LARGEST_WEIGHT[scheme.weight_bits]
        self.per_channel = scheme.per_channel

    def scales(self, weight: Tensor) -> Tensor:
        """float32 [out], or [] where one scale serves all."""
        size = weight.detach().abs()
        largest = size.flatten(1).amax(dim=1) if self.per_channel else size.amax()
        return (largest / self.most).clamp(min=SMALLEST)

    def integers(self, weight: Tensor) -> Tensor:
        """int8 [out, …]: what is stored, within ± `most`."""
        scales = self.scales(weight)
        steps: Tensor = self(weight).detach() / scales.view(-1, *[1] * (weight.ndim - 1))
        return steps.round().to(torch.int8)

    def forward(self, weight: Tensor) -> Tensor:
        if self.gain is not None:
            weight = weight * self.gain
        scales = self.scales(weight)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        if self.per_channel:
            rounded: Tensor = torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -self.most, self.most)
        else:
            rounded = torch.fake_quantize_per_tensor_affine(weight, scales, zeros, -self.most, self.most)
        return rounded

    def extra_repr(self) -> str:
        return f"±{self.most}, {'per channel' if self.per_channel else 'per tensor'}"


def _float32(scale: float) -> float:
    """The scale as it is stored; 1 for a tensor that is always 0."""
    return float(np.float32(scale)) if scale > SMALLEST else 1.0


class FakeQuantLayer(nn.Module):
    """A layer that rounds its input and weight, and its output where that is asked for. It keeps the parameters, the
    path and all attributes of the float layer, so that both have the same state dict."""

    input_rounding: nn.Module
    weight_rounding: nn.Module
    output_rounding: nn.Module


class _Conv2d(FakeQuantLayer, nn.Conv2d):
    def forward(self, values: Tensor) -> Tensor:
        weight = self.weight_rounding(self.weight)
        answer: Tensor = self.output_rounding(self._conv_forward(self.input_rounding(values), weight, self.bias))
        return answer


class _Conv2dSame(FakeQuantLayer, Conv2dSame):  # type: ignore[misc]
    def forward(self, values: Tensor) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        weight = self.weight_rounding(self.weight)
        answer: Tensor = self.output_rounding(conv2d_same(self.input_rounding(values), weight, self.bias, *geometry))
        return answer


class _Linear(FakeQuantLayer, nn.Linear):
    def forward(self, values: Tensor) -> Tensor:
        weight = self.weight_rounding(self.weight)
        answer: Tensor = self.output_rounding(F.linear(self.input_rounding(values), weight, self.bias))
        return answer


class _TimmLinear(_Linear, TimmLinear):  # type: ignore[misc]
    pass


FAKE_QUANT: dict[type[nn.Module], type[FakeQuantLayer]] = {
    nn.Conv2d: _Conv2d,
    Conv2dSame: _Conv2dSame,
    nn.Linear: _Linear,
    TimmLinear: _TimmLinear,
}
"""Layer -> the same with fake quantization. Others run in float."""


def add_fake_quant(network: nn.Module, quantization: Quantization) -> nn.Module:
    """A copy of `network` in which the layers that `quantization` names round to its ranges."""
    quantized, scheme = copy.deepcopy(network), quantization.scheme
    for path, bounds in quantization.inputs.items():
        layer = quantized.get_submodule(path)
        kind = FAKE_QUANT[type(layer)]
        layer.input_rounding = Rounding(*bounds, scheme.activations)
        layer.weight_rounding = WeightRounding(scheme)
        output = quantization.outputs.get(path)
        layer.output_rounding = nn.Identity() if output is None else Rounding(*output, scheme.activations)
        layer.__class__ = kind  # keeps parameters, path and attributes, which networks may read
    return quantized


def remove_fake_quant(network: nn.Module) -> nn.Module:
    """A copy of `network` with the same weights that rounds nowhere."""
    plain = copy.deepcopy(network)
    float_kinds: Mapping[type[nn.Module], type[nn.Module]] = {after: before for before, after in FAKE_QUANT.items()}
    for layer in fake_quant_layers(plain).values():
        del layer.input_rounding, layer.weight_rounding, layer.output_rounding
        layer.__class__ = float_kinds[type(layer)]  # type: ignore[assignment]
    return plain


def fake_quant_layers(network: nn.Module) -> dict[str, FakeQuantLayer]:
    """Path -> layer with fake quantization."""
    return {path: module for path, module in network.named_modules() if isinstance(module, FakeQuantLayer)}


def equalise_channels(network: nn.Module) -> None:
    """Express the weights of each output channel in units in which they are as large as a new layer's (He et al. 2015,
    arXiv 1502.01852: variance 2 / fan-in). The network computes the same.

    Folding leaves the channels of a layer with sizes that can lie powers of ten apart. The optimizer's steps have one
    size for all: they would overrun the small channels and hardly move the large ones.
    """
    for layer in fake_quant_layers(network).values():
        rounding, weight = layer.weight_rounding, layer.weight
        assert isinstance(rounding, WeightRounding)
        assert isinstance(weight, nn.Parameter)
        with torch.no_grad():
            fan_in = weight[0].numel()
            gain = (weight.flatten(1).square().mean(dim=1) * fan_in / 2).sqrt()
            gain = torch.where(gain > SMALLEST, gain, 1.0).view(-1, *[1] * (weight.ndim - 1))
            weight.div_(gain)
        rounding.gain = gain


def restore_channels(network: nn.Module) -> None:
    """Undo `equalise_channels`: the weights in the units that they are used in."""
    for layer in fake_quant_layers(network).values():
        rounding, weight = layer.weight_rounding, layer.weight
        assert isinstance(rounding, WeightRounding)
        assert isinstance(weight, nn.Parameter)
        if rounding.gain is not None:
            with torch.no_grad():
                weight.mul_(rounding.gain)
            rounding.gain = None
