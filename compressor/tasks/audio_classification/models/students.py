"""Models to be trained: a student by its reference, a teacher's backbone with a new classifier."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from compressor.errors import KdcError
from compressor.models.checkpoints.state_dict import read_checkpoint, split_key
from compressor.models.features import inner_of
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.timm_weights import fill, other_architecture
from compressor.models.weights import require_finite, small_head, tensors_sha256
from compressor.references import Reference
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.student import Weights
from compressor.tasks.audio_classification.features import of_sounds
from compressor.tasks.audio_classification.fitting import placeholder
from compressor.tasks.audio_classification.models import hf_models, mlp, timm_models
from compressor.tasks.audio_classification.models.hf_models import HfSound

__all__ = ["create_student", "create_trainee", "refitted", "require_student"]

FORMS = "timm:NAME, mlp:WIDTHxDEPTH or hf:REPO_OR_PATH"
SCRATCH = "none (trained from scratch)"


def require_student(reference: str, init: str) -> None:
    """Raise KdcError for what `create_student` would, as far as that is known without loading anything."""
    named = Reference.parse(reference)
    if named.scheme == mlp.FAMILY:
        mlp.asked_size(reference)
        if init not in ("pretrained", "random"):
            raise KdcError(f"--student-init {init}: {reference} begins at random", "--student-init random")
    elif named.scheme == "timm" and named.rest and "@" not in named.rest:
        if init == "pretrained" or named.local is None:
            timm_models.require_timm(reference)
        if init not in ("pretrained", "random") and not split_key(init)[0].exists():
            raise KdcError(
                f"--student-init {split_key(init)[0]} does not exist", "pretrained, random, or the path of a checkpoint"
            )
        if init != "pretrained" and named.local is not None:
            raise KdcError(f"student {reference} is a folder with weights", "--student-init pretrained, or timm:NAME")
    elif named.scheme == "hf" and named.rest:
        hf_models.require_model(named.rest)
        if init != "pretrained":
            raise KdcError(f"student {reference} has weights of its own", "leave --student-init out")
    else:
        raise KdcError(f"student {reference!r} is none that learns from sounds", f"one of {FORMS}")


def create_student(
    reference: str, init: str, class_names: Sequence[str], teacher: LoadedModel | None = None
) -> LoadedModel:
    """A student for `class_names`, with a new classifier. `init`: "pretrained" (the hub's or the folder's weights),
    "random" (from torch's generator, which the caller seeds), or the path of a checkpoint of a timm network. How it
    hears is found of its data (`fitting.fitted_preprocess`), how long of a `teacher` that was taught."""
    require_student(reference, init)
    student = _student(reference, init, class_names)
    # How long a model of the hub hears is not its training's choice: see hf_models.SECONDS.
    if teacher is None or teacher.weights.source.startswith("hf:"):
        return student
    update = {"as_teacher": of_sounds(teacher.preprocess).seconds}
    return replace(student, preprocess=student.preprocess.model_copy(update=update))


def _student(reference: str, init: str, class_names: Sequence[str]) -> LoadedModel:
    named = Reference.parse(reference)
    if named.scheme == mlp.FAMILY:
        network: nn.Module = mlp.create(reference, placeholder(), len(class_names))
        return _made(network, reference, f"random:{reference}", SCRATCH, class_names, mlp.FAMILY)
    if named.scheme == "hf":
        return create_trainee(hf_models.load_hf(named.rest or "", None), class_names)
    if init == "pretrained":
        try:
            backbone = timm_models.load_timm(reference)
        except KdcError as error:
            hint = "--student-init random, or --student-init PATH of a checkpoint"
            raise KdcError(f"the student's pretrained weights: {error.message}", hint, error.exit_code) from None
        return create_trainee(backbone, class_names)
    network = timm_models.create(named.name, len(class_names))
    small_head(network, len(class_names))
    notes: tuple[str, ...] = ()
    source, licence = f"random:{named.name}", SCRATCH
    if init != "random":
        path = split_key(init)[0]
        notes, source, licence = _fill_from(network, init, named.name), f"{named.name}@{path.name}", "unknown"
    made = _made(network, named.name.split(".")[0], source, licence, class_names, timm_models.FAMILY)
    return replace(made, notes=notes)


def _fill_from(network: nn.Module, init: str, name: str) -> tuple[str, ...]:
    path, key = split_key(init)
    checkpoint = read_checkpoint(path, network.state_dict().keys(), key)
    state = timm_models.one_channel(checkpoint.state, network)
    left = fill(network, state, name, f"--student-init {path}", new_classes=True)
    require_finite(network, f"--student-init {path}")
    notes = checkpoint.notes + other_architecture(checkpoint.architecture, name, path)
    return (*notes, f"{path.name}: the classifier is new") if left else notes


def _made(
    network: nn.Module, architecture: str, source: str, licence: str, class_names: Sequence[str], family: str
) -> LoadedModel:
    weights = Weights(
        source=source,
        architecture=architecture,
        sha256=tensors_sha256(network.state_dict()),
        licence=licence,
        parameters=_count(network),
    )
    return check_input(LoadedModel(network, placeholder(), tuple((name,) for name in class_names), weights, family))


def create_trainee(backbone: LoadedModel, class_names: Sequence[str]) -> LoadedModel:
    """`backbone` with a new classifier for `class_names`."""
    inner, classes = inner_of(backbone.network), len(class_names)
    network: nn.Module
    if isinstance(inner, HfSound):
        network = hf_models.with_new_classifier(inner, classes)
        if backbone.weights.source.startswith("hf:"):  # how long it hears is found of its data
            heard = placeholder("waveform", of_sounds(backbone.preprocess).sample_rate)
            backbone = replace(backbone, preprocess=heard)
    elif isinstance(inner, mlp.Mlp):
        inner.classifier = nn.Linear(inner.classifier.in_features, classes)
        network = inner
    elif hasattr(inner, "reset_classifier"):
        inner.reset_classifier(classes)  # type: ignore[operator]
        network = _as_rebuilt(inner, backbone, classes)
        small_head(network, classes)
    else:
        raise KdcError(
            f"{backbone.weights.source} cannot be trained: it is several networks",
            "distill it into one: kdc distill --teacher …",
        )
    weights = backbone.weights.model_copy(update={"parameters": _count(network)})
    names = tuple((name,) for name in class_names)
    return check_input(replace(backbone, network=network, class_names=names, weights=weights, headless=False))


def _as_rebuilt(network: nn.Module, backbone: LoadedModel, classes: int) -> nn.Module:
    """The network, as timm builds it from the architecture's name alone: so it will be loaded from its run."""
    with torch.random.fork_rng(devices=[]):
        again = timm_models.create(backbone.weights.architecture, classes)
    state, fresh = network.state_dict(), again.state_dict()
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in fresh.items()}:
        raise KdcError(
            f"{backbone.weights.source} cannot be trained: it is not the {backbone.weights.architecture} that timm "
            "builds by that name, so that its run could not be loaded",
            "take another",
        )
    again.load_state_dict(state)
    return again.train(network.training)


def refitted(model: LoadedModel, preprocess: AudioPreprocess) -> LoadedModel:
    """`model` with what it hears from now on. A fully connected network has as many inputs as that has values, and is
    drawn anew where they change."""
    inner = inner_of(model.network)
    if isinstance(inner, mlp.Mlp) and preprocess.inputs != of_sounds(model.preprocess).inputs:
        network = mlp.create(model.weights.architecture, preprocess, len(model.class_names or ()))
        update = {"sha256": tensors_sha256(network.state_dict()), "parameters": _count(network)}
        weights = model.weights.model_copy(update=update)
        model = replace(model, network=network.train(inner.training), weights=weights)
    return check_input(replace(model, preprocess=preprocess))


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
