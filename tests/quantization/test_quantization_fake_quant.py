"""Fake quantization: the numbers, the gradients, which layers, and which ranges."""

from math import inf

import numpy as np
import pytest
import timm
import torch
from onnx import numpy_helper
from timm.layers import Conv2dSame, SqueezeExcite
from torch import Tensor, nn

from compressor.export.onnx.qdq import plan_for, quantize
from compressor.quantization.fake_quant import (
    LARGEST_WEIGHT,
    Rounding,
    WeightRounding,
    add_fake_quant,
    equalise_channels,
    fake_quant_layers,
    remove_fake_quant,
    restore_channels,
)
from compressor.quantization.folding import fold_batchnorm
from compressor.quantization.plan import QuantPlan, quant_plan
from compressor.quantization.ranges import best_range, calibrate
from compressor.schema.quantization import Quantization, Scheme
from tests.export.ort_kit import make_model

torch.set_num_threads(1)

U8S8, U8S7 = Scheme(activations="uint8"), Scheme(activations="uint8", weight_bits=7)
S8S8 = Scheme(activations="int8")


def test_uint8_rounds_to_steps_with_a_zero_point() -> None:
    """Range (−1, 4.1): a step of 5.1 / 255 = 0.02, and 0 on step 50."""
    rounding = Rounding(-1.0, 4.1, "uint8")
    assert rounding.zero_point == 50
    assert rounding.scale == pytest.approx(0.02)
    values = torch.tensor([-5.0, -1.0, -0.011, 0.0, 0.009, 0.011, 1.234, 4.1, 9.0])
    wanted = [-1.0, -1.0, -0.02, 0.0, 0.0, 0.02, 1.24, 4.1, 4.1]
    assert rounding(values).tolist() == pytest.approx(wanted, abs=1e-6)


def test_int8_is_symmetric() -> None:
    """Range (−0.5, 1.27): 127 steps of 0.01 to the larger side, −128 on the other; 0 on 0."""
    rounding = Rounding(-0.5, 1.27, "int8")
    assert rounding.zero_point == 0
    assert rounding.scale == pytest.approx(0.01)
    values = torch.tensor([-3.0, -0.006, 0.004, 0.126, 1.4])
    assert rounding(values).tolist() == pytest.approx([-1.28, -0.01, 0.0, 0.13, 1.27], abs=1e-6)


