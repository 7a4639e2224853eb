"""Models to be trained: a student by its timm name, a teacher's backbone with a new classifier."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from compressor.errors import KdcError
from compressor.models.checkpoints.state_dict import read_checkpoint, split_key
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.references import load_model
from compressor.models.timm_weights import architecture_of, base_of, classifier_names, fill, other_architecture
from compressor.models.weights import require_finite, small_head, tensors_sha256
from compressor.modes import evaluating
from compressor.schema.student import Weights
from compressor.tasks.image_classification.models import hf_models, timm_models
from compressor.tasks.image_classification.models.hf_classifier import HfClassifier
from compressor.tasks.image_classification.models.lookup import require_init, require_student_name
from compressor.tasks.image_classification.models.narrowing import is_narrower, shapes_of
from compressor.tasks.image_classification.models.surgery import (
    operate,
    require_operations,
    width_of,
)
from compressor.tasks.image_classification.preprocessing import of_images

__all__ = ["create_student", "create_trainee"]


def create_student(
    reference: str, init: str, class_names: Sequence[str], input_size: int, crop_pct: float | None
) -> LoadedModel:
    """A student for `class_names` at `input_size` pixels, with a new, small classifier unless the weights fit.

    `reference`: `timm:NAME` or `timm:local-dir:PATH`. `init`: "pretrained" (the hub's or the folder's weights),
    "random" (from torch's generator, which the caller seeds), or the path of a checkpoint.
    """
    require_student_name(reference)
    name = reference.removeprefix("timm:")
    if init == "pretrained":
        backbone = _pretrained(reference, name, input_size)
        return create_trainee(backbone, class_names, crop_pct)
    architecture = _architecture(name, reference)
    network = timm_models.create(base_of(architecture), classes=len(class_names), input_size=input_size)
    small_head(network, len(class_names))
    source, licence = f"random:{architecture}", "none (trained from scratch)"
    if init == "random":
        notes = operate(network, architecture, input_size=input_size)
    else:
        notes = _fill_from(network, init, architecture, input_size)
        source, licence = f"{architecture}@{Path(init).name}", "unknown"
    weights = Weights(
        source=source,
        architecture=architecture_of(architecture),
        sha256=tensors_sha256(network.state_dict()),
        licence=licence,
        parameters=sum(p.numel() for p in network.parameters()),
    )
    preprocess = timm_models.preprocess_of(network.pretrained_cfg, input_size, crop_pct)  # type: ignore[arg-type]
    names = tuple((name,) for name in class_names)
    return check_input(LoadedModel(network, preprocess, names, weights, "timm", notes=notes))


def create_trainee(backbone: LoadedModel, class_names: Sequence[str], crop_pct: float | None) -> LoadedModel:
    """`backbone` with a new, small classifier for `class_names`; its own preprocessing, `crop_pct` overriding."""
    network, classes = backbone.network, len(class_names)
    if isinstance(network, HfClassifier):
        network = hf_models.with_new_classifier(network, classes)
    else:
        if not hasattr(network, "reset_classifier"):
            raise KdcError(
                f"{backbone.weights.source} cannot be trained: it is several networks",
                "distill it into one: kdc distill --teacher …",
            )
        network = _with_classes(backbone, classes)
    small_head(network, classes)
    preprocess = of_images(backbone.preprocess)
    if crop_pct is not None:
        height, width = preprocess.input_size
        resize = (int(height / crop_pct), int(width / crop_pct))
        preprocess = preprocess.model_copy(update={"resize": resize})
    weights = backbone.weights.model_copy(update={"parameters": sum(p.numel() for p in network.parameters())})
    names = tuple((name,) for name in class_names)
    changes = {"network": network, "preprocess": preprocess, "class_names": names, "weights": weights}
    return check_input(replace(backbone, headless=False, **changes))  # type: ignore[arg-type]


def _with_classes(model: LoadedModel, classes: int) -> nn.Module:
    """The network, with a new classifier, as timm builds it from the architecture's name alone: so it will be loaded
    from its run. Raises KdcError where arguments in its config.json, or settings that timm has for pretrained weights,
    would not come back."""
    network, preprocess = model.network, of_images(model.preprocess)
    images = torch.rand(2, 3, *preprocess.input_size, generator=torch.Generator().manual_seed(0))
    with evaluating(network):
        features = network.forward_features(images)  # type: ignore[operator]
    network.reset_classifier(classes)  # type: ignore[operator]
    with torch.random.fork_rng(devices=[]):
        again = timm_models.create(
            model.weights.architecture, classes, preprocess.input_size[0], like=shapes_of(network.state_dict())
        )
    fresh_state, state = again.state_dict(), network.state_dict()
    same = all(name in fresh_state and fresh_state[name].shape == value.shape for name, value in state.items())
    if same:
        again.load_state_dict({**fresh_state, **state})
        with evaluating(again):
            same = _alike(again.forward_features(images), features)  # type: ignore[operator]
    if not same:
        raise KdcError(
            f"{model.weights.source} cannot be trained: it is not the {model.weights.architecture} that timm builds by "
            "that name, so that its run could not be loaded",
            "timm builds it otherwise for pretrained weights, or model_args of its config.json change it: take another",
        )
    return again.train(network.training)


def _alike(first: object, second: object) -> bool:
    """Whether features are the same: tensors, or several of them."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.shape == second.shape and torch.allclose(first, second, rtol=1e-3, atol=1e-4)
    return (
        isinstance(first, (tuple, list))
        and isinstance(second, (tuple, list))
        and all(_alike(a, b) for a, b in zip(first, second, strict=True))
    )


def _pretrained(reference: str, name: str, input_size: int) -> LoadedModel:
    if name.startswith("local-dir:"):
        return load_model(reference, input_size)
    try:
        return timm_models.load_hub(name, input_size)
    except KdcError as error:
        hint = "--student-init random, or --student-init PATH of a checkpoint"
        raise KdcError(f"the student's pretrained weights: {error.message}", hint, error.exit_code) from None


def _architecture(name: str, reference: str) -> str:
    """The timm architecture behind NAME or local-dir:PATH."""
    if name.startswith("local-dir:"):
        return timm_models.local_config(Path(name.removeprefix("local-dir:")), reference).architecture
    timm_models.require_known(name)
    return name


def _fill_from(network: nn.Module, init: str, architecture: str, input_size: int) -> tuple[str, ...]:
    """Load a checkpoint, and change the network where `architecture` says so: before or after, as the checkpoint is of
    the changed one or of the whole. Its classifier is left out where it has none or other classes, everything else must
    fit. Returns what there is to say."""
    path, key = split_key(init)
    require_init(path)
    where = f"--student-init {path}"
    checkpoint = read_checkpoint(path, network.state_dict().keys(), key)
    head = classifier_names(architecture)
    lacking = [name for name in network.state_dict().keys() - checkpoint.state.keys() if not name.startswith(head)]
    wanted, width, like = require_operations(architecture), width_of(architecture), shapes_of(checkpoint.state)
    first = [operation for operation in wanted if operation != width] if lacking else []
    if width is not None and is_narrower(network, like):
        first = list(wanted)
    told = operate(network, architecture, first, like=like)
    left = fill(network, checkpoint.state, architecture, where, new_classes=True)
    told += operate(network, architecture, [name for name in wanted if name not in first], input_size=input_size)
    require_finite(network, where)
    notes = (*told, *checkpoint.notes)
    notes += other_architecture(checkpoint.architecture, architecture, path)
    return (*notes, f"{path.name}: the classifier is new") if left else notes
