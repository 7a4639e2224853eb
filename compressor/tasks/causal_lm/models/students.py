"""Models to be trained: a student by its reference, a model that is taught further, and one that is drawn."""

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from compressor.errors import KdcError
from compressor.models.building import described_by, require_files
from compressor.models.features import inner_of
from compressor.models.hf_networks import config_from
from compressor.models.hugging_face import require_plain_config
from compressor.models.layer_stack import listed_layers, new_name, stack_of, with_layers
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.tokenizers import FILE
from compressor.models.weights import tensors_sha256
from compressor.references import Reference
from compressor.schema.student import Weights
from compressor.tasks.causal_lm.models.loading import built, load_hf, preprocess_for, require_model
from compressor.tasks.causal_lm.models.network import CausalLm
from compressor.tasks.causal_lm.tokenizer import DocumentTokenizer, of_documents, read_tokenizer

__all__ = ["create_student", "kept_layers", "require_student", "trainee"]

FORMS = "layers:N, layers:half, layers:0,1,29, hf:REPO_OR_PATH or hf:CONFIG.json"
SPELLING = re.compile(r"half|\d{1,4}(?:,\d{1,4})*")


def require_student(reference: str, init: str) -> None:
    """Raise KdcError for what `create_student` would, as far as that is known without loading anything."""
    named = Reference.parse(reference)
    if named.scheme == "layers":
        if not SPELLING.fullmatch(named.rest or ""):
            raise KdcError(f"student {reference!r} is not layers:N, layers:half or layers:0,1,29", FORMS)
    elif named.scheme == "hf" and named.rest:
        path = Path(named.rest)
        if init == "random":
            if not path.exists():
                raise KdcError(f"student {reference}: a drawn network needs a folder or a config.json here", FORMS)
        elif path.suffix == ".json":
            raise KdcError(f"student {reference} is a configuration, without weights", "--student-init random")
        else:
            require_model(named.rest)
    else:
        raise KdcError(f"student {reference!r} is none that learns from documents", f"one of {FORMS}")
    if init not in ("pretrained", "random"):
        raise KdcError(
            f"--student-init {init}: of language models kdc takes no checkpoints", "--student hf:PATH has its weights"
        )


def create_student(reference: str, init: str, max_length: int | None, teacher: LoadedModel | None) -> LoadedModel:
    """A student. `init`: "pretrained", the teacher's weights or those of the folder or repository, or "random", from
    torch's generator, which the caller seeds. `max_length`: tokens of a block, where that is stated."""
    require_student(reference, init)
    named = Reference.parse(reference)
    if named.scheme == "layers":
        return _cut(reference, init, max_length, teacher)
    if init == "pretrained":
        return load_hf(named.rest or "", max_length)
    return _drawn(reference, Path(named.rest or ""), max_length, teacher)


def kept_layers(asked: str, count: int, reference: str) -> list[int]:
    """Which of a teacher's `count` layers stay: as many of its first as of its last ones, one more of the first where
    that does not come out even; or those that are listed.

    What comes out of a layer of a pre-norm model is read by the next one as the layer before it left it: cut in the
    middle, SmolLM2-135M with 15 of its 30 layers came to a perplexity of 7,725 before any training; with every other
    layer to 634,000 and more (King James text).
    """
    if (listed := listed_layers(asked, count, reference, FORMS)) is not None:
        return listed
    number = (count + 1) // 2 if asked == "half" else int(asked)
    if not 1 <= number <= count:
        raise KdcError(f"student {reference!r}: the teacher has {count} layers", f"layers:1 to layers:{count}")
    first = (number + 1) // 2
    return [*range(first), *range(count - (number - first), count)]


