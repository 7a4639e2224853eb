"""The student with all that is trained along with it: what its losses put between it and its teacher, and its peers."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.distill.features.connectors import CONNECTORS, Connector, LayerPairs
from compressor.errors import KdcError
from compressor.losses import LOSSES, bind
from compressor.losses import Loss as Row
from compressor.losses.tokens import count_of
from compressor.losses.vocabularies import groups_of
from compressor.schema.recipe import LossTerm, Recipe
from compressor.tasks.base import Batch, BatchModel, Outputs

__all__ = ["Learner", "Term", "bind_losses"]

OF_PEERS = {"student_logits", "teacher_logits", "labels", "peer_logits"}
"""What a loss may take to count for the peers as well."""


@dataclass(frozen=True)
class Term:
    """A loss of the recipe, its parameters filled in; `row` is that of the table."""

    loss: LossTerm
    row: Row
    function: Any

    @property
    def name(self) -> str:
        return self.loss.name

    @property
    def asks_teacher(self) -> bool:
        return _asks_teacher(self.row)


def _asks_teacher(row: Row) -> bool:
    return any(name.startswith("teacher_") for name in row.needs)


def bind_losses(recipe: Recipe, *, has_teacher: bool, stage: int | None = None) -> list[Term]:
    """The recipe's losses, ready to call; raises KdcError for one that is unknown, or that cannot be had here. `stage`:
    which one it is of a training in several, from 1, where others follow; they may leave the classifier out."""
    terms = []
    inside = "losses" if stage is None else f"stages.{stage - 1}.losses"
    for number, term in enumerate(recipe.losses):
        where = f"recipe {inside}.{number}"
        function, _ = bind(term.name, term.parameters, where)
        row = LOSSES[term.name]
        if _asks_teacher(row) and not has_teacher:
            raise KdcError(
                f"{where}: {term.name} needs a teacher", "leave it out, or give a --teacher that can be asked"
            )
        if "peer_logits" in row.needs and not recipe.peers:
            raise KdcError(f"{where}: {term.name} needs peers", "--set 'peers=[{student: timm:NAME}]'")
        if row.taps is None and term.at != "auto":
            raise KdcError(f"{where}: {term.name} looks at no layers, so it takes no `at`", "leave `at` out")
        if row.taps != "maps" and term.at == "same_stride":
            raise KdcError(f"{where}: {term.name} looks at no stages, so there is no stride to go by", "leave `at` out")
        if not row.mixed_labels and (recipe.views.mixup or recipe.views.cutmix):
            raise KdcError(
                f"{where}: {term.name} needs one class an image, and mixup or cutmix give it two",
                "--set views.mixup=0 --set views.cutmix=0, or another loss",
            )
        terms.append(Term(term, row, function))
    # One that never counts is not computed: its teacher need not run.
    terms = [term for term in terms if term.loss.ever]
    if not terms:
        raise KdcError(f"recipe {inside}: every weight is 0, so nothing would be learned")
    if stage is None and not any("student_logits" in term.row.needs and term.row.knowledge != "self" for term in terms):
        names = ", ".join(term.name for term in terms)
        raise KdcError(f"recipe losses: {names} teach the student's classifier nothing", "add kd or cross_entropy")
    if recipe.peers and recipe.head_epochs:
        raise KdcError("recipe head_epochs: peers are trained whole from the first step", "head_epochs: 0, or no peers")
    if recipe.peers and not any("peer_logits" in term.row.needs for term in terms):
        raise KdcError("recipe peers: no loss looks at them", "add {name: mutual} to losses, or leave peers out")
    return terms


class Learner(nn.Module):
    """`forward` gives every loss of a batch. It is one module, so that several processes average all its gradients.

    `layers`: for each term that looks at features, the layers of student and teacher that it looks at.
    """

    def __init__(
        self,
        student: BatchModel,
        terms: Sequence[Term],
        *,
        layers: Mapping[str, LayerPairs] | None = None,
        peers: Sequence[BatchModel] = (),
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.student, self.peers = student, nn.ModuleList(peers)
        self.terms, self.layers, self.autocast = tuple(terms), dict(layers or {}), autocast
        self.connectors = nn.ModuleDict(
            {name: CONNECTORS[_row(terms, name).connector](sides) for name, sides in self.layers.items()}
        )

    @property
    def keys(self) -> set[str]:
        """The tensors of a batch that it takes."""
        return {self.student.key, *(peer.key for peer in self._peers)}

    @property
    def asks_teacher(self) -> bool:
        return any(term.asks_teacher for term in self.terms)

    @property
    def _peers(self) -> list[BatchModel]:
        return [peer for peer in self.peers if isinstance(peer, BatchModel)]

    def weights(self, progress: float) -> dict[str, float]:
        """The weight of every loss that `forward` gives, when `progress` of the training is done."""
        student_weights = {term.name: term.loss.weight_at(progress) for term in self.terms}
        return student_weights | {
            f"peer{number} {term.name}": student_weights[term.name]
            for number, _ in enumerate(self.peers, 1)
            for term in self._of_peers
        }

    @property
    def _of_peers(self) -> list[Term]:
        return [term for term in self.terms if set(term.row.needs) <= OF_PEERS]

    def counts(self, batch: Batch, written: Batch | None = None) -> dict[str, Tensor]:
        """Over how much of this batch each loss is a mean that is one over tokens: a part of a step weighs as much.
        `written`: see `forward`."""
        counts: dict[str, Tensor | None] = {}
        for term in self.terms:
            shown = written if written is not None and term.asks_teacher else batch
            counts[term.name] = _count(term.row, shown, self.student.mask_of(shown))
        for number, _ in enumerate(self.peers, 1):
            counts |= {f"peer{number} {term.name}": counts[term.name] for term in self._of_peers}
        return {name: count for name, count in counts.items() if count is not None}

    def forward(self, batch: Batch, teacher: Outputs | None, written: Batch | None = None) -> dict[str, Tensor]:
        """Every loss by name, unweighted; `teacher`: its answers to this batch, without gradients. `written`: what the
        student wrote, which it is compared with its teacher on, and which `teacher` answers then."""
        if written is None:
            return self._losses(batch, teacher, self.terms)
        alone = [term for term in self.terms if not term.asks_teacher]
        losses = self._losses(batch, None, alone) if alone else {}
        losses |= self._losses(written, teacher, [term for term in self.terms if term.asks_teacher])
        return {term.name: losses[term.name] for term in self.terms}

    def _losses(self, batch: Batch, teacher: Outputs | None, terms: Sequence[Term]) -> dict[str, Tensor]:
        with self.precision(batch["labels"].device):
            outputs: Outputs = self.student(batch)
            peer_logits = [peer(batch).logits for peer in self._peers]
        for logits in (outputs.logits, *peer_logits, *([teacher.logits] if teacher is not None else [])):
            _require_rows(logits)
        given: dict[str, Any] = {**batch, "mask": outputs.mask}
        if teacher is not None:
            given["teacher_logits"] = teacher.logits
        learning = [outputs.logits, *peer_logits]
        losses: dict[str, Tensor] = {}
        for term in terms:
            values: dict[str, Any] = given | {"student_logits": outputs.logits, "peer_logits": _detached(peer_logits)}
            if term.name in self.connectors:
                values |= self._connected(term.name, outputs, teacher, batch)
            losses[term.name] = _loss(term, values, batch)
        for number, logits in enumerate(peer_logits, 1):
            other_logits = _detached([*learning[:number], *learning[number + 1 :]])
            for term in self._of_peers:
                values = given | {"student_logits": logits, "peer_logits": other_logits}
                losses[f"peer{number} {term.name}"] = _loss(term, values, batch)
        return losses

    def precision(self, device: torch.device) -> AbstractContextManager[object]:
        """What the student computes in."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast)

    def _connected(self, name: str, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Any]:
        sides, connector = self.layers[name], self.connectors[name]
        assert isinstance(connector, Connector)
        whole = "mask" in _row(self.terms, name).needs
        ours = [student.features[at.name] if whole else student.flat(at.name) for at in sides.student]
        theirs = []
        if teacher is not None:
            _require_same_tokens(student, teacher)
            theirs = [teacher.features[at.name] if whole else teacher.flat(at.name) for at in sides.teacher]
        given: dict[str, Any] = connector(ours, theirs, batch["labels"], batch["index"])
        return given


