"""What a training on texts is fed with: batches of texts that are about as long.

Which texts make a batch is drawn once, by the seed: they are sorted by length, those of equal length at random, and cut
into batches. Every epoch shows these batches in an order of its own. So little is filled up, and a batch, and with it
what a teacher answers to it, is the same in every epoch, whether the answers are kept or not. Every text is shown in
every epoch: batches may differ by a text or so in their size.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.data.randomness import keyed_order
from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.losses import hides_tokens
from compressor.models.loaded import LoadedModel
from compressor.modes import evaluating
from compressor.processes.team import team
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Accuracy
from compressor.schema.views import OF_TEXTS
from compressor.stats import accuracy_of, top1
from compressor.stats.language import Costs
from compressor.tasks.base import Batch, BatchModel, SplitName
from compressor.tasks.plain_feed import batch_size_of, by_length
from compressor.tasks.text_classification.lengths import is_pair, require_texts, texts_of
from compressor.tasks.text_classification.masking import NOT_HIDDEN, hidden, require_mask
from compressor.tasks.text_classification.models.classifier import Member
from compressor.tasks.text_classification.stacking import filled, stacked
from compressor.tasks.text_classification.tokenization import Encoded, tokenizer_of
from compressor.tasks.text_classification.views import FillingIn, altered, alters, refuse_views

__all__ = ["TextFeed", "encoded_split", "evaluation_batches", "stacked"]

Rows = NDArray[np.int64]
EVAL_TOKENS = 16_384
"""Tokens of a batch that is evaluated, filled up, about."""


class TextFeed:
    """See `tasks.base.Feed`. `inputs`: key in the batch -> what that model takes."""

    def __init__(
        self, data: Dataset, inputs: Mapping[str, TextPreprocess], recipe: Recipe, device: torch.device,
        teacher: LoadedModel | None = None,
    ) -> None:  # fmt: skip
        refuse_views(recipe.views, teacher)
        for key, preprocess in inputs.items():
            require_texts(preprocess, data.train, f"the {key}")
        self._data, self._inputs, self._recipe, self._device = data, dict(inputs), recipe, device
        self._team = team()
        self._global, self.batch_size = batch_size_of(recipe, len(data.train), self._team.num_processes)
        self._encoded: dict[tuple[str, TextPreprocess], list[Encoded]] = {}
        self._has_label = data.train.labels >= 0
        self.right: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self.costs: dict[tuple[str, str], Costs] = {}
        lengths = [len(row.ids) for row in self._tokens("train", next(iter(inputs)))]
        parts = recipe.accumulate * self._team.num_processes
        self._batches = by_length(np.array(lengths), self._global, recipe.seed, parts)
        self._hides = hides_tokens(term.name for term in recipe.losses if term.ever)
        if self._hides:
            _require_one_reading(inputs, "recipe losses, masked_lm")
            require_mask(next(iter(inputs.values())))
        self._filling: FillingIn | None = None
        if alters(recipe.views):
            _require_one_reading(inputs, "recipe views")
        if recipe.views.word_replacement and teacher is not None:
            self._filling = FillingIn(teacher, self._tokens("train", "teacher"), device)

    @property
    def steps_per_epoch(self) -> int:
        return len(self._batches)

    def prepare(self) -> None:
        pass

    def identity(self, key: str) -> dict[str, object]:
        preprocess = self._inputs[key].model_dump(mode="json")
        unlabelled, views = self._data.info.unlabelled, self._recipe.views
        more: dict[str, object] = {"unlabelled": unlabelled.fingerprint} if unlabelled else {}
        if alters(views):
            more |= {"seed": self._recipe.seed, "views": {name: getattr(views, name) for name in OF_TEXTS}}
        if self._filling is not None:
            more["filling_in"] = self._filling.sha256
        return {
            "data": self._data.info.fingerprint,
            "order": hashlib.sha256(self._data.train.contents.tobytes()).hexdigest(),
            # An answer depends in its last digits on what it was computed beside.
            "batches": hashlib.sha256(repr([rows.tolist() for rows in self._batches]).encode()).hexdigest(),
            "preprocess": preprocess,
            **more,
        }

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        for step in range(first_step, self.steps_per_epoch):
            samples = self.samples_of(epoch, step)
            for part in self._parts_of_process(samples):
                batch = self._inputs_of(list(self._inputs if keys is None else keys), part, epoch)
                if not self._has_label.all():
                    batch |= self._labelled(part, samples)
                labels = torch.from_numpy(self._data.train.labels[part]).to(self._device)
                yield {**batch, "labels": labels, "index": torch.from_numpy(part)}

    def input_of(self, key: str, samples: Rows, view: int) -> Batch:
        return self._named(key, self._view(key, samples, view))

    def _inputs_of(self, keys: Sequence[str], samples: Rows, epoch: int) -> dict[str, Tensor]:
        """What the models `keys` are shown in an epoch, and which tokens were hidden, where some are: of the first."""
        batch: dict[str, Tensor] = {}
        distinct = self._recipe.views.distinct
        for key in sorted(keys, key=lambda key: key != "student"):
            shown = self._view(key, samples, epoch if distinct is None else epoch % distinct)
            if self._hides:
                shown, told = hidden(shown, samples, self._inputs[key], self._recipe.seed, epoch)
                if "token_labels" not in batch:
                    batch["token_labels"] = filled(told, NOT_HIDDEN).to(self._device)
            batch |= self._named(key, shown)
        return batch

    def _view(self, key: str, samples: Rows, view: int) -> list[Encoded]:
        read = self._tokens("train", key)
        shown = [read[row] for row in samples]
        return altered(shown, samples, self._recipe.views, self._recipe.seed, view, self._filling)

    def _named(self, key: str, shown: Sequence[Encoded]) -> dict[str, Tensor]:
        made = stacked(shown, self._inputs[key])
        return {f"{key}/{name}": tensor.to(self._device) for name, tensor in made.items()}

    def samples_of(self, epoch: int, step: int) -> Rows:
        order = keyed_order(self._recipe.seed, len(self._batches), epoch)
        rows: Rows = self._batches[int(order[step])]
        return rows

    def names(self, samples: Rows) -> list[str]:
        return [self._data.train.ids[row] for row in samples]

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        _refuse_single(model.network, self._data)
        encoded = self._tokens(split, model.key)
        batches = evaluation_batches([len(row.ids) for row in encoded])
        answers: list[tuple[list[int], NDArray[np.float32]]] = []
        with evaluating(model):
            for rows in batches[self._team.process_index :: self._team.num_processes]:
                logits = model.network(*self._made(split, rows, model.key).values())
                answers.append((rows, logits.float().cpu().numpy()))
        if self._team.num_processes > 1:
            answers = gather_object(answers)
        whole = np.empty((len(encoded), answers[0][1].shape[1]), np.float32)
        for rows, part in answers:
            whole[rows] = part
        return whole

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], Rows]:
        held: Split = getattr(self._data, split)
        logits = self.logits(model, split)
        self.right[model.key, split] = top1(logits) == held.labels
        return logits, held.labels

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        return accuracy_of(*self.answers_on(model, split), split)

    def _tokens(self, split: SplitName, key: str) -> list[Encoded]:
        """Of all samples of a split, as the model `key` reads them."""
        preprocess = self._inputs[key]
        if (split, preprocess) not in self._encoded:
            self._encoded[split, preprocess] = encoded_split(getattr(self._data, split), preprocess)
        return self._encoded[split, preprocess]

    def _made(self, split: SplitName, rows: Sequence[int], key: str) -> dict[str, Tensor]:
        encoded = self._tokens(split, key)
        made = stacked([encoded[row] for row in rows], self._inputs[key])
        return {name: tensor.to(self._device) for name, tensor in made.items()}

    def _labelled(self, part: Rows, step: Rows) -> dict[str, Tensor]:
        """Which rows of a part have a label, and what its mean over them counts in the mean over the whole step."""
        known, known_in_step = self._has_label[part], self._has_label[step]
        share = known.mean() / known_in_step.mean() if known_in_step.any() else 0.0
        return {"labelled": torch.from_numpy(np.flatnonzero(known)), "labelled_share": torch.tensor(float(share))}

    def _parts_of_process(self, samples: Rows) -> list[Rows]:
        """This process's share of a step, in parts."""
        parts = samples.reshape(self._recipe.accumulate, self._team.num_processes, -1)
        return [parts[number, self._team.process_index] for number in range(self._recipe.accumulate)]


