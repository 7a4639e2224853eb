"""Figures with their uncertainty: accuracy and its kin, latency percentiles, ratios, and verdicts against a limit.

numpy only. Every interval is two-sided, 95 % unless told otherwise, and a closed form: deterministic, without a seed,
and honest for few samples (a bootstrap of perfect predictions has no width). Of bits a byte alone it is a bootstrap,
seeded (language.py): a document's cost is never 0.
"""

from compressor.stats.accuracy import (
    accuracy_of,
    auc,
    auc_difference,
    balanced_accuracy,
    per_class_recall,
    scored,
    top1,
)
from compressor.stats.classes import (
    CHANCE,
    LOST,
    NEAR_ZERO,
    ONE_SIDED,
    ClassCounts,
    Classes,
    balanced_retention,
    class_counts,
    judge_classes,
    keeps,
    score_counts,
)
from compressor.stats.compared import balanced_difference, changed_classes
from compressor.stats.gain import advantage, gain_line, gained_interval
from compressor.stats.intervals import Interval, normal_quantile, wilson_interval
from compressor.stats.latency import MIN_BLOCKS, paired_ratio, percentile, percentile_needs
from compressor.stats.layers import EIGHT_BITS_DB, lost_db, sqnr_db
from compressor.stats.paired import McNemar, agreement, difference, mcnemar, retained, retention, retention_per_class
from compressor.stats.parity import (
    PARITY,
    Parity,
    ParityFigures,
    closeness,
    parity_figures,
    parity_judged,
    parity_to_spare,
    score_parity,
)
from compressor.stats.softmax import log_softmax
from compressor.stats.teacher_card import calibration_error, card_lines, teacher_card
from compressor.stats.verdicts import judge, look_confidence, smallest_detectable, widen

__all__ = [
    "CHANCE",
    "EIGHT_BITS_DB",
    "LOST",
    "MIN_BLOCKS",
    "NEAR_ZERO",
    "ONE_SIDED",
    "PARITY",
    "ClassCounts",
    "Classes",
    "Interval",
    "McNemar",
    "Parity",
    "ParityFigures",
    "accuracy_of",
    "advantage",
    "agreement",
    "auc",
    "auc_difference",
    "balanced_accuracy",
    "balanced_difference",
    "balanced_retention",
    "calibration_error",
    "card_lines",
    "changed_classes",
    "class_counts",
    "closeness",
    "difference",
    "gain_line",
    "gained_interval",
    "judge",
    "judge_classes",
    "keeps",
    "log_softmax",
    "look_confidence",
    "lost_db",
    "mcnemar",
    "normal_quantile",
    "paired_ratio",
    "parity_figures",
    "parity_judged",
    "parity_to_spare",
    "per_class_recall",
    "percentile",
    "percentile_needs",
    "retained",
    "retention",
    "retention_per_class",
    "score_counts",
    "score_parity",
    "scored",
    "smallest_detectable",
    "sqnr_db",
    "teacher_card",
    "top1",
    "widen",
    "wilson_interval",
]
