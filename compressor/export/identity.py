"""What an exported model says of itself and of what it was made from, without telling about this machine."""

from pathlib import Path

from compressor import __version__
from compressor.export.onnx_graph import metadata_json
from compressor.models import LoadedModel
from compressor.spec.student import Student, Weights

__all__ = ["metadata_of", "public", "without_paths"]


def metadata_of(model: LoadedModel, record: Student, student: bool) -> dict[str, str]:
    """What a model must say of itself wherever it turns up. `student`: it is the one that `record` describes."""
    weights = public(model.weights)
    metadata = {
        "kdc_version": __version__,
        "architecture": weights.architecture,
        "class_names": metadata_json(list(record.class_names)),
        "preprocess": metadata_json(model.preprocess.model_dump(mode="json")),
        "weights_sha256": weights.sha256,
        "licence": weights.licence,
    }
    if student and record.teacher is not None:
        teacher = record.teacher
        metadata["teacher"] = metadata_json(
            {"architecture": teacher.architecture, "sha256": teacher.sha256, "licence": teacher.licence}
        )
    return metadata


def public(weights: Weights) -> Weights:
    """Weights without the folder in which they lay: a bundle travels, and paths tell about the machine."""
    return weights.model_copy(update={"source": _last_part(weights.source)})


def without_paths(record: Student) -> Student:
    data = record.data.model_copy(update={"source": _last_part(record.data.source)})
    if data.unlabelled is not None:
        more = data.unlabelled.model_copy(update={"source": _last_part(data.unlabelled.source)})
        data = data.model_copy(update={"unlabelled": more})
    teacher = public(record.teacher) if record.teacher else None
    weights = public(record.weights)
    assistants = tuple(public(one) for one in record.assistants)
    changes = {"data": data, "teacher": teacher, "weights": weights, "init": _last_part(record.init)}
    return record.model_copy(update={**changes, "assistants": assistants})


def _last_part(reference: str) -> str:
    """`scheme:/some/where/name` -> `scheme:name`; a name of the hub, `hf:owner/name`, stays as it is."""
    scheme, colon, rest = reference.rpartition(":")
    if scheme == "hf" and rest.count("/") == 1 and not rest.startswith((".", "/")) and not Path(rest).exists():
        return reference
    architecture, at, checkpoint = rest.rpartition("@")
    return f"{scheme}{colon}{architecture}{at}{Path(checkpoint).name or checkpoint}"
