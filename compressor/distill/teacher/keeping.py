"""Whether a teacher's answers are kept, where, and what they take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from compressor.distill.host.context import RunContext
from compressor.distill.host.resources import free_bytes, readable, taken_bytes
from compressor.distill.teacher.cache import AnswerStore
from compressor.distill.teacher.codec import Codec
from compressor.losses import hides_tokens
from compressor.models import LoadedModel
from compressor.schema.recipe import Recipe
from compressor.tasks.base import Feed

__all__ = ["Keeping", "keeping", "over_budget"]


@dataclass(frozen=True)
class Keeping:
    """Answers to `views` views of `samples` samples, as `codec` has them, under `key` in `folder`. `unasked`: that is a
    run's, since nobody asked to keep them."""

    folder: Path
    key: dict[str, object]
    codec: Codec
    views: int
    samples: int
    unasked: bool = False

    @property
    def bytes(self) -> int:
        return AnswerStore.bytes_of(self.views, self.samples, self.codec.bytes)

    @property
    def is_there(self) -> bool:
        """Whether they have their room already."""
        return AnswerStore.is_there(self.folder, self.key)

    def store(self) -> AnswerStore:
        """Open it, or make room. Raises KdcError where the disk is full."""
        return AnswerStore(self.folder, self.key, views=self.views, samples=self.samples, size=self.codec.bytes)


def keeping(
    loaded: LoadedModel, recipe: Recipe, feed: Feed, context: RunContext, codec: Codec, *, samples: int,
    looked_at: Sequence[str], every_view: bool,
) -> Keeping | str:  # fmt: skip
    """How the answers to a training are kept; or why they are not. Makes nothing.

    Args:
        samples: that are trained on.
        looked_at: the teacher's layers that losses look at; `codec` has those that can be kept.
        every_view: keep answers even where this training shows each view once.
    """
    folder, distinct = context.resources.teacher_cache, recipe.views.distinct
    if loaded.preprocess.every_token is not None:
        return "kdc keeps no answers to every token of a text yet"
    if distinct is None:
        return "views never repeat (--set views.distinct=N)"
    if hides_tokens(term.name for term in recipe.losses if term.ever):
        return "other tokens are hidden in every epoch"
    whole = [name for name in looked_at if name not in {layer.name for layer in codec.features}]
    if whole:
        return f"a loss looks at all of its {whole[0]}; pooled features and coarse maps (of pkd) can be kept"
    if folder is None:
        return "--teacher-cache off"
    if recipe.epochs <= distinct and not every_view:
        return f"{recipe.epochs} epochs show {distinct} views once each"
    budget = context.resources.answers_budget
    kept = Keeping(folder, _key(loaded, recipe, feed, context, codec), codec, distinct, samples, budget is not None)
    return (_no_room(kept) if budget is None else over_budget([kept], budget)) or kept


def over_budget(wanted: Sequence[Keeping], budget: int) -> str | None:
    """Why answers are not kept that nobody asked to keep; None where they may be, or are there already. `budget`: of
    all that lie in their folder."""
    size = sum(kept.bytes for kept in wanted if not kept.is_there)
    if not size or size + taken_bytes(wanted[0].folder) <= budget:
        return None
    return (
        f"its answers would take {readable(size)}, and a run keeps {readable(budget)} unasked, a quarter of the free "
        "disk"
    )


def _no_room(kept: Keeping) -> str | None:
    """Why maps are not kept, which take much: more than half of what is free. None where they may be, or are there
    already. Answers alone are small; where even they do not fit, the store says so."""
    codec, size, free = kept.codec, kept.views * kept.samples * kept.codec.bytes, free_bytes(kept.folder)
    if not codec.bytes_of_maps or size <= free // 2 or kept.is_there:
        return None
    return (
        f"with the maps of its layers its answers would take {size / 1e9:,.1f} GB ({codec.bytes / 1e3:,.1f} kB each), "
        f"more than half of the {free / 1e9:,.1f} GB free for {kept.folder}"
    )


def _key(loaded: LoadedModel, recipe: Recipe, feed: Feed, context: RunContext, codec: Codec) -> dict[str, object]:
    """All that an answer depends on."""
    answers = recipe.teacher_answers.model_dump(mode="json")
    maps_dtype = answers.pop("maps_dtype")
    key: dict[str, object] = {
        "teacher": {
            "sha256": loaded.weights.sha256,
            "architecture": loaded.weights.architecture,
            "preprocess": loaded.weights.preprocess_sha256,
            "classes": loaded.weights.classes_sha256,
        },
        "classes": [names[0] for names in loaded.class_names or ()],
        "samples": feed.identity("teacher"),
        "answers": answers,
        "computed": {"autocast": str(context.speed.autocast), "torch": torch.__version__, "timm": timm.__version__},
    }
    pooled = {layer.name: layer.shape[0] for layer in codec.features if len(layer.shape) == 1}
    maps = {layer.name: list(layer.shape) for layer in codec.features if len(layer.shape) == 3}
    key |= {"features": pooled} if pooled else {}
    return key | ({"maps": {"dtype": maps_dtype, "layers": maps}} if maps else {})