def encoded_split(split: Split, preprocess: TextPreprocess) -> list[Encoded]:
    """All samples of a split, tokenized and cut as `preprocess` says."""
    return tokenizer_of(preprocess).encode(texts_of(split), preprocess.max_length)


def evaluation_batches(lengths: Sequence[int]) -> list[list[int]]:
    """All samples in batches of about `EVAL_TOKENS` tokens, the shortest first."""
    batches: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > EVAL_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches


def _refuse_single(network: nn.Module, data: Dataset) -> None:
    """Raise KdcError where one of several teachers was taught single texts, and the data has pairs."""
    if is_pair(data.train) and any(isinstance(member, Member) and member.single for member in network.modules()):
        raise KdcError("one of the teachers reads single texts, and the data has pairs of texts", "leave it out")


def _require_one_reading(inputs: Mapping[str, TextPreprocess], why: str) -> None:
    """Raise KdcError where two models read texts as other tokens, so that they cannot see the same view of one."""
    first, *others = inputs.values()
    for other in others:
        cut = first.pair and first.max_length != other.max_length
        if first.tokenizer != other.tokenizer or cut:
            raise KdcError(
                f"{why}: the networks read texts as other tokens, so that they would not see the same",
                "one tokenizer, and of pairs one --max-length",
            )
