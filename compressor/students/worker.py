"""A process that exports candidates, asked by `skeletons`: a line of JSON in, and out a line for each variant that it
comes to ({"at": …}), then one with what came of it.

The first line says for which profile and where; each one after it is a wish. It ends when its stdin does.
"""

import json
import os
from pathlib import Path
from typing import Any

from compressor.schema.profile import Profile
from compressor.schema.students import Wish
from compressor.students.skeletons import answer_to

__all__ = ["main"]


def main() -> None:
    """Answer until there is nobody who asks."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print what they like

    def say(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    with os.fdopen(os.dup(0), encoding="utf-8") as lines:
        about = json.loads(lines.readline())
        profile, root = Profile.model_validate(about["profile"]), Path(about["root"])
        for line in lines:
            wish = Wish.model_validate_json(line)
            say(answer_to(wish, profile, root, lambda variant: say({"at": variant})))
