"""Copy an IDX data set, with only the first N training images: `python first_images.py FROM TO N`."""

import gzip
import struct
import sys
from pathlib import Path

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def main(source: Path, target: Path, count: int) -> None:
    contents = {name: content_of(source, name) for name in (*TRAIN, *TEST)}
    for name in TRAIN:
        contents[name] = first(contents[name], count, source / name)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (target / name).write_bytes(content)
    names = source / "classes.txt"
    if names.exists():
        (target / "classes.txt").write_bytes(names.read_bytes())
    elif "fashion" in str(source.resolve()).lower():
        (target / "classes.txt").write_text("\n".join(FASHION) + "\n", encoding="utf-8")


def content_of(source: Path, name: str) -> bytes:
    """The bytes of an IDX file, which may be packed."""
    packed, plain = source / f"{name}.gz", source / name
    if packed.exists():
        return gzip.decompress(packed.read_bytes())
    if plain.exists():
        return plain.read_bytes()
    raise SystemExit(f"first_images.py: neither {plain} nor {packed} exists")


def first(content: bytes, count: int, file: Path) -> bytes:
    """The first `count` items. Big-endian, the header is a magic number, whose last byte counts the dimensions, and
    then each dimension's size; the first one counts the items."""
    dimensions = content[3]
    items, *shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if not 0 < count <= items:
        raise SystemExit(f"first_images.py: {file} holds {items} items, so N lies in 1..{items}, and is {count}")
    header, size = 4 + 4 * dimensions, 1
    for side in shape:
        size *= side
    return content[:4] + struct.pack(">I", count) + content[8 : header + count * size]


if __name__ == "__main__":
    if len(sys.argv) != 4 or not sys.argv[3].isdecimal():
        raise SystemExit("usage: python first_images.py FROM TO N")
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
