"""Which images a run has learned from: RUN/trained_on.npy, by what they show, uint64 [n], sorted, each once.

It is written with the run's weights and travels with them, so that a later command can tell whether its validation and
test images are new to the model. Of models that kdc did not train, nobody knows.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.files.atomic import write_atomically
from compressor.files.reading import read_bytes
from compressor.references import CUT, Reference
from compressor.schema.base import read_json
from compressor.schema.specialists import Specialists
from compressor.schema.student import Request, Student

__all__ = ["FILE", "Images", "images_of", "learned_before", "read_trained_on", "save_trained_on"]

FILE = "trained_on.npy"
WEIGHTS = "student.safetensors"
MOST_BYTES = 1 << 31
"""Of a quarter of a billion images."""

Images = NDArray[np.uint64]


def save_trained_on(folder: Path, images: Images) -> str:
    """Write the file, all or nothing; returns its sha256. `images`: `Split.contents` of what was trained on."""
    buffer = io.BytesIO()
    np.save(buffer, np.unique(images).astype("<u8"), allow_pickle=False)
    with write_atomically(folder / FILE) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def read_trained_on(folder: Path, record: Student) -> Images:
    """What the run in `folder` has learned from. Raises KdcError where that is not recorded, or is not the file that
    `record` names."""
    if record.trained_on is None:
        raise KdcError(
            f"{folder} does not say which samples it was trained on, so nobody can tell whether validation and test "
            "hold some of them",
            f"it was made by an earlier kdc: make it anew, as {folder / 'run.json'} says",
        )
    file = folder / FILE
    if not file.exists():
        raise KdcError(
            f"{file} is missing: it says which samples the run was trained on", "copy it from where the run was made"
        )
    content = read_bytes(file, most=MOST_BYTES)
    if hashlib.sha256(content).hexdigest() != record.trained_on:
        raise KdcError(f"{file} was changed: it is not what student.json says", "copy it from where the run was made")
    images: Images = np.load(io.BytesIO(content), allow_pickle=False)
    assert images.dtype == np.uint64
    return images


def images_of(reference: str) -> Images | None:
    """What the model that `reference` names (as --teacher or --student-init do) has learned from, in kdc; None where it
    was not trained by kdc, or is not there, which is said by who loads it. Of specialists: what any of them has seen,
    or their generalist."""
    named = Reference.parse(reference)
    together = named.folder("specialists")
    if together is not None:
        return _of_specialists(together)
    folder = named.folder("run") or _beside(reference)
    if folder is None or not (folder / "student.json").is_file():
        return None
    return read_trained_on(folder, read_json(folder / "student.json", Student))


def _beside(reference: str) -> Path | None:
    """The run whose weights a checkpoint is: `timm:NAME@RUN/student.safetensors`, or that path alone."""
    checkpoint = Path(reference.rpartition("@")[2] if reference.startswith("timm:") else reference)
    return checkpoint.parent if checkpoint.name == WEIGHTS else None


def _of_specialists(folder: Path) -> Images | None:
    if not (folder / "specialists.json").is_file():
        return None
    record = read_json(folder / "specialists.json", Specialists)
    references = [record.generalist.source, *(f"run:{folder / row.run}" for row in record.specialists)]
    return _union([images_of(reference) for reference in references])


def learned_before(request: Request) -> Images | None:
    """What the network that a request trains has learned from before this training, in kdc; None where nothing is
    known."""
    if request.command == "teach":
        return None if request.init == "random" else images_of(request.teacher)
    if request.student is not None and request.student.startswith(CUT) and request.init == "pretrained":
        return images_of(request.cut_from or request.teacher)
    return images_of(request.init)


def _union(parts: list[Images | None]) -> Images | None:
    known = [part for part in parts if part is not None]
    return np.unique(np.concatenate(known)) if known else None
