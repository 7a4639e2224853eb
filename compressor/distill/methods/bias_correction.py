"""Classes that a student never saw: their biases are fitted after training, and how well it knows them is told.

Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 3: a student that was shown no image of a digit knows it from
the teacher's soft targets, but finds it too unlikely; a larger bias of that class mends it. The paper fits it on test
images; here it is fitted on validation.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.data.labels import listed
from compressor.data.samples import Dataset
from compressor.data.transfer import classes_without
from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.models.loaded import LoadedModel
from compressor.models.weights import heads
from compressor.modes import evaluating
from compressor.progress import Progress
from compressor.schema.recipe import Transfer
from compressor.stats import per_class_recall, top1, wilson_interval
from compressor.tasks.base import BatchModel, Feed, example_inputs

__all__ = ["add_to_bias", "correct_bias", "fit_bias", "require_correctable", "unseen_recall", "write_history"]

SLOPE = 1e-6
"""Of the mean cross-entropy, below which a fit has come to its minimum."""


def require_correctable(student: LoadedModel, data: Dataset, transfer: Transfer) -> None:
    """Raise KdcError, before any training, where `correct_bias` could not be done after it: the classifier has no bias
    that does nothing but shift a class's logit, or validation does not hold the classes."""
    numbers, classes = classes_without(transfer, data.info.class_names), len(data.info.class_names)
    held = set(data.validation.labels.tolist())
    absent = [data.info.class_names[number] for number in numbers if number not in held]
    if absent:
        raise KdcError(
            f"transfer.correct_bias is fitted on validation, which holds no {data.samples} of {listed(absent)}",
            "add some, or transfer.correct_bias=false",
        )
    if held <= set(numbers):
        raise KdcError(f"transfer.correct_bias: validation holds no classes but {listed(transfer.without)}")
    shift = _shift(student, numbers, classes)
    expected = np.zeros(classes)
    expected[numbers] = 1
    if shift is None or not np.allclose(shift, expected, atol=1e-3):
        raise KdcError(
            f"transfer.correct_bias: {student.weights.architecture} has no classifier bias that could be corrected",
            "choose another student, or transfer.correct_bias=false",
        )


def _shift(student: LoadedModel, numbers: Sequence[int], classes: int) -> NDArray[np.float64] | None:
    """What 1 more of these biases adds to the logits, [C]; None where there are none."""
    example = example_inputs(student.preprocess.inputs)
    state = {name: tensor.clone() for name, tensor in student.network.state_dict().items()}
    with evaluating(student.network):
        before = student.network(*example)
        if not add_to_bias(student.network, numbers, np.ones(len(numbers)), classes):
            return None
        after = student.network(*example)
    student.network.load_state_dict(state)
    shift: NDArray[np.float64] = (after - before)[0].double().numpy()
    return shift


def fit_bias(logits: NDArray[np.floating], labels: NDArray[np.int64], classes: Sequence[int]) -> NDArray[np.float64]:
    """The constants, [K], to add to the logits of these K classes for the smallest mean cross-entropy.

    Logits [N, C], labels [N], which must hold all K classes and another one: then the function is strictly convex and
    has one minimum. With p the probabilities after the shift, its gradient is mean(p_k - [y = k]), and its Hessian
    mean(diag(p) - p pᵀ) over the K classes. Raises KdcError where the minimum is not found, and where a logit is not
    finite.
    """
    from scipy.optimize import minimize  # loads slowly

    double_logits = logits.astype(np.float64)
    if not np.isfinite(double_logits).all():
        raise KdcError("transfer.correct_bias: the student's answers to validation are not all finite")
    chosen = list(classes)
    right = labels[:, None] == np.array(chosen)
    rows = np.arange(len(labels))

    def log_probabilities(constants: NDArray[np.float64]) -> NDArray[np.float64]:
        shifted = double_logits.copy()
        shifted[:, chosen] += constants
        shifted -= shifted.max(axis=1, keepdims=True)
        logs: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return logs

    def value(constants: NDArray[np.float64]) -> float:
        return float(-log_probabilities(constants)[rows, labels].mean())

    def gradient(constants: NDArray[np.float64]) -> NDArray[np.float64]:
        slope: NDArray[np.float64] = (np.exp(log_probabilities(constants)[:, chosen]) - right).mean(axis=0)
        return slope

    def hessian(constants: NDArray[np.float64]) -> NDArray[np.float64]:
        p = np.exp(log_probabilities(constants)[:, chosen])
        curvature: NDArray[np.float64] = np.diag(p.mean(axis=0)) - p.T @ p / len(p)
        return curvature

    solution = minimize(
        value, np.zeros(len(chosen)), jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-9}
    )
    constants = np.asarray(solution.x, np.float64)
    # Not "success" alone: where the slope falls to the last digits, the search may stop a step before it says so.
    if not np.abs(gradient(constants)).max() < SLOPE:
        raise KdcError(f"transfer.correct_bias: no bias could be fitted on validation ({solution.message})")
    return constants


def add_to_bias(network: nn.Module, numbers: Sequence[int], constants: NDArray[np.float64], classes: int) -> bool:
    """Add the constants, [K], to the classifier's biases of these K classes, in place; False where it has none."""
    layers = heads(network, classes)
    if not layers or any(layer.bias is None for layer in layers):
        return False
    with torch.no_grad():
        for layer in layers:
            assert layer.bias is not None
            layer.bias[list(numbers)] += torch.from_numpy(constants).to(layer.bias)
    return True


def correct_bias(
    student: BatchModel, task: Feed, data: Dataset, transfer: Transfer, progress: Progress
) -> dict[str, Any]:
    """Fit the biases of the classes in `how.without` on validation and write them into `student`.

    Returns the row of history.jsonl about it: what was added, and these classes' recall on validation before and after.
    """
    names, labels = data.info.class_names, data.validation.labels
    numbers = classes_without(transfer, names)
    before = task.logits(student, "validation")
    constants = fit_bias(before, labels, numbers)
    add_to_bias(student.network, numbers, constants, len(names))
    after = task.logits(student, "validation")
    recalls = [per_class_recall(top1(logits), labels, len(names)) for logits in (before, after)]
    row: dict[str, Any] = {"bias_correction": {}, "validation_recall": {}}
    for number, constant in zip(numbers, constants, strict=True):
        (was, counts), (now, _) = recalls
        row["bias_correction"][names[number]] = float(constant)
        row["validation_recall"][names[number]] = {
            "before": float(was[number]), "after": float(now[number]), "n": int(counts[number])
        }  # fmt: skip
        progress.note(
            f"bias of {names[number]} {constant:+.3f}, fitted on validation (n={len(labels)}): its recall there "
            f"{was[number]:.2%} -> {now[number]:.2%}, n={counts[number]}"
        )
    return row


def write_history(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """FOLDER/history.jsonl: the epochs' rows, and what came after them."""
    write_text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def unseen_recall(right: NDArray[np.bool_], data: Dataset, transfer: Transfer) -> str:
    """One line on how many test images of the classes in `how.without` the student knows. `right`: of test,
    bool [N]."""
    parts = []
    for number in classes_without(transfer, data.info.class_names):
        of_class, name = data.test.labels == number, data.info.class_names[number]
        if not of_class.any():
            parts.append(f"{name}: no {data.samples}")
            continue
        recall = wilson_interval(int(right[of_class].sum()), int(of_class.sum()))
        parts.append(f"{name} {recall.value:.2%} [{recall.low:.2%}–{recall.high:.2%}], n={recall.n}")
    return f"test recall of classes that were left out of training: {'; '.join(parts)}"
