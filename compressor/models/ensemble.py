"""Several teachers that answer as one network."""

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel, Several, probe_of
from compressor.schema.preprocess import Preprocess
from compressor.schema.recipe import Ensemble
from compressor.schema.student import Weights

__all__ = ["TOGETHER", "combined", "resized_members"]

TOGETHER = " + "
"""Between the members, where an ensemble is named."""


class Renormalised(nn.Module):
    """`network`, which wants pictures as `own` says, on pictures as `given` says: normalised anew, and resized where
    its input size is another."""

    def __init__(self, network: nn.Module, own: Preprocess, given: Preprocess) -> None:
        super().__init__()
        self.network = network
        self._size = None if own.input_size == given.input_size else own.input_size
        self.scale: Tensor
        self.shift: Tensor
        std, given_std = torch.tensor(own.std), torch.tensor(given.std)
        mean, given_mean = torch.tensor(own.mean), torch.tensor(given.mean)
        self.register_buffer("scale", (given_std / std).reshape(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((given_mean - mean) / std).reshape(3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        own = pictures * self.scale + self.shift
        if self._size is not None:
            own = F.interpolate(own, self._size, mode="bilinear", antialias=True, align_corners=False)
        logits: Tensor = self.network(own)
        return logits


class Mixture(Several):
    """The weighted mean of the members' probabilities, as log-probabilities (log-mean-exp); or of their logits, less
    each row's mean, which no probability depends on. `weights`: one a member, summing to 1."""

    def __init__(self, members: Sequence[nn.Module], weights: Sequence[float], of: str) -> None:
        super().__init__()
        self.members, self._of = nn.ModuleList(members), of
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights).reshape(-1, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        answers = torch.stack([member(pictures).float() for member in self.members])
        if self._of == "logits":
            return ((answers - answers.mean(-1, keepdim=True)) * self.weights).sum(0)
        return (answers.log_softmax(-1) + self.weights.log()).logsumexp(0)


def combined(models: Sequence[LoadedModel], how: Ensemble) -> LoadedModel:
    """One model that answers for all `models`, whose classes are the same, in the same order.

    Its preprocessing is that of the member with the largest input (the first of equals); each other member gets these
    pictures, resized to its own input and normalised its own way. Raises KdcError where `how.weights` do not fit.
    """
    if len(models) == 1:
        return models[0]
    weights = how.weights or (1.0,) * len(models)
    if len(weights) != len(models):
        raise KdcError(
            f"recipe ensemble.weights has {len(weights)} weights, and there are {len(models)} teachers",
            "give one a teacher, in the order of --teacher",
        )
    largest = max(models, key=lambda model: model.preprocess.input_size[0] * model.preprocess.input_size[1]).preprocess
    members = [
        model.network if model.preprocess == largest else Renormalised(model.network, model.preprocess, largest)
        for model in models
    ]
    shares = [weight / sum(weights) for weight in weights]
    network = Mixture(members, shares, how.of).eval()
    parts = [f"{model.weights.sha256} {share!r}" for model, share in zip(models, shares, strict=True)]
    identity = Weights(
        source=TOGETHER.join(model.weights.source for model in models),
        architecture=TOGETHER.join(model.weights.architecture for model in models),
        sha256=_sha256([how.of, *parts]),
        licence=" AND ".join(dict.fromkeys(model.weights.licence for model in models)),
        parameters=sum(model.weights.parameters for model in models),
        preprocess_sha256=_sha256([model.preprocess.model_dump_json() for model in models]),
        classes_sha256=_sha256([str(model.weights.classes_sha256) for model in models]),
        probe=probe_of(network, largest),
    )
    return LoadedModel(network, largest, models[0].class_names, identity, models[0].family)


def _sha256(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def resized_members(models: Sequence[LoadedModel], ensemble: LoadedModel) -> list[str]:
    """A line for each member that does not see pictures as it does alone."""

    def geometry(how: Preprocess) -> Preprocess:
        return how.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3})

    given = ensemble.preprocess
    return [
        f"{model.weights.source} sees pictures as the ensemble's largest member does ({given.input_size[0]} px), "
        f"brought to its own {model.preprocess.input_size[0]} px, not cut its own way"
        for model in models
        if geometry(model.preprocess) != geometry(given)
    ]
