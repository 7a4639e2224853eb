"""Copy an IDX data set, with only the first N training pictures: `python first_images.py FROM TO N`."""

import gzip
import struct
import sys
from pathlib import Path

SIZES = {"train-images-idx3-ubyte": (16, 28 * 28), "train-labels-idx1-ubyte": (8, 1)}
"""File -> bytes of its header, bytes an item (pictures of 28 × 28)."""


def main(source: Path, target: Path, count: int) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*-ubyte.gz")):
        name = path.name.removesuffix(".gz")
        content = gzip.decompress(path.read_bytes())
        if name in SIZES:
            header, item = SIZES[name]
            # The header's second number, big-endian, counts the items.
            content = (
                content[:4] + struct.pack(">I", count) + content[8:header] + content[header : header + count * item]
            )
        (target / name).write_bytes(content)
    (target / "classes.txt").write_text("\n".join(FASHION) + "\n", encoding="utf-8")


FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
