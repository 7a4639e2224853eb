"""`static:D`: a table with a vector of D numbers for each token, their mean, and a linear classifier.

The table is distilled from a teacher as Model2Vec does it (van Dongen & Tulkens 2024, github.com/MinishLab/model2vec):
the teacher is shown each token by itself, between the special tokens of a text, and gives the mean of its last hidden
states; of these the D principal components stay; and each row is weighed by how frequent its token is by Zipf's law,
1/rank, in the manner of smooth inverse frequency, a/(a + p) (Arora et al. 2017, "A simple but tough-to-beat baseline
for sentence embeddings"). A vocabulary has its tokens in the order of their frequency, as trainers of tokenizers leave
it. Special tokens and unused ones have no rank, and rows of zeros. No text is looked at.
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.features import Staged
from compressor.models.loaded import LoadedModel
from compressor.schema.preprocess import TextPreprocess
from compressor.tasks.text_classification.models.classifier import TextClassifier
from compressor.tasks.text_classification.tokenization import TextTokenizer, of_texts, tokenizer_of

__all__ = [
    "FAMILY",
    "StaticClassifier",
    "asked_width",
    "distilled",
    "drawn",
    "network_of",
    "with_new_classifier",
    "with_tokens",
]

FAMILY = "static"
SMOOTHING = 1e-4
"""The a of a/(a + p), as Model2Vec has it."""
LONGEST = 1_000_000
"""Tokens that it takes: it has no positions."""
AT_ONCE = 1024
"""Tokens that the teacher is shown in a batch."""
UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>")
HINT = "for example --student static:256"


class StaticClassifier(Staged):
    """ids, kinds of tokens where it is told them, mask -> logits. `tokenizer`: as of a `TextClassifier`."""

    def __init__(self, vocabulary: int, width: int, classes: int, tokenizer: str) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.classifier = nn.Linear(width, classes)
        self.tokenizer = tokenizer
        # As fastText draws them (Joulin et al. 2017, arXiv 1607.01759).
        nn.init.uniform_(self.table.weight, -1 / width, 1 / width)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, *inputs: Tensor) -> Tensor:
        vectors = self.table(inputs[0])
        counts = inputs[-1].unsqueeze(-1).to(vectors.dtype)
        mean = (vectors * counts).sum(1) / counts.sum(1).clamp_min(1.0)
        logits: Tensor = self.classifier(mean)
        return logits

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        raise KdcError("a table of tokens (static:D) has no layers to compare", "losses on logits, or pooled")


def asked_width(reference: str) -> int:
    """The D of `static:D`; raises KdcError where it is none."""
    rest = reference.partition(":")[2]
    if not re.fullmatch(r"[1-9]\d{0,4}", rest):
        raise KdcError(f"student {reference!r} is not static:D, D numbers a token", HINT)
    return int(rest)


def drawn(reference: str, classes: int, teacher: LoadedModel) -> StaticClassifier:
    """A table for the teacher's tokens, its values drawn."""
    preprocess = of_texts(teacher.preprocess)
    return StaticClassifier(
        preprocess.vocabulary, asked_width(reference), classes, tokenizer_of(preprocess).text
    ).eval()


@dataclass(frozen=True)
class Distilled:
    """`explained`: how much of the variance of the teacher's vectors the components hold; `tokens` have such a one."""

    network: StaticClassifier
    explained: float
    tokens: int


def distilled(reference: str, classes: int, teacher: LoadedModel, network: TextClassifier) -> Distilled:
    """A table that `network`, of `teacher`, gives; the classifier is drawn. Raises KdcError for more numbers a token
    than it has."""
    width, made = asked_width(reference), drawn(reference, classes, teacher)
    preprocess = of_texts(teacher.preprocess)
    tokenizer = tokenizer_of(preprocess)
    ids = torch.tensor([number for number in ranked(tokenizer) if number < preprocess.vocabulary])
    vectors = _vectors(network, tokenizer, ids, preprocess)
    if width > min(vectors.shape):
        raise KdcError(
            f"student {reference!r}: {teacher.weights.source} has {vectors.shape[1]} numbers for each of "
            f"{len(vectors):,} tokens, and no more can be told from them",
            f"--student static:{min(vectors.shape)}, or fewer",
        )
    components, explained = _components(vectors, width)
    table = torch.zeros_like(made.table.weight)
    table[ids] = (components * _weights(len(ids))[:, None]).to(table.dtype)
    with torch.no_grad():
        made.table.weight.copy_(table)
    return Distilled(made, explained, len(ids))


def ranked(tokenizer: TextTokenizer) -> list[int]:
    """The ids of the tokens that texts are made of, in the order of their frequency."""
    special = tokenizer.special
    return [
        number for token, number in sorted(tokenizer.vocabulary.items(), key=lambda row: row[1])
        if number not in special and not UNUSED.fullmatch(token)
    ]  # fmt: skip


def _vectors(network: TextClassifier, tokenizer: TextTokenizer, ids: Tensor, preprocess: TextPreprocess) -> Tensor:
    """The mean of the last hidden states of each token between special ones, [tokens, width], float64."""
    before, after = (torch.tensor(part, dtype=torch.int64) for part in tokenizer.around)
    device = next(network.parameters()).device
    rows = []
    with torch.no_grad():
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            shown = torch.cat([before.expand(len(part), -1), part[:, None], after.expand(len(part), -1)], 1).to(device)
            types = [torch.zeros_like(shown)] if preprocess.token_types else []
            _, states = network.stages(shown, *types, torch.ones_like(shown))
            rows.append(states[-1].double().mean(1).cpu())
    return torch.cat(rows)


def _components(vectors: Tensor, width: int) -> tuple[Tensor, float]:
    """The first `width` principal components of each row, and the share of the variance that they hold. Of each axis,
    whose sign is arbitrary, the largest number is positive."""
    centred = vectors - vectors.mean(0)
    variances, axes = torch.linalg.eigh(centred.T @ centred)
    axes = axes.flip(1)[:, :width]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    kept, whole = variances.flip(0)[:width].sum(), variances.sum().clamp_min(1e-30)
    return centred @ (axes * largest.sign()), float(kept / whole)


def _weights(count: int) -> Tensor:
    """a/(a + p) of each rank, p by Zipf's law."""
    frequencies = 1.0 / torch.arange(2, count + 2, dtype=torch.float64)
    return SMOOTHING / (SMOOTHING + frequencies / frequencies.sum())


def network_of(architecture: str, vocabulary: int, classes: int, tokenizer: str) -> StaticClassifier:
    """The network of a run, whose `architecture` is `static:D`."""
    return StaticClassifier(vocabulary, asked_width(architecture), classes, tokenizer)


def with_new_classifier(network: StaticClassifier, classes: int) -> StaticClassifier:
    """The same table, but a new classifier of `classes` outputs."""
    vocabulary, width = network.table.weight.shape
    changed = StaticClassifier(vocabulary, width, classes, network.tokenizer)
    changed.table.load_state_dict(network.table.state_dict())
    return changed


def with_tokens(network: StaticClassifier, ids: NDArray[np.int64], tokenizer: str) -> StaticClassifier:
    """The same for the tokens `ids` alone, [tokens], which `tokenizer` has in this order."""
    classes, width = network.classifier.weight.shape
    changed = StaticClassifier(len(ids), width, classes, tokenizer)
    changed.classifier.load_state_dict(network.classifier.state_dict())
    with torch.no_grad():
        changed.table.weight.copy_(network.table.weight[torch.from_numpy(ids)])
    return changed.eval()