def _row(terms: Sequence[Term], name: str) -> Row:
    return next(term.row for term in terms if term.name == name)


def _count(row: Row, batch: Batch, mask: Tensor | None) -> Tensor | None:
    """Over how much of a batch a loss is a mean; None: over samples, of which every part holds as many. Logits are a
    row a sample, or where "positions" says which tokens are answered, a row each."""
    if row.mean_over == "groups":
        return groups_of(batch["student_groups"]) if "student_groups" in batch else None
    if row.mean_over == "samples":
        if "positions" not in batch or "student_logits" not in row.needs:
            return None
        return torch.tensor(float(len(batch["labels"])), dtype=torch.float64, device=batch["labels"].device)
    hidden = batch.get("token_labels")
    if mask is None or (hidden is None and row.mean_over == "chosen"):
        return None  # `forward` says what is missing
    return count_of(row.mean_over, mask, hidden)


def _require_rows(logits: Tensor) -> None:
    """Losses on logits take a row a sample. Raises KdcError for a network that answers every position."""
    if logits.ndim != 2:
        raise KdcError(
            f"a network answers {list(logits.shape)} for a batch, and losses take rows [n, classes]",
            "its task must choose the positions that count and flatten them before a loss sees them",
        )


def _require_same_tokens(student: Outputs, teacher: Outputs) -> None:
    masks = student.mask, teacher.mask
    if masks[0] is not None and masks[1] is not None and masks[0].shape != masks[1].shape:
        raise KdcError(
            f"student and teacher have {masks[0].shape[1]} and {masks[1].shape[1]} tokens, which are not the same ones",
            "losses on logits (kdc losses), or a student with the teacher's tokens",
        )


