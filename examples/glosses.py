"""WordNet's definitions of nouns as a table of texts with 26 classes: what kind of thing each word is.

    apt-get install wordnet-base
    python examples/glosses.py glosses.csv               # text,label: 81,000 definitions
    python examples/glosses.py glosses.csv 4000          # so many, drawn by a fixed seed

Format: https://wordnet.princeton.edu/documentation/wndb5wn and lexnames5wn. Used by the tutorial on texts.
"""

import csv
import random
import sys
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


def main(out: Path, count: int | None = None, source: Path = NOUNS) -> None:
    """Write `out`: all definitions of `source`, or `count` of them."""
    if not source.is_file():
        raise SystemExit(f"glosses: {source} does not exist: apt-get install wordnet-base")
    rows = sorted(definitions(source).items())
    if count is not None:
        rows = random.Random(0).sample(rows, min(count, len(rows)))
    with out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    print(f"{out}: {len(rows)} definitions of {len({kind for _, kind in rows})} kinds")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not 1 <= len(arguments) <= 2:
        raise SystemExit("usage: glosses.py OUT.csv [COUNT]")
    main(Path(arguments[0]), int(arguments[1]) if len(arguments) == 2 else None)
