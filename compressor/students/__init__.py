"""Which student for which device: candidates exported with drawn weights, and measured before any training."""

from compressor.students.api import Wanted, students
from compressor.students.table import to_csv, to_text

__all__ = ["Wanted", "students", "to_csv", "to_text"]
