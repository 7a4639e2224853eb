"""What a reference to an image model names, looked up before anything is loaded."""

from pathlib import Path

from compressor.errors import KdcError
from compressor.models.building import require_size, weights_file
from compressor.models.checkpoints.files import require_checkpoint
from compressor.models.checkpoints.state_dict import split_key
from compressor.models.hugging_face import require_hf
from compressor.references import Reference
from compressor.tasks.image_classification.models import timm_models

__all__ = ["require_init", "require_model", "require_student", "require_student_name"]


def require_model(reference: str, input_size: int | None) -> None:
    """Raise KdcError for a timm name that is unknown, and for a folder or checkpoint that is not there. What only the
    hub knows is not asked."""
    require_size(input_size)
    named = Reference.parse(reference)
    if named.scheme == "hf":
        require_hf(named.rest or "")
    elif named.local is not None:
        timm_models.local_config(named.local, reference)
        weights_file(named.local, reference)
    else:
        timm_models.require_known(named.name)
        if named.at is not None:
            require_checkpoint(split_key(named.at)[0])


def require_student(reference: str, init: str, input_size: int | None) -> None:
    """Raise KdcError as `require_model`, and for the path of a checkpoint that is not there. `init`: see
    `students.create_student`."""
    require_student_name(reference)
    named = Reference.parse(reference)
    if init == "pretrained" or named.local is None:
        require_model(reference, input_size)
    else:
        timm_models.local_config(named.local, reference)
    if init not in ("pretrained", "random"):
        require_init(split_key(init)[0])


def require_student_name(reference: str) -> None:
    """Raise KdcError unless it is timm:NAME or timm:local-dir:PATH."""
    scheme, _, name = reference.partition(":")
    if scheme != "timm" or not name or "@" in name:
        raise KdcError(
            f"student {reference!r} is not timm:NAME or timm:local-dir:PATH",
            "for example --student timm:mobilenetv3_small_100 (weights of your own: --student-init PATH)",
        )


def require_init(path: Path) -> None:
    """Raise KdcError where a student is to start from a checkpoint that is not there."""
    if not path.exists():
        raise KdcError(f"--student-init {path} does not exist", "pretrained, random, or the path of a checkpoint")
