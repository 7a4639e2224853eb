"""The simulation of rounding: means that come back, and the layer that hurts found."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from tests.export import mobile_kit as kit
else:
    import mobile_kit as kit

from compressor.export.mobile.torch_rounding import Rounded, bias_corrected, layers_by_cost, rounded
from compressor.progress import Silent
from compressor.quantization.fake_quant import add_fake_quant
from compressor.schema.quantization import Scheme


@pytest.fixture(scope="module")
def student() -> Rounded:
    return rounded(kit.source(), Scheme(activations="uint8"))


def test_gates_are_no_layers_to_round(student: Rounded) -> None:
    assert student.gates == {"gate", "gate.reduce", "gate.expand"}
    assert set(student.quantization.inputs) == {"stem.0", "deep.0", "head"}
    assert student.inputs[0].shape == (48, 3, kit.SIDE, kit.SIDE)


def test_corrected_biases_bring_the_means_of_the_logits_back(student: Rounded) -> None:
    # Coarse ranges: rounding shifts the means by far more than chance does.
    inputs = {path: (low * 20, high * 20) for path, (low, high) in student.quantization.inputs.items()}
    coarse = replace(student, quantization=student.quantization.model_copy(update={"inputs": inputs, "outputs": {}}))
    wanted = student.network(*student.inputs).mean(0)
    before = add_fake_quant(student.network, coarse.quantization)(*student.inputs).mean(0) - wanted
    corrected = bias_corrected(coarse)
    after = add_fake_quant(corrected, coarse.quantization)(*student.inputs).mean(0) - wanted
    assert after.abs().max() < 1e-5 < 1e-3 < before.abs().max()
    # Only biases differ, and the student itself is as it was.
    for (name, ours), theirs in zip(corrected.state_dict().items(), student.network.state_dict().values(), strict=True):
        assert name.endswith(".bias") or torch.equal(ours, theirs)
    assert torch.equal(student.network(*student.inputs).mean(0), wanted)


def test_the_layer_with_the_coarsest_steps_costs_most(student: Rounded) -> None:
    low, high = student.quantization.inputs["deep.0"]
    wide = {**student.quantization.inputs, "deep.0": (low * 50, high * 50)}
    coarse = replace(student, quantization=student.quantization.model_copy(update={"inputs": wide}))
    assert layers_by_cost(coarse, Silent())[0] == "deep.0"