@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (-2.0, -0.5), (0.0, 0.0), (-1e-3, 7.7)])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_zero_is_always_on_a_step_since_padding_is_made_of_it(low: float, high: float, activations: str) -> None:
    assert Rounding(low, high, activations)(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


def test_rounding_agrees_with_onnx_arithmetic() -> None:
    """saturate(round_half_even(x / scale) + zero point), in float32."""
    rounding = Rounding(-1.3, 2.9, "uint8")
    values = np.random.default_rng(0).normal(0, 2, 10_000).astype(np.float32)
    scale = np.float32(rounding.scale)
    whole = np.clip(np.rint(values / scale) + rounding.zero_point, 0, 255)
    wanted = (whole.astype(np.float32) - rounding.zero_point) * scale
    np.testing.assert_allclose(rounding(torch.from_numpy(values)).numpy(), wanted, atol=1e-6)


def test_gradients_pass_within_the_range_and_stop_outside() -> None:
    values = torch.tensor([-2.0, -0.5, 0.013, 3.9, 4.5], requires_grad=True)
    (Rounding(-1.0, 4.0, "uint8")(values) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]


@pytest.mark.parametrize(("scheme", "most"), [(U8S8, 127), (U8S7, 64)])
def test_weights_have_a_scale_a_channel(scheme: Scheme, most: int) -> None:
    weight = torch.tensor([[1.0, -0.3, 0.0], [0.001, 0.0004, -0.0007], [0.0, 0.0, 0.0]])
    rounding = WeightRounding(scheme)
    assert rounding.scales(weight)[:2].tolist() == pytest.approx([1 / most, 0.001 / most])
    assert rounding.integers(weight).tolist() == [
        [most, -round(0.3 * most), 0],
        [most, round(0.4 * most), -round(0.7 * most)],
        [0, 0, 0],
    ]
    stored = rounding.integers(weight).float() * rounding.scales(weight)[:, None]
    torch.testing.assert_close(rounding(weight), stored, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scheme", [U8S8, U8S7])
def test_training_and_export_round_weights_to_the_same_integers(scheme: Scheme) -> None:
    model = make_model()
    ranges = dict.fromkeys(plan_for(model, scheme, bias_int32=True).activations, (-8.0, 8.0))
    made = {one.name: numpy_helper.to_array(one) for one in quantize(model, ranges, scheme).graph.initializer}
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for layer in ("stem", "expand", "depthwise", "head"):
        integers = WeightRounding(scheme).integers(torch.tensor(weights[f"{layer}.weight"]))
        np.testing.assert_array_equal(integers, made[f"{layer}.weight_quantized"])


def test_seven_bits_are_what_16_bits_can_hold() -> None:
    """Two products of the largest uint8 and the largest weight."""
    assert 2 * 255 * LARGEST_WEIGHT[7] <= 2**15 - 1 < 2 * 255 * (LARGEST_WEIGHT[7] + 1)


def test_weights_with_one_scale_for_all() -> None:
    weight = torch.tensor([[1.0, -0.3], [0.01, 0.001]])
    integers = WeightRounding(Scheme(activations="int8", per_channel=False)).integers(weight)
    assert integers.tolist() == [[127, -38], [1, 0]]


def test_every_weight_gets_its_gradient() -> None:
    """None is clipped, since the scale follows the largest."""
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    WeightRounding(U8S7)(weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))


class Small(nn.Module):
    """Depthwise and "same" convolutions, squeeze-excite, a sum, ReLU6, hard-swish, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.clip = Conv2dSame(3, 8, 3, stride=2), nn.ReLU6(inplace=True)
        self.depthwise, self.swish = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()
        self.se = SqueezeExcite(8, rd_channels=4)
        self.project = nn.Conv2d(8, 8, 1)
        self.head, self.relu = nn.Conv2d(8, 12, 1), nn.ReLU()
        self.classifier = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.clip(self.stem(x))
        x = x + self.project(self.se(self.swish(self.depthwise(x))))
        x = self.relu(self.head(x.mean((2, 3), keepdim=True)))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def images(n: int = 4, size: int = 16) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("size", [16, 2])
def test_the_plan_follows_the_values(small: nn.Module, size: int) -> None:
    """Gates stay in float, even where maps are 1×1; a convolution on pooled values that gates nothing does not."""
    plan = quant_plan(small, (torch.zeros(1, 3, size, size),))
    assert plan.inputs == ("stem", "depthwise", "project", "head", "classifier")
    # The stem's answer goes, clipped, into `depthwise` but into the sum too; the head's is reshaped by flatten.
    assert plan.outputs == {"stem": (0.0, 6.0), "depthwise": (-inf, inf), "project": (-inf, inf), "head": (0.0, inf)}


def test_an_answer_that_only_quantized_layers_take_needs_no_range_of_its_own() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)).eval()
    assert quant_plan(network, (torch.zeros(1, 3, 9, 9),)) == QuantPlan(("0", "2", "3"), {})


def test_real_networks_keep_all_their_gates_in_float() -> None:
    network = timm.create_model("mobilenetv3_small_050", num_classes=5).eval()
    example = torch.zeros(1, 3, 32, 32)  # its last maps are 1×1
    folded = fold_batchnorm(network, (example,))
    plan = quant_plan(folded, (example,))
    layers = [path for path, layer in folded.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert set(layers) - set(plan.inputs) == {path for path in layers if ".se." in path}
    assert len(plan.inputs) == 36


def quantized(network: nn.Module, scheme: Scheme = U8S8) -> tuple[nn.Module, Quantization]:
    plan = quant_plan(network, (torch.zeros(1, 3, 16, 16),))
    quantization = calibrate(network, plan, scheme, [(images(8),), (images(6),)])
    return add_fake_quant(network, quantization), quantization


def test_layers_keep_their_paths_and_their_state(small: nn.Module) -> None:
    before = {key: value.clone() for key, value in small.state_dict().items()}
    network, quantization = quantized(small)
    assert list(fake_quant_layers(network)) == list(quantization.inputs)
    assert not fake_quant_layers(small), "a copy was changed"
    assert network.state_dict().keys() == before.keys()
    assert isinstance(network.get_submodule("stem"), Conv2dSame)
    with torch.no_grad():
        assert not torch.equal(network(images()), small(images()))
        assert torch.equal(remove_fake_quant(network)(images()), small(images()))


def test_a_layer_computes_with_rounded_input_and_weight(small: nn.Module) -> None:
    network, quantization = quantized(small)
    values = torch.randn(3, 12)
    x = Rounding(*quantization.inputs["classifier"], "uint8")(values)
    plain = small.get_submodule("classifier")
    assert isinstance(plain, nn.Linear)
    with torch.no_grad():
        wanted = x @ WeightRounding(U8S8)(plain.weight).T + plain.bias
        found = network.get_submodule("classifier")(values)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("scheme", [U8S8, U8S7, S8S8])
def test_eight_bits_change_little_and_not_nothing(small: nn.Module, scheme: Scheme) -> None:
    network, _ = quantized(small, scheme)
    with torch.no_grad():
        wanted, found = small(images(64)), network(images(64))
    error = float((wanted - found).square().sum() / wanted.square().sum())
    assert 1e-7 < error < 1e-2


def test_all_weights_of_a_quantized_network_are_trained(small: nn.Module) -> None:
    network, _ = quantized(small)
    network.train()
    network(images(16)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_channels_trained_in_equal_units_compute_the_same(small: nn.Module) -> None:
    network, _ = quantized(small)
    with torch.no_grad():
        network.get_submodule("project").weight[0] *= 1e-3  # type: ignore[operator, index]
        network.get_submodule("project").weight[1] = 0.0  # type: ignore[operator]
        wanted, before = network(images()), {key: value.clone() for key, value in network.state_dict().items()}
        equalise_channels(network)
        weight = network.get_submodule("project").weight
        assert isinstance(weight, Tensor)
        sizes = weight.flatten(1).square().mean(dim=1).sqrt()
        assert sizes.tolist() == pytest.approx([(2 / 8) ** 0.5 if row != 1 else 0.0 for row in range(8)])
        torch.testing.assert_close(network(images()), wanted, rtol=1e-4, atol=1e-5)
        restore_channels(network)
        torch.testing.assert_close(network.state_dict(), before, rtol=1e-6, atol=0)
        torch.testing.assert_close(network(images()), wanted, rtol=1e-4, atol=1e-5)


def test_ranges_hold_what_calibration_saw(small: nn.Module) -> None:
    _, quantization = quantized(small)
    low, high = quantization.inputs["depthwise"]  # after ReLU6
    assert low == 0.0
    assert 0.5 < high <= 6.0
    assert quantization.outputs["stem"][0] == 0.0
    low, high = quantization.inputs["project"]  # after hard-swish, which is never below −0.375
    assert -0.375 <= low < 0 < high


@pytest.mark.parametrize("scheme", [U8S8, S8S8])
def test_a_range_leaves_out_what_costs_more_than_it_is_worth(scheme: Scheme) -> None:
    """One outlier of 100 among 10,000 normal values: the whole range has steps of 0.4, each with a squared error of
    step² / 12; an exhaustive search over 1,000 ranges finds nothing that is better by more than a tenth."""
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    extremes = torch.tensor([float(values.min()), 100.0])
    low, high = best_range(values, extremes, scheme)

    def error(bounds: tuple[float, float]) -> float:
        return float((Rounding(*bounds, scheme.activations)(values) - values).square().mean())

    searched = [error((max(low, -size), size)) for size in np.linspace(0.5, 100, 1000)]
    assert error((low, high)) <= 1.1 * min(searched)
    assert error((low, high)) < 0.1 * error((float(values.min()), 100.0))


def test_values_that_are_all_zero_have_a_range(small: nn.Module) -> None:
    zeros = torch.zeros(10)
    assert best_range(zeros, zeros, U8S8) == (0.0, 0.0)
    assert best_range(zeros, zeros, S8S8) == (0.0, 0.0)
