"""WordNet's definitions of nouns as a table of texts with 26 classes: what kind of thing each word is.

    apt-get install wordnet-base
    python examples/glosses.py glosses.csv               # text,label: 81,000 definitions
    python examples/glosses.py glosses.csv 4000          # so many, drawn by a fixed seed
    python examples/glosses.py glosses.csv 4000 animal plant food        # so many of these kinds

Format: https://wordnet.princeton.edu/documentation/wndb5wn and lexnames5wn. Used by the tutorial on texts.
"""

import csv
import random
import sys
from collections.abc import Sequence
from pathlib import Path

NOUNS = Path("/usr/share/wordnet/data.noun")
KINDS = (
    "Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling", "food",
    "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process", "quantity",
    "relation", "shape", "state", "substance", "time",
)  # fmt: skip
FIRST = 3
"""The number of KINDS[0] among WordNet's lexicographer files."""


def definitions(path: Path) -> dict[str, str]:
    """Each definition, without the examples that follow it, and its kind. One that two kinds share is left out."""
    kinds: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        data, _, gloss = line.partition(" | ")
        text = gloss.split('; "')[0].strip()
        kinds.setdefault(text, set()).add(KINDS[int(data.split()[1]) - FIRST])
    return {text: kind for text, (kind, *others) in kinds.items() if text and not others}


def main(out: Path, count: int | None = None, kinds: Sequence[str] = KINDS, source: Path = NOUNS) -> None:
    """Write `out`: all definitions of `source` that are of these kinds, or `count` of them."""
    if not source.is_file():
        raise SystemExit(f"glosses: {source} does not exist: apt-get install wordnet-base")
    if unknown := sorted({*kinds} - {*KINDS}):
        raise SystemExit(f"glosses: {unknown[0]} is none of: {', '.join(KINDS)}")
    rows = sorted(row for row in definitions(source).items() if row[1] in kinds)
    if count is not None:
        rows = random.Random(0).sample(rows, min(count, len(rows)))
    with out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    print(f"{out}: {len(rows)} definitions of {len({kind for _, kind in rows})} kinds")


if __name__ == "__main__":
    if len(sys.argv) < 2 or not (sys.argv[2:3] or ["1"])[0].isdigit():
        raise SystemExit("usage: glosses.py OUT.csv [COUNT [KIND …]]")
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else None, sys.argv[3:] or KINDS)
