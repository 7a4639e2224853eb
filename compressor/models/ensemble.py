"""Several teachers that answer as one network."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel, Several, probe_of
from compressor.schema.recipe import Ensemble
from compressor.schema.weights import Weights, joint, joint_terms, merged
from compressor.tasks.table import task_named

__all__ = ["TOGETHER", "combined", "resized_members"]

TOGETHER = " + "
"""Between the members, where an ensemble is named."""


class Mixture(Several):
    """The weighted mean of the members' probabilities, as log-probabilities (log-mean-exp); or of their logits, less
    each row's mean, which no probability depends on. `weights`: one a member, summing to 1."""

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float], of: str) -> None:
        super().__init__()
        self.members, self._of = nn.ModuleList(members), of
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights).reshape(-1, 1, 1), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        answers = torch.stack([member(*inputs).float() for member in self.members])
        weights = self.weights.view(-1, *(1,) * (answers.ndim - 1))  # of logits [B, C], or [B, N, V]
        if self._of == "logits":
            return ((answers - answers.mean(-1, keepdim=True)) * weights).sum(0)
        return (answers.log_softmax(-1) + weights.log()).logsumexp(0)


def combined(models: Sequence[LoadedModel], ensemble: Ensemble) -> LoadedModel:
    """One model that answers for all `models`, whose classes are the same, in the same order.

    Its preprocessing is that of the member with the largest input (the first of equals); each other member gets these
    inputs, brought to its own form (`Task.adapted`). Raises KdcError where `how.weights` do not fit.
    """
    if len(models) == 1:
        return models[0]
    weights = ensemble.weights or (1.0,) * len(models)
    if len(weights) != len(models):
        raise KdcError(
            f"recipe ensemble.weights has {len(weights)} weights, and there are {len(models)} teachers",
            "give one a teacher, in the order of --teacher",
        )
    largest = max((model.preprocess for model in models), key=lambda preprocess: preprocess.cost)
    task = task_named(largest.task)
    members = [task.adapted(model.network, model.preprocess, largest)[0] for model in models]
    shares = [weight / sum(weights) for weight in weights]
    network = Mixture(members, shares, ensemble.of).eval()
    parts = [f"{model.weights.sha256} {share!r}" for model, share in zip(models, shares, strict=True)]
    identity = Weights(
        source=TOGETHER.join(model.weights.source for model in models),
        architecture=TOGETHER.join(model.weights.architecture for model in models),
        sha256=_sha256([ensemble.of, *parts]),
        parameters=sum(model.weights.parameters for model in models),
        preprocess_sha256=_sha256([model.preprocess.model_dump_json() for model in models]),
        classes_sha256=_sha256([str(model.weights.classes_sha256) for model in models]),
        probe=probe_of(network, largest),
        licence=joint(model.weights.licence for model in models),
        terms=joint_terms(model.weights.terms for model in models),
        ancestors=merged(model.weights for model in models),
    )
    return LoadedModel(network, largest, models[0].class_names, identity, models[0].family)


def _sha256(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def resized_members(models: Sequence[LoadedModel], ensemble: LoadedModel) -> list[str]:
    """A line for each member that does not see samples as it does alone."""
    task = task_named(ensemble.preprocess.task)
    notes = [(model, task.adapted(model.network, model.preprocess, ensemble.preprocess)[1]) for model in models]
    return [
        f"{model.weights.source} sees {task.samples} as the ensemble's largest member does {note}"
        for model, note in notes
        if note
    ]
