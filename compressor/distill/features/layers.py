"""Which layers of student and teacher a loss on features looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from compressor.distill.features.connectors import CONNECTORS, LayerPairs
from compressor.distill.loop.learner import Term
from compressor.errors import KdcError
from compressor.losses import Loss
from compressor.losses.tokens import common_heads
from compressor.models import LoadedModel
from compressor.models.features import EMBEDDING, INSIDE, POOLED, VOCABULARY, Taps, inner_of, kind_of
from compressor.models.layer_map import even_map
from compressor.models.loaded import Several
from compressor.models.stages import Layer, height_of, layers_of, match, named_layer, same_strides, taps_for

__all__ = ["described", "kept_layers", "layer_pairs_of", "taps_of", "whole_layers"]


def layer_pairs_of(
    terms: Sequence[Term], student: LoadedModel, teacher: LoadedModel | None, *, classes: int, samples: int
) -> tuple[dict[str, LayerPairs], dict[str, str]]:
    """The layers of every term that looks at some, by the term's name; and why a term is left out, as one with
    `at: same_stride` is where there are none. Raises KdcError for those that a network lacks, and for a loss that
    cannot compare them."""
    sides: dict[str, LayerPairs] = {}
    left_out: dict[str, str] = {}
    for term in terms:
        if term.row.taps is None:
            continue
        if not term.asks_teacher:
            sides[term.name] = LayerPairs(_own_layers(term, student), (), classes, samples)
        elif term.loss.at == "same_stride":
            pairs, why = _of_equal_stride(student, teacher)
            if len(pairs) >= term.row.layers:
                sides[term.name] = _layer_pairs(pairs, classes, samples)
            else:
                left_out[term.name] = why
        else:
            sides[term.name] = _layer_pairs(_pairs(term, student, teacher), classes, samples)
    for term in terms:
        if term.name in sides:  # what it cannot connect is known before any training; of a memory one row will do
            _try(term, replace(sides[term.name], samples=1))
    return sides, left_out


def _own_layers(term: Term, student: LoadedModel) -> tuple[Layer, ...]:
    """The layers of a loss that looks at the student alone."""
    kind, at = term.row.taps, f"recipe losses, {term.name}"
    assert kind is not None
    if term.loss.at != "auto":
        raise KdcError(f"{at}: it looks at every stage of the student, so it takes no `at`", "leave `at` out")
    layers = tuple(layers_of(student, kind))
    for layer in layers:
        _require_kind(layer, term.row, at, student)
    return layers


def _pairs(term: Term, student: LoadedModel, teacher: LoadedModel | None) -> list[tuple[Layer, Layer]]:
    """The layers that a loss compares: those that see alike, or those that are named."""
    kind, at = term.row.taps, f"recipe losses, {term.name}"
    assert kind is not None
    if teacher is None:
        raise KdcError(
            f"{at}: it looks at a teacher's layers, and there is no teacher with layers of its own",
            "losses on logits (kdc losses), or --teacher with a model",
        )
    if isinstance(inner_of(teacher.network), Several):
        raise KdcError(
            f"{at}: several networks ({teacher.weights.source}) have no layers in common",
            "give one --teacher, or losses on logits (kdc losses)",
        )
    if isinstance(term.loss.at, str):
        pairs = _auto(term, student, teacher)
    else:
        pairs = [
            (named_layer(student, student_layer), named_layer(teacher, teacher_layer))
            for student_layer, teacher_layer in term.loss.at
        ]
    for student_layer, teacher_layer in pairs:
        _require_kind(student_layer, term.row, at, student)
        _require_kind(teacher_layer, term.row, at, teacher)
        by_token = not height_of(teacher) and kind_of(teacher_layer.name) != POOLED
        if by_token and student.preprocess != teacher.preprocess:
            raise KdcError(
                f"{at}: it compares token by token, and the student reads {student.preprocess.described} and the "
                f"teacher {teacher.preprocess.described}, or other tokens",
                "one tokenizer, and one --max-length; or losses on logits (kdc losses)",
            )
    if len(pairs) < term.row.layers:
        raise KdcError(
            f"{at}: it compares {term.row.layers} pairs of layers or more, and there are {len(pairs)}",
            "leave `at` out, or name more",
        )
    return pairs


def _auto(term: Term, student: LoadedModel, teacher: LoadedModel) -> list[tuple[Layer, Layer]]:
    """The layers that `at: auto` means. Of sequences those of TinyBERT's map, which must come out even: block n learns
    from block n k, its attention as its hidden state."""
    row = term.row
    ours, theirs = (layers_of(model, str(row.taps)) for model in (student, teacher))
    if height_of(student) or height_of(teacher):
        return match(ours, theirs)
    if row.auto == "last" or row.taps not in ("maps", "tokens", *INSIDE):
        return [(ours[-1], theirs[-1])]
    try:
        pairs = [(ours[n - 1], theirs[nk - 1]) for n, nk in even_map(len(ours), len(theirs)).hidden[1:]]
    except KdcError as error:
        raise KdcError(f"recipe losses, {term.name}: {error.message}", error.hint) from None
    if row.auto == "embedding_and_each":
        pairs.insert(0, (named_layer(student, EMBEDDING), named_layer(teacher, EMBEDDING)))
    return pairs


def _try(term: Term, sides: LayerPairs) -> None:
    """Raise KdcError for layers that the loss cannot compare, by what it says to zeros: before any training."""
    connector = CONNECTORS[term.row.connector](sides)
    if "mask" not in term.row.needs:
        return
    ours, theirs = ([torch.zeros(1, *layer.shape) for layer in layers] for layers in (sides.student, sides.teacher))
    none = torch.zeros(1, dtype=torch.int64)
    given = connector(ours, theirs, none, none)
    given |= {"mask": None, "token_labels": torch.zeros(1, sides.student[0].shape[0], dtype=torch.int64)}
    try:
        term.function(**{name: given[name] for name in term.row.needs})
    except ValueError as error:
        raise KdcError(f"recipe losses, {term.name}: {error}", "choose other layers, or its parameters") from None


def _of_equal_stride(student: LoadedModel, teacher: LoadedModel | None) -> tuple[list[tuple[Layer, Layer]], str]:
    """The pairs, and why there are no more of them."""
    if teacher is None or isinstance(inner_of(teacher.network), Several):
        return [], "there is no one network that teaches"
    try:
        pairs = same_strides(layers_of(student, "maps"), layers_of(teacher, "maps"))
    except KdcError as error:
        return [], error.message
    return pairs, f"{student.weights.source} and {teacher.weights.source} have too few stages of equal stride"


def _layer_pairs(pairs: Sequence[tuple[Layer, Layer]], classes: int, samples: int) -> LayerPairs:
    return LayerPairs(tuple(student for student, _ in pairs), tuple(teacher for _, teacher in pairs), classes, samples)


DIMENSIONS = {"maps": 3, "pooled": 1, "attention": 3, "tokens": 2, "scores": 3, "projections": 3, "vocabulary": 2}


def _hint(kind: str, layer: Layer) -> str:
    if kind == "maps" and layer.is_tokens:  # all stages of such a network give them
        return "choose losses on logits or tokens: kd, cross_entropy, hidden_states, relations"
    return "name a stage" if kind in ("maps", "tokens") else "leave `at` out"


def _require_kind(layer: Layer, row: Loss, at: str, model: LoadedModel) -> None:
    kind = row.taps
    assert kind is not None
    special = (*INSIDE, VOCABULARY)
    misnamed = kind_of(layer.name) != kind if kind in special else kind_of(layer.name) in special
    wanted = DIMENSIONS["tokens" if row.tokens and layer.is_tokens else kind]
    if len(layer.shape) != wanted or misnamed:
        shape = "×".join(map(str, layer.shape))
        description = f"tokens, {shape}" if layer.is_tokens else shape
        raise KdcError(
            f"{at}: {layer.name} of {model.weights.source} gives {description}, and this loss wants {kind}",
            f"name {kind}1, {kind}2, …" if kind in INSIDE else _hint(kind, layer),
        )


def taps_of(sides: dict[str, LayerPairs], student: LoadedModel, teacher: LoadedModel | None) -> tuple[Taps | None, ...]:
    """What the student's and the teacher's forward passes must give beside logits; None where that is nothing."""
    student_names = [layer.name for side in sides.values() for layer in side.student]
    teacher_names = [layer.name for side in sides.values() for layer in side.teacher]
    return (
        taps_for(student, student_names) if student_names else None,
        taps_for(teacher, teacher_names) if teacher_names and teacher is not None else None,
    )


def kept_layers(terms: Sequence[Term], sides: Mapping[str, LayerPairs]) -> list[Layer]:
    """The teacher's layers that can be kept with its answers, each with the shape that is enough of it: those that no
    loss wants to see whole, or at two sizes."""
    wanted = _wanted(terms, sides)
    return [Layer(name, shapes[0]) for name, shapes in wanted.items() if len(set(shapes)) == 1 and shapes[0]]


def whole_layers(terms: Sequence[Term], sides: Mapping[str, LayerPairs]) -> dict[str, str]:
    """Of each loss that looks at some which cannot be kept, by its name, the first of them."""
    kept = {layer.name for layer in kept_layers(terms, sides)}
    layers = {
        term.name: [layer.name for layer in sides[term.name].teacher if layer.name not in kept]
        for term in terms if term.name in sides
    }  # fmt: skip
    return {term: names[0] for term, names in layers.items() if names}


def _wanted(terms: Sequence[Term], sides: Mapping[str, LayerPairs]) -> dict[str, list[tuple[int, ...]]]:
    """The shapes at which losses want each of the teacher's layers; (): whole."""
    wanted: dict[str, list[tuple[int, ...]]] = {}
    for term in terms:
        for student, teacher in sides[term.name].pairs if term.asks_teacher and term.name in sides else ():
            shape = CONNECTORS[term.row.connector].coarse(student, teacher)
            wanted.setdefault(teacher.name, []).append(shape or ())
    return wanted


def described(name: str, sides: LayerPairs, parameters: Mapping[str, object] | None = None) -> str:
    """One line for people: which layer learns from which. `parameters`: those of the loss that were given."""

    def shaped(layer: Layer) -> str:
        # Of a sequence, whose length is that of an example, what does not vary.
        if layer.is_tokens or kind_of(layer.name) == "projections":
            return f"{layer.name} ({layer.shape[-1]} wide)"
        if kind_of(layer.name) == "scores":
            return f"{layer.name} ({layer.shape[0]} heads)"
        return f"{layer.name} ({'×'.join(map(str, layer.shape))})"

    if not sides.teacher:
        return f"{name} looks at {', '.join(shaped(layer) for layer in sides.student)}"
    pairs = ", ".join(f"{shaped(student)} from {shaped(teacher)}" for student, teacher in sides.pairs)
    student, teacher = sides.pairs[0]
    if kind_of(student.name) == "projections" and not (parameters or {}).get("relation_heads"):
        pairs += f"; in {common_heads(student.shape[-1], teacher.shape[-1])} relation heads"
    return f"{name}: {pairs}"
