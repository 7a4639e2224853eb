"""A process that exports candidates, asked by `skeletons`: a line of JSON in, a line of JSON out.

The first line says for which profile and where; each one after it is a wish. It ends when its stdin does.
"""

import json
import os
from pathlib import Path

from compressor.schema.profile import Profile
from compressor.schema.students import Wish
from compressor.students.skeletons import answer_to

__all__ = ["main"]


def main() -> None:
    """Answer until there is nobody who asks."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print what they like
    with os.fdopen(os.dup(0), encoding="utf-8") as lines:
        about = json.loads(lines.readline())
        profile, root = Profile.model_validate(about["profile"]), Path(about["root"])
        for line in lines:
            answers.write(json.dumps(answer_to(Wish.model_validate_json(line), profile, root)) + "\n")
            answers.flush()
