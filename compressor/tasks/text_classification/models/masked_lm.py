"""Heads over the vocabulary (transformers' …ForMaskedLM), apart from the network that they read.

A head is used while something is trained, and where a teacher fills in words. It is no part of a classifier: a run that
`kdc teach` makes keeps the one that its encoder came with, beside its weights, for who learns from it later.
"""

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from compressor.errors import KdcError, first_line
from compressor.files.atomic import write_atomically
from compressor.models.checkpoints.state_dict import read_tensors
from compressor.models.hugging_face import as_float32, pretrained, transformers_library

__all__ = ["FILE", "MaskedLm", "fits", "head_for", "names_of", "read_head", "stored_head", "write_head"]

FILE = "masked_lm.safetensors"

Weights = dict[str, Tensor]
"""Of a head, but for what it shares with the embedding of its network."""


class _Given(nn.Module):
    """In place of the network that a head reads: answers what it was given."""

    states: Tensor

    def forward(self, *_: Any, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=self.states)


class MaskedLm(nn.Module):
    """The head of `model`, a …ForMaskedLM: what comes out of the last layer [B, N, D] -> logits [B, N, V].

    `embedding`: of the network that it reads from now on, which its last layer shares where `model` shares its own.
    """

    def __init__(self, model: nn.Module, embedding: nn.Module) -> None:
        super().__init__()
        network: Any = model
        self.tied = network.get_output_embeddings().weight is network.get_input_embeddings().weight
        setattr(model, network.base_model_prefix, _Given())
        if self.tied:
            network.get_output_embeddings().weight = embedding.weight
        self.model = model

    def forward(self, states: Tensor) -> Tensor:
        model: Any = self.model
        given = getattr(model, model.base_model_prefix)
        given.states = states
        try:
            logits: Tensor = model(input_ids=torch.zeros(states.shape[:2], dtype=torch.int64)).logits
        finally:
            del given.states
        return logits

    def weights(self) -> Weights:
        """See `Weights`; copies."""
        model: Any = self.model
        shared = model.get_output_embeddings().weight if self.tied else None
        state = model.state_dict(keep_vars=True)
        return {name: value.detach().clone().cpu() for name, value in state.items() if value is not shared}


def head_for(model: nn.Module, weights: Weights | None) -> MaskedLm:
    """A head that reads the last hidden states of `model`, a classifier, with these weights, or drawn ones. Raises
    KdcError for weights of another head."""
    head = _apart(model)
    if weights is not None:
        _require_fitting(weights, head.weights())
        head.model.load_state_dict(weights, strict=False)
    return head.train(model.training)


def names_of(model: nn.Module) -> list[str]:
    """The weights that a head of this network has."""
    return list(_apart(model).weights())


def fits(weights: Weights, model: nn.Module) -> bool:
    """Whether a head with these weights can read the last hidden states of `model`."""
    try:
        _require_fitting(weights, _apart(model).weights())
    except KdcError:
        return False
    return True


def _apart(model: nn.Module) -> MaskedLm:
    """A new head for `model`, its weights drawn, which changes nothing of what is drawn afterwards."""
    transformers, network = transformers_library(), cast(Any, model)
    config = network.config
    if type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        raise KdcError(
            f"transformers has no masked-LM head for {config.model_type}", "an encoder such as BERT, or other losses"
        )
    with torch.random.fork_rng(devices=[]):
        made = transformers.AutoModelForMaskedLM.from_config(
            copy.deepcopy(config), trust_remote_code=False, **as_float32(transformers)
        )
        embedding = network.get_input_embeddings()
        head = MaskedLm(made.float().eval(), embedding).to(embedding.weight.device)
        try:
            head(torch.zeros(1, 1, config.hidden_size, device=embedding.weight.device))
        except Exception as error:  # it takes more of what its network gives, as Longformer's does
            raise KdcError(
                f"kdc cannot run the masked-LM head of {config.model_type} apart from its network: {first_line(error)}",
                "losses without a vocabulary: kd, hidden_states, relations",
            ) from None
    return head


def _require_fitting(weights: Weights, expected: Weights) -> None:
    other = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    other += sorted(weights.keys() - expected.keys())
    if other:
        raise KdcError(f"{other[0]} is of the masked-LM head of another network", "put back the one that it came with")


def stored_head(reference: str, left_over: list[str], classifier: nn.Module) -> Weights | None:
    """The head that the repository or folder `reference` holds beside what `classifier` took of it; None where it holds
    no whole one. `left_over`: the weights that the classifier has no place for."""
    transformers = transformers_library()
    network: Any = classifier
    if not left_over or type(network.config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return None
    model, report = pretrained(transformers.AutoModelForMaskedLM, reference, transformers)
    if any(not name.startswith(f"{model.base_model_prefix}.") for name in report["missing_keys"]):
        return None
    try:
        _apart(classifier)
    except KdcError:  # said by who asks for it
        return None
    model.eval()
    ids = torch.arange(4, dtype=torch.int64)[None] % network.config.vocab_size
    with torch.no_grad():
        whole = model(input_ids=ids, output_hidden_states=True)
        head = MaskedLm(model.float(), network.get_input_embeddings())
        apart = head(whole.hidden_states[-1]) - whole.logits
    if not bool(apart.isfinite().all()) or float(apart.abs().max()) > 1e-3 * float(whole.logits.abs().max()) + 1e-5:
        raise KdcError(f"hf:{reference}: its masked-LM head reads something else than its last hidden states")
    return head.weights()


def write_head(weights: Weights, folder: Path) -> None:
    """Write FOLDER/masked_lm.safetensors, all of it or nothing."""
    from safetensors.torch import save

    with write_atomically(folder / FILE) as temporary:
        temporary.write_bytes(save(weights, {"format": "pt"}))


def read_head(folder: Path) -> Weights | None:
    """What `write_head` wrote there; None where there is none. Raises KdcError for a damaged file."""
    path = folder / FILE
    if not path.is_file():
        return None
    weights: Weights = read_tensors(path)
    spoilt = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if spoilt:
        raise KdcError(f"{path}: {spoilt[0]} holds numbers that are not finite", "put it back, or teach again")
    return weights
