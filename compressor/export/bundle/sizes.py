"""How large an artefact is: the bytes of its weights by type, and what it costs to ship.

Bytes on disk alone mislead: OpenVINO halves weights to f16 by default and widens them again in memory, and a file of
fake-quantized weights is as large as before.
"""

import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

__all__ = ["compressed_bytes", "weight_bytes"]

CHUNK = 1 << 20


def weight_bytes(constants: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The bytes by type, the largest first. `constants`: (type, bytes) of each, as `Builder.constants` reads them."""
    total: Counter[str] = Counter()
    for kind, size in constants:
        total[kind] += size
    return dict(total.most_common())


def compressed_bytes(files: Iterable[Path]) -> int:
    """The bytes of the files, one after the other, in one deflate stream at level 6: gzip's and zip's default."""
    deflate, size = zlib.compressobj(6), 0
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                size += len(deflate.compress(chunk))
    return size + len(deflate.flush())
