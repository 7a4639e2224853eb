"""bind: what a recipe may write in a row of `losses`."""

import inspect

import pytest
import torch

from compressor.errors import KdcError
from compressor.losses import LOSSES, bind
from compressor.losses.logits import kd


def test_parameters_are_filled_in() -> None:
    function, needs = bind("kd", {"temperature": 2}, "recipe losses.0")
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert needs == ("student_logits", "teacher_logits")
    assert function(student, teacher) == kd(student, teacher, temperature=2.0)


def test_without_parameters_the_defaults_hold() -> None:
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert bind("kd", {}, "x")[0](student, teacher) == kd(student, teacher)


def test_every_row_names_the_range_of_each_parameter_and_its_default_lies_inside() -> None:
    for loss in LOSSES.values():
        keywords = {
            p.name: p.default for p in inspect.signature(loss.function).parameters.values() if p.kind is p.KEYWORD_ONLY
        }
        assert keywords.keys() == loss.ranges.keys()
        assert all(loss.ranges[name][0] <= default <= loss.ranges[name][1] for name, default in keywords.items())
        assert loss.paper


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "cros_entropy",
            {},
            "recipe losses.0: unknown loss cros_entropy; did you mean cross_entropy?; known: kd, cross",
        ),
        ("torch.nn.MSELoss", {}, "unknown loss torch.nn.MSELoss; known: kd, cross_entropy"),
        ("kd", {"temprature": 4}, "loss kd has no parameter temprature; did you mean temperature?"),
        (
            "cross_entropy",
            {"temperature": 4},
            "loss cross_entropy has no parameter temperature; known: label_smoothing",
        ),
        ("hint", {"temperature": 4}, "loss hint has no parameter temperature; it has none"),
        ("dkd", {"beta": -1}, "dkd.beta must be a number from 0 to 100, found -1"),
        ("early_exits", {"alpha": 1.5}, "early_exits.alpha must be a number from 0 to 1, found 1.5"),
        ("kd", {"temperature": 0}, "kd.temperature must be a number from 0.001 to 1000, found 0"),
        ("kd", {"temperature": 1001}, "found 1001"),
        ("kd", {"temperature": True}, "found True"),
        ("kd", {"temperature": "4"}, "found '4'"),
        ("kd", {"temperature": None}, "found None"),
        ("kd", {"temperature": float("nan")}, "found nan"),
        ("kd", {"temperature": float("inf")}, "found inf"),
        ("cross_entropy", {"label_smoothing": 1.0}, "must be a number from 0 to 0.999, found 1.0"),
    ],
)
def test_what_cannot_be_bound_is_refused_by_name(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(KdcError) as caught:
        bind(name, parameters, "recipe losses.0")
    assert message in caught.value.message
    assert caught.value.message.startswith("recipe losses.0: ")
