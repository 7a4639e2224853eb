"""Which layers of student and teacher a loss on features looks at."""

from collections.abc import Sequence
from dataclasses import replace

from compressor.distill.features.connectors import CONNECTORS, LayerPairs
from compressor.distill.loop.learner import Term
from compressor.errors import KdcError
from compressor.losses import Loss
from compressor.models import LoadedModel
from compressor.models.features import Taps, inner_of
from compressor.models.loaded import Several
from compressor.models.stages import Layer, layers_of, match, named_layer, same_strides, taps_for

__all__ = ["described", "layer_pairs_of", "taps_of"]


def layer_pairs_of(
    terms: Sequence[Term], student: LoadedModel, teacher: LoadedModel | None, *, classes: int, samples: int
) -> tuple[dict[str, LayerPairs], dict[str, str]]:
    """The layers of every term that looks at some, by the term's name; and why a term is left out, as one with
    `at: same_stride` is where there are none. Raises KdcError for those that a network lacks, and for a loss that
    cannot compare them."""
    found: dict[str, LayerPairs] = {}
    left_out: dict[str, str] = {}
    for term in terms:
        kind = term.row.taps
        if kind is None:
            continue
        at = f"recipe losses, {term.name}"
        if not term.asks_teacher:
            if term.loss.at != "auto":
                raise KdcError(f"{at}: it looks at every stage of the student, so it takes no `at`", "leave `at` out")
            own_layers = layers_of(student, kind)
            for layer in own_layers:
                _require_kind(layer, term.row, at, student)
            found[term.name] = LayerPairs(tuple(own_layers), (), classes, samples)
            continue
        if term.loss.at == "same_stride":
            pairs, why = _of_equal_stride(student, teacher)
            if len(pairs) >= term.row.layers:
                found[term.name] = _sides(pairs, classes, samples)
            else:
                left_out[term.name] = why
            continue
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
        if term.loss.at == "auto":
            pairs = match(layers_of(student, kind), layers_of(teacher, kind))
        else:
            pairs = [(named_layer(student, own), named_layer(teacher, other)) for own, other in term.loss.at]
        for own, other in pairs:
            _require_kind(own, term.row, at, student)
            _require_kind(other, term.row, at, teacher)
        if len(pairs) < term.row.layers:
            raise KdcError(
                f"{at}: it compares {term.row.layers} pairs of layers or more, and there are {len(pairs)}",
                "leave `at` out, or name more",
            )
        found[term.name] = _sides(pairs, classes, samples)
    for term in terms:
        if term.name in found:  # what it cannot connect is known before any training; of a memory one row will do
            CONNECTORS[term.row.connector](replace(found[term.name], samples=1))
    return found, left_out


def _of_equal_stride(student: LoadedModel, teacher: LoadedModel | None) -> tuple[list[tuple[Layer, Layer]], str]:
    """The pairs, and why there are no more of them."""
    if teacher is None or isinstance(inner_of(teacher.network), Several):
        return [], "there is no one network that teaches"
    try:
        pairs = same_strides(layers_of(student, "maps"), layers_of(teacher, "maps"))
    except KdcError as error:
        return [], error.message
    return pairs, f"{student.weights.source} and {teacher.weights.source} have too few stages of equal stride"


def _sides(pairs: Sequence[tuple[Layer, Layer]], classes: int, samples: int) -> LayerPairs:
    return LayerPairs(tuple(own for own, _ in pairs), tuple(other for _, other in pairs), classes, samples)


DIMENSIONS = {"maps": 3, "pooled": 1, "attention": 3}


def _require_kind(layer: Layer, row: Loss, at: str, model: LoadedModel) -> None:
    kind = row.taps
    assert kind is not None
    if row.tokens and kind == "maps" and layer.is_tokens:
        return
    if len(layer.shape) != DIMENSIONS[kind] or (kind == "attention") != layer.name.startswith("attention"):
        shape = "×".join(map(str, layer.shape))
        what = f"tokens, {shape}" if layer.is_tokens else shape
        raise KdcError(
            f"{at}: {layer.name} of {model.weights.source} gives {what}, and this loss wants {kind}",
            {"maps": "name a stage", "pooled": "leave `at` out", "attention": "name attention1, attention2, …"}[kind],
        )


def taps_of(sides: dict[str, LayerPairs], student: LoadedModel, teacher: LoadedModel | None) -> tuple[Taps | None, ...]:
    """What the student's and the teacher's forward passes must give beside logits; None where that is nothing."""
    own = [layer.name for one in sides.values() for layer in one.student]
    others = [layer.name for one in sides.values() for layer in one.teacher]
    return (
        taps_for(student, own) if own else None,
        taps_for(teacher, others) if others and teacher is not None else None,
    )


def described(name: str, sides: LayerPairs) -> str:
    """One line for people: which layer learns from which."""

    def shaped(layer: Layer) -> str:
        return f"{layer.name} ({'×'.join(map(str, layer.shape))})"

    if not sides.teacher:
        return f"{name} looks at {', '.join(shaped(layer) for layer in sides.student)}"
    return f"{name}: " + ", ".join(f"{shaped(own)} from {shaped(other)}" for own, other in sides.pairs)
