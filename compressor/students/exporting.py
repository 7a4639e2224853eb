"""One candidate, from its name to the artefacts of every runtime and precision."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from compressor.errors import EXIT_MISSING, KdcError
from compressor.export.base import Source
from compressor.export.builders import builder_of
from compressor.export.bundle.macs import count_macs
from compressor.export.onnx.quick import quick_onnx
from compressor.export.quiet import quiet
from compressor.files.atomic import file_sha256
from compressor.models import load_model
from compressor.models.loaded import LoadedModel
from compressor.runtimes import RUNTIMES
from compressor.schema.bundle import FileEntry
from compressor.schema.profile import Profile
from compressor.schema.students import Entrant, Skeleton, Wish
from compressor.students.skeletons import CALIBRATION
from compressor.tasks.table import candidates_of

__all__ = ["entry", "export_wish"]


def export_wish(
    wish: Wish, profile: Profile, root: Path, tell: Callable[[str], None] = lambda variant: None
) -> Skeleton:
    """Its artefacts in ROOT/LABEL. What cannot be made is a reason in words. `tell`: called with each variant before it
    is made. Raises KdcError where none can be."""
    catalogue, folder = candidates_of(wish.task), root / wish.label
    folder.mkdir()
    torch.manual_seed(0)
    with quiet(f"{wish.name} cannot be made"):
        made_of = () if wish.teacher is None else (_teacher(wish.teacher, wish.task),)
        model: LoadedModel = catalogue.create(wish.name, wish.classes, wish.input_size, *made_of)
    onnx_file = folder / "model.onnx"
    with quiet(f"{wish.name} cannot be exported"):
        quick_onnx(model.network, model.preprocess, profile.batch, profile.opset, onnx_file)
    calibration = catalogue.drawn(model.preprocess, max(CALIBRATION, profile.batch), folder / "calibration.npy")
    source = Source(model.network, onnx_file, model.preprocess, calibration, profile)
    macs = count_macs(model.network, model.preprocess.inputs, wish.input_size)
    entrants, failures = [], {}
    for runtime, precision in wish.variants:
        tell(f"{runtime}-{precision}")
        try:
            artefact = _artefact(source, runtime, precision, folder / f"{runtime}-{precision}")
        except KdcError as error:
            if error.exit_code == EXIT_MISSING:
                raise  # it is missing for every candidate
            failures[f"{runtime}-{precision}"] = error.message
            continue
        entrants.append(_entrant(wish, model, macs, (runtime, precision), artefact, root))
    for drawn in folder.glob("*.npy"):
        drawn.unlink()
    return Skeleton(wish=wish, entrants=tuple(entrants), failures=failures)


@cache
def _teacher(reference: str, task: str) -> LoadedModel:
    """Loaded once for all candidates that a process makes of it."""
    return load_model(reference, task=task)


def _artefact(source: Source, runtime: str, precision: str, folder: Path) -> Path:
    builder = builder_of(runtime)
    if precision != "int8":
        return builder.convert(source, precision, folder).model
    skeleton = builder.quantizer.skeleton if builder.quantizer is not None else None
    assert skeleton is not None, "it would not be screened"
    folder.mkdir()
    return skeleton(source, folder)


def _entrant(
    wish: Wish, model: LoadedModel, macs: int, variant: tuple[str, str], artefact: Path, root: Path
) -> Entrant:
    runtime, precision = variant
    row = RUNTIMES[runtime]
    files = [artefact] if artefact.parent.name == wish.label else sorted(artefact.parent.iterdir())
    return Entrant(
        task=wish.task,
        name=f"{wish.label}-{runtime}-{precision}",
        candidate=wish.label,
        runtime=runtime,
        precision=precision,
        runner=row.runner,
        model=artefact.relative_to(root).as_posix(),
        files=tuple(entry(root, path) for path in files),
        inputs=f"inputs-{wish.input_size}.npy",
        preprocess=model.preprocess,
        parameters=sum(parameter.numel() for parameter in model.network.parameters()),
        macs=macs,
        build=row.build,
    )


def entry(root: Path, path: Path) -> FileEntry:
    """A file of the field, as its manifest lists it."""
    return FileEntry(path=path.relative_to(root).as_posix(), sha256=file_sha256(path), bytes=path.stat().st_size)
