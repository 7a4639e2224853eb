"""Models to be trained: a student by its reference, a teacher's backbone with a new classifier."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import KdcError
from compressor.models.building import described_by, require_files
from compressor.models.features import inner_of
from compressor.models.hf_networks import config_from
from compressor.models.hugging_face import require_hf, require_plain_config
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.weights import tensors_sha256
from compressor.references import Reference
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.student import Weights
from compressor.tasks.text_classification.models import static
from compressor.tasks.text_classification.models.classifier import TextClassifier, token_types
from compressor.tasks.text_classification.models.cutting import asked_layers, cut, one_teacher
from compressor.tasks.text_classification.models.hf_models import (
    built,
    load_hf,
    preprocess_for,
    with_new_classifier,
)
from compressor.tasks.text_classification.models.static import StaticClassifier
from compressor.tasks.text_classification.tokenization import FILE, TextTokenizer, kept, of_texts, read_tokenizer

__all__ = ["create_student", "create_trainee", "require_student"]

FORMS = "layers:N, layers:half, layers:0,2,5, layers:N,width:W, static:D, hf:REPO_OR_PATH or hf:CONFIG.json"


def require_student(reference: str, init: str) -> None:
    """Raise KdcError for what `create_student` would, as far as that is known without loading anything."""
    named = Reference.parse(reference)
    if named.scheme == "layers":
        asked_layers(reference)
    elif named.scheme == static.FAMILY:
        static.asked_width(reference)
    elif named.scheme == "hf" and named.rest:
        if Path(named.rest).suffix != ".json":
            require_hf(named.rest)
        elif not Path(named.rest).is_file():
            raise KdcError(f"student {reference}: {named.rest} does not exist", FORMS)
        elif init != "random":
            raise KdcError(f"student {reference} is a configuration, without weights", "--student-init random")
    else:
        raise KdcError(f"student {reference!r} is none that learns from texts", f"one of {FORMS}")
    if init not in ("pretrained", "random"):
        raise KdcError(
            f"--student-init {init}: of text classifiers kdc takes no checkpoints", "--student hf:PATH has its weights"
        )


def create_student(
    reference: str, init: str, class_names: Sequence[str], max_length: int | None, teacher: LoadedModel | None
) -> LoadedModel:
    """A student for `class_names`. `init`: "pretrained", the teacher's weights or those of the folder or repository, or
    "random", from torch's generator, which the caller seeds. `max_length`: tokens that it reads, where that is
    stated."""
    require_student(reference, init)
    named = Reference.parse(reference)
    if named.scheme in ("layers", static.FAMILY):
        make = _cut if named.scheme == "layers" else _static
        return make(reference, init, class_names, max_length, _required(teacher, reference))
    if init == "pretrained":
        return create_trainee(load_hf(named.rest or "", max_length), class_names)
    return _drawn(reference, Path(named.rest or ""), class_names, max_length, teacher)


def create_trainee(backbone: LoadedModel, class_names: Sequence[str]) -> LoadedModel:
    """`backbone` with a new classifier for `class_names`."""
    inner = inner_of(backbone.network)
    if isinstance(inner, TextClassifier):
        network: nn.Module = with_new_classifier(inner, len(class_names))
    elif isinstance(inner, StaticClassifier):
        network = static.with_new_classifier(inner, len(class_names))
    else:
        raise KdcError(
            f"{backbone.weights.source} cannot be trained: it is several networks",
            "distill it into one: kdc distill --teacher …",
        )
    network.train(inner.training)
    weights = backbone.weights.model_copy(update={"parameters": _count(network)})
    names = tuple((name,) for name in class_names)
    return check_input(replace(backbone, network=network, class_names=names, weights=weights, headless=False))


def _cut(
    reference: str, init: str, class_names: Sequence[str], max_length: int | None, teacher: LoadedModel
) -> LoadedModel:
    made = cut(teacher, reference, drawn=init == "random")
    network = made.network
    source = teacher.weights.source
    preprocess = _anew(teacher, max_length, token_types(network.model))
    shown = ", ".join(map(str, made.layers))
    start = "drawn at random" if init == "random" else "with the teacher's weights"
    notes = [f"student {reference}: layers {shown} of the {made.count} of {source} (0 to {made.count - 1}), {start}"]
    if made.kept is not None:
        notes.append(f"student {reference}: {made.kept.told(made.layers)}")
    weights = Weights(
        source=f"{reference} of {source}",
        architecture=teacher.weights.architecture,
        sha256=tensors_sha256(network.state_dict()),
        licence=teacher.weights.licence,
        terms=teacher.weights.terms,
        ancestors=teacher.weights.provenance,
        parameters=_count(network),
    )
    names = tuple((name,) for name in class_names)
    return check_input(LoadedModel(network, preprocess, names, weights, "hf", notes=tuple(notes)))


def _static(
    reference: str, init: str, class_names: Sequence[str], max_length: int | None, teacher: LoadedModel
) -> LoadedModel:
    network, source = one_teacher(teacher, reference), teacher.weights.source
    if init == "random":
        made, note = static.drawn(reference, len(class_names), teacher), "its values drawn at random"
    else:
        told = static.distilled(reference, len(class_names), teacher, network)
        made, note = told.network, (
            f"what {source} makes of each of {told.tokens:,} tokens alone, its principal components "
            f"({100 * told.explained:.0f} % of the variance), weighed by rank as Model2Vec does"
        )  # fmt: skip
    weights = Weights(
        source=f"{reference} of {source}",
        architecture=reference,
        sha256=tensors_sha256(made.state_dict()),
        licence=teacher.weights.licence,
        terms=teacher.weights.terms,
        ancestors=teacher.weights.provenance,
        parameters=_count(made),
    )
    names = tuple((name,) for name in class_names)
    note = f"student {reference}: a table of {len(made.table.weight):,} tokens: {note}"
    return check_input(LoadedModel(made, _anew(teacher, max_length, 0), names, weights, static.FAMILY, notes=(note,)))


def _required(teacher: LoadedModel | None, reference: str) -> LoadedModel:
    if teacher is None:
        made = "cut out of" if reference.startswith("layers:") else "distilled from"
        raise KdcError(
            f"student {reference!r} is {made} its teacher, and this one is no network",
            "--student hf:PATH, with its own weights",
        )
    return teacher


def _anew(teacher: LoadedModel, max_length: int | None, kinds: int) -> TextPreprocess:
    """How the teacher reads texts, for a student that is told so many kinds of tokens: whether they are pairs, and how
    long, is found anew of its data (lengths.fitted)."""
    changes: dict[str, object] = {"pair": None, "token_types": kinds}
    if max_length is not None:
        changes["max_length"] = max_length
    return of_texts(teacher.preprocess).model_copy(update=changes)


def _drawn(
    reference: str, path: Path, class_names: Sequence[str], max_length: int | None, teacher: LoadedModel | None
) -> LoadedModel:
    """The network that a configuration describes. It reads texts by the tokenizer beside it, or else its teacher's."""
    if not path.exists():
        raise KdcError(f"student {reference}: a drawn network needs a folder or a config.json here", FORMS)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        require_files(folder)
    require_plain_config(folder / "config.json" if path.is_dir() else path, reference)
    tokenizer, note = _tokenizer(folder, reference, teacher)
    with described_by(reference, None):
        config: Any = config_from(path)
        config.num_labels = len(class_names)
        network = TextClassifier(built(config), tokenizer.text)
    weights = Weights(
        source=f"random:{reference}",
        architecture=str(config.model_type),
        sha256=tensors_sha256(network.state_dict()),
        licence="none (trained from scratch)",
        parameters=_count(network),
    )
    preprocess = preprocess_for(network, tokenizer, reference, max_length, drawn=True)
    names = tuple((name,) for name in class_names)
    return check_input(LoadedModel(network, preprocess, names, weights, "hf", notes=note))


def _tokenizer(folder: Path, reference: str, teacher: LoadedModel | None) -> tuple[TextTokenizer, tuple[str, ...]]:
    if (folder / FILE).is_file():
        return read_tokenizer(folder, reference), ()
    network = None if teacher is None else inner_of(teacher.network)
    if not isinstance(network, (TextClassifier, StaticClassifier)):
        raise KdcError(f"student {reference}: no {FILE} lies beside it, and no teacher has one that it could take")
    assert teacher is not None
    note = f"student {reference} reads texts by the tokenizer of {teacher.weights.source}: it has none"
    return kept(TextTokenizer(network.tokenizer, FILE)), (note,)


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
