"""Which student for which device: candidates exported with drawn weights, and measured before any training."""

from compressor.students.api import Wanted, students
from compressor.students.meant import students_task
from compressor.students.table import to_csv, to_text

__all__ = ["Wanted", "students", "students_task", "to_csv", "to_text"]
