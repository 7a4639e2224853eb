"""A generalist and its specialists as one teacher (Hinton, Vinyals & Dean 2015, arXiv 1503.02531, sec. 5)."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.classes import map_classes
from compressor.models.loaded import LoadedModel, Several, with_classes
from compressor.models.runs import load_run
from compressor.modes import freeze
from compressor.progress import Silent
from compressor.schema.base import read_json
from compressor.schema.specialists import Specialist, Specialists
from compressor.schema.student import Specialty
from compressor.schema.weights import Weights, joint, joint_terms, merged
from compressor.tasks.table import task_named

__all__ = ["Posterior", "combined", "joined", "read_specialists"]

HALVINGS = 30
"""Of an interval of K (K + 1), for K specialists, or of logarithms: what is left is below a float32's last digit."""

LEAST = -80.0
"""The least log mass that is told from another: its exponential is still a normal float32."""


class Posterior(nn.Module):
    """The distribution q over all classes that generalist and specialists agree on best: the minimum over q of

        KL(p_g || q) + sum over m of KL(p_m || q)        (eq. 5)

    where p_m has the classes of specialist m and one dustbin, which is held against all that q gives to the others.

    All specialists take part for every sample, where the paper asks only those whose classes the generalist's first
    choice is one of: so q depends continuously on what they answer, a specialist may take up a sample that the
    generalist puts elsewhere, and one that says "none of mine" is heard as well.

    Each class has one specialist at most. Then q is known within a group, in proportion to u = p_g + p_m, and only the
    groups' masses Q are left. Expectation maximisation (each dustbin's probability d_m shared out in proportion to q;
    q = the mean) has its fixed point where, with w the sum of u over a group,

        Q_j (s + d_j / (1 - Q_j)) = w_j,    s = K + 1 - sum over m of d_m / (1 - Q_m),    sum of Q = 1

    (classes without a specialist are a group too, with d = 0). It gets there by a factor of about (K - 1) / (K + 1)
    a round, which is slow for many specialists. But for a given s each line is a quadratic equation with one root in
    [0, 1], which falls as s rises: so s is found by halving an interval, as exactly for many specialists as for few,
    in a fixed number of steps without data-dependent branches, which exporters can trace.
    """

    def __init__(self, classes: int, groups: Sequence[Sequence[int]], corrections: Sequence[float]) -> None:
        """`groups`: for each specialist its classes, numbers below `classes`, in the order of its outputs.
        `corrections`: what is added to its dustbin's logit (`Specialty.correction`)."""
        super().__init__()
        alone = sorted(set(range(classes)) - {number for group in groups for number in group})
        assert sum(len(group) for group in groups) + len(alone) == classes, "groups overlap"
        self.experts, self.has_alone = len(groups), bool(alone)
        self.sizes = [len(group) for group in groups]
        order = torch.tensor([number for group in groups for number in group] + alone)
        group_of = [index for index, size in enumerate(self.sizes) for _ in range(size)] + [len(groups)] * len(alone)
        self.order: Tensor
        self.back: Tensor
        self.group_of: Tensor
        self.corrections: Tensor
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)
        self.register_buffer("group_of", torch.tensor(group_of), persistent=False)
        self.register_buffer("corrections", torch.tensor(list(corrections)), persistent=False)

    def forward(self, generalist: Tensor, specialists: Sequence[Tensor]) -> Tensor:
        """log q [B, classes], float32. `generalist`: logits [B, classes]; `specialists`: logits [B, n + 1] each, the
        dustbin's last."""
        general = generalist.float().log_softmax(-1).index_select(-1, self.order)
        shares, dustbins = [], []
        for number, logits in enumerate(specialists):
            class_logits, dustbin = logits.float()[:, :-1], logits.float()[:, -1:] + self.corrections[number]
            answer = torch.cat([class_logits, dustbin], -1).log_softmax(-1)
            shares.append(answer[:, :-1])
            dustbins.append(answer[:, -1])
        known = sum(self.sizes)
        log_u = torch.logaddexp(general[:, :known], torch.cat(shares, -1))
        parts = list(log_u.split_with_sizes(self.sizes, -1))
        if self.has_alone:
            parts.append(general[:, known:])
            dustbins.append(torch.full_like(dustbins[0], -torch.inf))
        log_w = torch.stack([part.logsumexp(-1) for part in parts], -1).clamp_min(LEAST)
        gains = self._gains(log_w, torch.stack(dustbins, -1).exp())
        log_q = torch.cat(parts, -1) + gains.index_select(-1, self.group_of)
        return log_q.index_select(-1, self.back).log_softmax(-1)

    def _gains(self, log_w: Tensor, dustbin: Tensor) -> Tensor:
        """log (Q / w), [B, groups]: what a group's masses u are multiplied by."""
        w, most = log_w.exp(), self.experts + 1.0
        high = torch.full_like(w[:, :1], most)
        # Classes without a specialist have Q = w / s: s is positive, and may be tiny. Else it may be negative, but
        # 1 - Q_m is at least d_m / (K + 1).
        low, high = (log_w[:, -1:], high.log()) if self.has_alone else (high - self.experts * most, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            mass, outside = _mass(middle.exp() if self.has_alone else middle, w, dustbin)
            # Whether the masses' sum is above 1, without taking small ones from 1.
            largest = torch.arange(mass.shape[-1], device=mass.device) == mass.argmax(-1, keepdim=True)
            above = torch.where(largest, -outside, mass).sum(-1, keepdim=True) > 0
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        middle = (low + high) / 2
        return _mass(middle.exp() if self.has_alone else middle, w, dustbin)[0].log() - log_w


def _mass(s: Tensor, w: Tensor, dustbin: Tensor) -> tuple[Tensor, Tensor]:
    """The root Q in [0, 1] of s Q² - (s + d + w) Q + w = 0, and 1 - Q; each without cancellation."""
    root = ((s + dustbin - w).square() + 4 * dustbin * w).sqrt()

    def solved(part: Tensor, linear: Tensor) -> Tensor:
        positive = linear > 0
        quotient = 2 * part / torch.where(positive, linear + root, 1.0)
        return torch.where(positive, quotient, (root - linear) / torch.where(positive, 1.0, 2 * s.abs()))

    return solved(w, s + dustbin + w), solved(dustbin, dustbin + w - s)


class _Combined(Several):
    """Inputs -> log q: all networks take the same ones."""

    def __init__(self, generalist: nn.Module, specialists: Sequence[nn.Module], posterior: Posterior) -> None:
        super().__init__()
        self.generalist, self.specialists, self.posterior = generalist, nn.ModuleList(specialists), posterior

    def forward(self, *inputs: Tensor) -> Tensor:
        answer: Tensor = self.posterior(self.generalist(*inputs), [expert(*inputs) for expert in self.specialists])
        return answer


def combined(folder: Path, load: Callable[[str, int | None], LoadedModel]) -> LoadedModel:
    """The teacher in `folder`, which `kdc specialists` made; `load` loads its generalist by reference and input size.

    Raises KdcError where it is not finished, or where a part is missing or not what it was.
    """
    record = read_specialists(folder)
    generalist = load(record.generalist.source, record.input_size)
    classifier = with_classes(generalist, map_classes(generalist, record.class_names), record.class_names)
    changed = classifier.weights.changed_from(record.generalist)
    if changed is not None:
        raise KdcError(
            f"{record.generalist.source} is not the generalist of specialists:{folder} ({changed})",
            "put it back as it was, or make the specialists again",
        )
    generalist = task_named(generalist.preprocess.task).with_range(generalist, record.recipe.pixel_range, Silent())
    experts = [_expert(folder, row) for row in record.specialists]
    return joined(generalist, experts, record.class_names, f"specialists:{folder}")


def read_specialists(folder: Path) -> Specialists:
    """What is known of the specialists in `folder`; raises KdcError where no finished ones lie there."""
    if not (folder / "specialists.json").is_file():
        unfinished = (folder / "run.json").is_file()
        raise KdcError(
            f"{folder} holds no specialists (specialists.json is missing)",
            "their training is not finished: run the same command with --resume"
            if unfinished
            else "kdc specialists --out DIR makes them",
        )
    return read_json(folder / "specialists.json", Specialists)


def joined(
    generalist: LoadedModel,
    experts: Sequence[tuple[LoadedModel, Specialty]],
    class_names: Sequence[str],
    source: str,
) -> LoadedModel:
    """Generalist and specialists as one model of `class_names`, frozen; raises KdcError where they do not fit."""
    classifier = with_classes(generalist, map_classes(generalist, class_names), class_names)
    for model, _ in experts:
        if model.preprocess != generalist.preprocess:
            raise KdcError(
                f"{model.weights.source} sees images otherwise than its generalist: {_differing(model, generalist)}",
                "specialists take their generalist's preprocessing: make them again",
            )
    groups = [[list(class_names).index(name) for name in specialty.classes] for _, specialty in experts]
    corrections = [specialty.correction for _, specialty in experts]
    network = _Combined(
        classifier.network, [model.network for model, _ in experts], Posterior(len(class_names), groups, corrections)
    )
    parts = [generalist.weights, *(model.weights for model, _ in experts)]
    digest = hashlib.sha256()
    for part, group, correction in zip(parts, [list(class_names), *groups], [0.0, *corrections], strict=True):
        digest.update(f"{part.sha256}|{group}|{correction!r}\n".encode())
    digest.update(str(classifier.weights.classes_sha256).encode())
    weights = Weights(
        source=source,
        architecture=f"{generalist.weights.architecture}+{len(experts)} specialists",
        sha256=digest.hexdigest(),
        parameters=sum(part.parameters for part in parts),
        licence=joint(part.licence for part in parts),
        terms=joint_terms(part.terms for part in parts),
        ancestors=merged(parts),
    )
    names = tuple((name,) for name in class_names)
    return LoadedModel(freeze(network), generalist.preprocess, names, weights, generalist.family)


def _expert(folder: Path, row: Specialist) -> tuple[LoadedModel, Specialty]:
    model, student = load_run(folder / row.run)
    specialty = student.specialty
    if student.weights.sha256 != row.sha256 or specialty is None or specialty.classes != row.classes:
        raise KdcError(
            f"{folder / row.run} is not the specialist that specialists.json names", "make the specialists again"
        )
    return model, specialty


def _differing(model: LoadedModel, generalist: LoadedModel) -> str:
    values, expected = model.preprocess.model_dump(), generalist.preprocess.model_dump()
    return ", ".join(f"{key} {values[key]}, not {expected[key]}" for key in values if values[key] != expected[key])
