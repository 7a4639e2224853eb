"""What an exported model says of itself and of what it was made from, without telling about this machine."""

import json
import re

from compressor import __version__
from compressor.export.onnx.graph import metadata_json
from compressor.models import LoadedModel
from compressor.models.lineage import last_part, public
from compressor.schema.provenance import UNKNOWN
from compressor.schema.race import LossRace, Race
from compressor.schema.student import Student

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
            | ({} if teacher.terms == UNKNOWN else {"terms": teacher.terms})
        )
    return metadata


def without_paths(record: Student) -> Student:
    data = record.data.model_copy(update={"source": last_part(record.data.source)})
    if data.unlabelled is not None:
        unlabelled = data.unlabelled.model_copy(update={"source": last_part(data.unlabelled.source)})
        data = data.model_copy(update={"unlabelled": unlabelled})
    teacher = public(record.teacher) if record.teacher else None
    weights = public(record.weights)
    assistants = tuple(public(assistant) for assistant in record.assistants)
    changes: dict[str, object] = {"data": data, "teacher": teacher, "weights": weights, "init": last_part(record.init)}
    peers = tuple(
        peer.model_copy(update={"student": last_part(peer.student), "init": last_part(peer.init)})
        for peer in record.recipe.peers
    )
    stages = tuple(
        stage.model_copy(update={"data": stage.data and last_part(stage.data)}) for stage in record.recipe.stages
    )
    recipe = record.recipe.model_copy(update={"peers": peers, "stages": stages})
    race = None if record.race is None else _race(record.race)
    return record.model_copy(
        update={**changes, "assistants": assistants, "recipe": recipe, "race": race, "losses": _losses(record)}
    )


def _losses(record: Student) -> LossRace | None:
    if record.losses is None:
        return None
    trials, in_full = (
        tuple(trial.model_copy(update={"student": last_part(trial.student)}) for trial in each)
        for each in (record.losses.trials, record.losses.in_full)
    )
    return record.losses.model_copy(update={"trials": trials, "in_full": in_full})


def _race(race: Race) -> Race:
    """With the contenders' names in place of where they lay, in what was said of them, too. Of folders of one name the
    later ones are numbered."""
    names: dict[str, str] = {}
    public_names = [last_part(contender.student) for contender in race.contenders]
    for number, (contender, name) in enumerate(zip(race.contenders, public_names, strict=True)):
        same = public_names[:number].count(name)
        names[_in_json(contender.student)] = _in_json(f"{name} ({same + 1})" if same else name)
    longest_first = sorted(names, key=len, reverse=True)  # one may begin as another does
    anyone = re.compile("|".join(map(re.escape, longest_first)))
    return Race.model_validate_json(anyone.sub(lambda match: names[match[0]], race.model_dump_json()))


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
