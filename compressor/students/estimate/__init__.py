"""Latency of candidates for a device that is not at hand: a roofline, calibrated on what was measured."""

from compressor.students.estimate.api import estimate_students
from compressor.students.estimate.table import to_csv, to_text

__all__ = ["estimate_students", "to_csv", "to_text"]
