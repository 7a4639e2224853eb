"""glibc's allocator, told to keep large blocks."""

import ctypes
import sys

__all__ = ["keep_large_blocks"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEEP = 1 << 30


def keep_large_blocks() -> bool:
    """Keep freed blocks of up to 1 GiB in the process instead of giving them back to the system (mallopt(3)).

    On CPU every activation is such a block: by default each step maps, zeroes and unmaps all of them again. A training
    step of EfficientNet-Lite0 became 1.4 times as fast (benchmarks/allocator.py, docs/experiments/allocator.md). False
    where the C library is not glibc; nothing else is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEEP) and mallopt(M_TRIM_THRESHOLD, KEEP))
