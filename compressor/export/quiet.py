"""Converters talk, in Python and in C++: what they say is kept, and told only where they fail."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from compressor.errors import KdcError, first_line

__all__ = ["quiet"]


@contextmanager
def quiet(doing: str) -> Iterator[None]:
    """Inside, nothing of this process reaches stdout or stderr, and no warning is raised. What fails is a KdcError:
    `doing` (e.g. "ExecuTorch cannot convert the network"), and the first line of the reason."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    disabled = logging.root.manager.disable
    try:
        with tempfile.TemporaryFile() as said, warnings.catch_warnings():
            for number, _ in kept:
                os.dup2(said.fileno(), number)
            warnings.simplefilter("ignore")
            logging.disable(logging.ERROR)
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    except (KdcError, KeyboardInterrupt):
        raise
    except Exception as error:  # of any type: they are other libraries' own
        raise KdcError(f"{doing}: {first_line(error)}") from error
    finally:
        logging.disable(disabled)
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
