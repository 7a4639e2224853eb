"""The teacher card: against hand-computed values, scipy, and small teachers."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.datasets import load_digits
from torch import nn

from compressor.errors import KdcError
from compressor.schema.student import TeacherCard
from compressor.stats import calibration_error, card_lines, log_softmax, teacher_card
from compressor.stats.teacher_card import BINS, TEMPERATURES

NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_log_softmax_is_scipys(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 300, (50, 7)).astype(np.float32)
    expected = scipy_log_softmax(logits.astype(np.float64) / temperature, axis=-1)
    np.testing.assert_allclose(log_softmax(logits, temperature), expected, rtol=0, atol=1e-9)
    assert log_softmax(np.array([1e30, 0.0, -np.inf])).tolist() == [0.0, -1e30, -np.inf]


def of(probabilities: list[list[float]]) -> NDArray[np.float64]:
    return np.log(np.array(probabilities, np.float64))


def test_calibration_error_by_hand() -> None:
    """Confidences 0.9 and 0.92 share the bin (13/15, 14/15]; 0.5 has the bin (7/15, 8/15] for itself."""
    answers = of([[0.9, 0.05, 0.05], [0.92, 0.04, 0.04], [0.5, 0.3, 0.2]])
    right_wrong_right = np.array([0, 1, 0])
    expected = (abs(1 - (0.9 + 0.92)) + abs(1 - 0.5)) / 3
    assert calibration_error(answers, right_wrong_right) == pytest.approx(expected)


def test_calibration_error_at_the_edges_of_bins() -> None:
    """A bin holds its upper edge; certainty falls into the last bin, and a confidence of 1/C into its own."""
    answers = np.array([[800.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert calibration_error(answers, np.array([0, 0])) == pytest.approx((0 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="no samples"):
        calibration_error(answers[:0], np.array([], np.int64))


def test_calibration_error_of_what_is_drawn_from_the_answers_is_small() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20000, 5))
    chances = softmax(logits, axis=1)
    labels = (chances.cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    assert calibration_error(logits, labels) < 0.012
    assert calibration_error(logits * 3, labels) > 0.1, "overconfident"
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    gaps = [abs((right - confidence)[bins == one].mean()) * (bins == one).mean() for one in np.unique(bins)]
    assert calibration_error(logits, labels) == pytest.approx(sum(gaps))


def test_softened_answers_are_scipys() -> None:
    logits = np.random.default_rng(1).normal(0, 4, (300, 3))
    card = teacher_card(logits, logits.argmax(axis=1), NAMES)
    assert [one.temperature for one in card.softened] == list(TEMPERATURES)
    for one in card.softened:
        soft = softmax(logits / one.temperature, axis=1)
        assert one.confidence == pytest.approx(soft.max(axis=1).mean())
        assert one.entropy == pytest.approx(entropy(soft, axis=1).mean())


def test_confusions_are_named_and_counted() -> None:
    labels = np.array([0] * 6 + [1] * 4 + [2] * 2)
    predictions = np.array([0, 0, 0, 1, 1, 2, 1, 1, 1, 0, 2, 2])
    card = teacher_card(np.eye(3)[predictions] * 9, labels, NAMES)
    assert [(one.label, one.taken_for, one.count, one.n) for one in card.confused] == [
        ("ant", "bee", 2, 6), ("ant", "cat", 1, 6), ("bee", "ant", 1, 4)
    ]  # fmt: skip
    assert (card.accuracy.split, card.accuracy.n, card.accuracy.correct) == ("validation", 12, 8)
    text = "\n".join(card_lines(card))
    assert "ant as bee 2 of 6" in text
    assert "n=12" in text


def test_the_suggested_temperature_follows_its_rule() -> None:
    sure = np.array([[30.0, 0, 0], [0, 30.0, 0]])
    labels = np.array([0, 1])
    by_scale = {scale: teacher_card(sure * scale, labels, NAMES).temperature for scale in (0.02, 0.2, 1.0, 100.0)}
    assert by_scale == {0.02: 1.0, 0.2: 4.0, 1.0: 20.0, 100.0: 20.0}
    for scale, chosen in by_scale.items():
        confidence = {t: softmax(sure * scale / t, axis=1).max(axis=1).mean() for t in TEMPERATURES}
        assert chosen == next((t for t in TEMPERATURES if confidence[t] <= 0.75), 20.0)
    assert "even there" in teacher_card(sure * 100, labels, NAMES).why


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    bunch: Any = load_digits()
    return torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target)


def taught(digits: tuple[torch.Tensor, torch.Tensor], smoothing: float, classes: int = 10) -> TeacherCard:
    torch.manual_seed(0)
    order = torch.randperm(len(digits[1]))
    pixels, labels = (part[order][digits[1][order] < classes] for part in digits)
    held = len(pixels) // 3
    network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, classes))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        for batch in torch.split(torch.randperm(len(pixels) - held), 64):
            loss = nn.functional.cross_entropy(
                network(pixels[held:][batch]), labels[held:][batch], label_smoothing=smoothing
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    logits = network(pixels[:held]).detach().numpy()
    return teacher_card(logits, labels[:held].numpy(), [str(number) for number in range(classes)])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nothing_is_said_of_label_smoothing(digits: tuple[torch.Tensor, torch.Tensor], smoothing: float) -> None:
    """What told it apart here was false elsewhere: the figure stands for itself, and no temperature heeds it."""
    card = taught(digits, smoothing)
    assert card.accuracy.accuracy > 0.9
    assert card.evenness is not None
    assert f"  wrong logits apart by {card.evenness:.2f} of the right one's lead" in list(card_lines(card))
    assert not any("smooth" in line for line in card_lines(card))
    soft = next(one.temperature for one in card.softened if one.confidence <= 0.75)
    assert card.temperature == soft


def test_two_classes_have_no_evenness(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    card = taught(digits, 0.1, classes=2)
    assert card.evenness is None
    assert not any("wrong logits" in line for line in card_lines(card))


def test_bare_labels_have_accuracy_and_confusions_alone() -> None:
    card = teacher_card(np.eye(3)[[0, 1, 1]] * 9, np.array([0, 1, 2]), NAMES, answers="labels")
    assert (card.calibration_error, card.softened, card.evenness, card.temperature) == (None, (), None, 1.0)
    assert card.confused[0].taken_for == "bee"
    text = "\n".join(card_lines(card))
    assert "suggested temperature 1: bare labels" in text
    assert "calibration" not in text


def test_answers_that_are_not_finite_count_as_wrong_and_for_nothing_else() -> None:
    logits = np.eye(3)[[0, 1, 2, 0]] * 5
    labels = np.array([0, 1, 2, 0])
    broken = logits.copy()
    broken[3, 1] = np.nan
    card, without = teacher_card(broken, labels, NAMES), teacher_card(logits[:3], labels[:3], NAMES)
    assert (card.not_finite, card.accuracy.correct, card.accuracy.n) == (1, 3, 4)
    assert (card.softened, card.calibration_error) == (without.softened, without.calibration_error)
    assert any("1 answers are not finite" in line for line in card_lines(card))
    with pytest.raises(KdcError, match="none of the teacher's answers to the 4 samples of validation is finite"):
        teacher_card(np.full((4, 3), np.nan), labels, NAMES)


def test_probabilities_of_0_have_no_evenness() -> None:
    labels = np.repeat(np.arange(3), 6)
    logits = np.where(np.eye(3)[labels] > 0, -0.1, -2.4)
    assert teacher_card(logits, labels, NAMES, answers="probabilities").evenness is not None
    assert teacher_card(logits, labels, NAMES, answers="probabilities", zeros=True).evenness is None
