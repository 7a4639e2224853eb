"""The teacher card, as a training says it."""

import numpy as np
import pytest

from compressor.distill.card import shown
from compressor.statistics import teacher_card
from tests.kit import Hearing


@pytest.mark.parametrize("smoothed", [True, False])
def test_signs_of_label_smoothing_are_warned_of(smoothed: bool) -> None:
    """Trap 17. Smoothed by 0.1 over 3 classes: the right one 0.93, the others 0.03 each."""
    labels = np.arange(60) % 3
    wrong = (1 / 30, 1 / 30) if smoothed else (1e-3, 1e-9)
    answers = np.zeros((60, 3))
    for row, label in enumerate(labels):
        answers[row, np.arange(3) != label] = np.log(wrong)
        answers[row, label] = np.log1p(-sum(wrong))
    progress = Hearing()
    card = shown(teacher_card(answers, labels, ("a", "b", "c")), progress)
    assert card.smoothed is smoothed
    assert len(progress.warnings) == smoothed
    assert progress.notes[0].startswith("teacher card, from validation (n=60)")
    assert any(line.startswith("  suggested temperature") for line in progress.notes)
    if smoothed:
        assert "label smoothing" in progress.warnings[0]