def _cut(reference: str, init: str, max_length: int | None, teacher: LoadedModel | None) -> LoadedModel:
    network = None if teacher is None else inner_of(teacher.network)
    if teacher is None or not isinstance(network, CausalLm):
        raise KdcError(
            f"student {reference!r} is cut out of its teacher, and this one is no single network", "--student hf:PATH"
        )
    model: Any = network.model
    stack, count = stack_of(network, model)
    layers = kept_layers(reference.partition(":")[2], count, reference)
    small = CausalLm(built(with_layers(copy.deepcopy(model.config), layers, count)), network.tokenizer)
    if init == "pretrained":
        _fill(small, {new_name(name, stack, layers): value for name, value in network.state_dict().items()}, reference)
    source = teacher.weights.source
    start = "drawn at random" if init == "random" else "with the teacher's weights"
    shown = ", ".join(map(str, layers))
    note = f"student {reference}: layers {shown} of the {count} of {source} (0 to {count - 1}), {start}"
    preprocess = of_documents(teacher.preprocess)
    if max_length is not None:
        preprocess = preprocess.model_copy(update={"max_length": max_length})
    weights = Weights(
        source=f"{reference} of {source}",
        architecture=teacher.weights.architecture,
        sha256=tensors_sha256(small.state_dict()),
        licence=teacher.weights.licence,
        terms=teacher.weights.terms,
        ancestors=teacher.weights.provenance,
        parameters=sum(p.numel() for p in small.parameters()),
    )
    return check_input(LoadedModel(small.eval(), preprocess, None, weights, "hf", notes=(note,)))


def _fill(small: CausalLm, weights: Mapping[str | None, Tensor], reference: str) -> None:
    """Give a student its teacher's weights; None names what goes. Raises KdcError where a layer is of another kind at
    its new number, as where a configuration numbers those that are mixtures of experts."""
    kept = {name: value for name, value in weights.items() if name is not None}
    shapes = {name: value.shape for name, value in small.state_dict().items()}
    strange = sorted({*shapes.items()} ^ {(name, value.shape) for name, value in kept.items()})
    if strange:
        raise KdcError(
            f"student {reference}: its configuration has layers of another kind at these numbers ({strange[0][0]})",
            "other layers, or --student hf:PATH of a smaller network",
        )
    small.load_state_dict({name: value.clone() for name, value in kept.items()})


def _drawn(reference: str, path: Path, max_length: int | None, teacher: LoadedModel | None) -> LoadedModel:
    """The network that a configuration describes. It reads by the tokenizer beside it, or else by its teacher's."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        require_files(folder)
    require_plain_config(folder / "config.json" if path.is_dir() else path, reference)
    with described_by(reference, None):
        config: Any = config_from(path)
        tokenizer, note = _tokenizer(folder, reference, config, teacher)
        network = CausalLm(built(config), tokenizer)
    weights = Weights(
        source=f"random:{reference}",
        architecture=str(config.model_type),
        sha256=tensors_sha256(network.state_dict()),
        licence="none (trained from scratch)",
        parameters=sum(p.numel() for p in network.parameters()),
    )
    preprocess = preprocess_for(network, reference, max_length, drawn=True)
    return check_input(LoadedModel(network, preprocess, None, weights, "hf", notes=note))


def _tokenizer(
    folder: Path, reference: str, config: Any, teacher: LoadedModel | None
) -> tuple[DocumentTokenizer, tuple[str, ...]]:
    if (folder / FILE).is_file():
        return read_tokenizer(folder, reference, config), ()
    network = None if teacher is None else inner_of(teacher.network)
    if teacher is None or not isinstance(network, CausalLm):
        raise KdcError(f"student {reference}: no {FILE} lies beside it, and no teacher has one that it could take")
    note = f"student {reference} reads documents by the tokenizer of {teacher.weights.source}: it has none"
    return network.tokenizer, (note,)


def trainee(backbone: LoadedModel) -> LoadedModel:
    """`backbone`, to be taught further. Raises KdcError where it is several networks."""
    if not isinstance(inner_of(backbone.network), CausalLm):
        raise KdcError(f"{backbone.weights.source} cannot be trained: it is several networks")
    return replace(backbone)