def _detached(logits: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach() for tensor in logits]


def _loss(term: Term, values: Mapping[str, Any], batch: Batch) -> Tensor:
    """A loss that takes labels gets those rows of the batch that have one ("labelled", where some have none). The batch
    may be a part of a step: "labelled_share" makes the mean over the parts that over all labelled rows of the step."""
    missing = [name for name in term.row.needs if name not in values]
    if missing:
        raise KdcError(f"{term.name} needs {missing[0]}, and the task's batches hold none", "leave that loss out")
    needed = {name: values[name] for name in term.row.needs}
    if "columns" in batch and term.row.mean_over != "groups" and "teacher_logits" in needed:
        columns = int(batch["columns"])
        needed |= {name: _first(needed[name], columns) for name in needed if name.endswith("_logits")}
    labelled = batch.get("labelled")
    loss: Tensor
    # CRD's rows are counted against its memory, which its connector has looked after.
    if labelled is None or "labels" not in needed:
        loss = term.function(**needed)
        return loss
    if not len(labelled):
        return _nothing(needed)
    rows = labelled.to(batch["labels"].device, non_blocking=True)
    loss = term.function(**{name: _rows(value, rows) for name, value in needed.items()})
    return loss * batch["labelled_share"]


def _first(value: Any, columns: int) -> Any:
    """Of logits, or of each of several, the first columns."""
    return value[:, :columns] if isinstance(value, Tensor) else [logits[:, :columns] for logits in value]


def _nothing(needed: Mapping[str, Any]) -> Tensor:
    """0, with a gradient of 0 for all that the loss would have reached: several processes wait for each of them."""
    tensors = [tensor for value in needed.values() for tensor in (value if isinstance(value, list) else [value])]
    floats = [tensor for tensor in tensors if tensor is not None and tensor.is_floating_point()]
    return torch.stack([tensor.sum() * 0.0 for tensor in floats]).sum()


def _rows(value: Any, rows: Tensor) -> Any:
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value.index_select(0, rows)
    return [_rows(element, rows) for element in value]
