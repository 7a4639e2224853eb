"""What a training on documents is fed with: batches of blocks that are about as long, drawn anew in every epoch."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_order
from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.losses import LOSSES
from compressor.modes import evaluating
from compressor.processes.team import team
from compressor.progress import Progress, Silent
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.views import Views
from compressor.stats.language import Costs, bits_per_byte
from compressor.tasks.base import Batch, BatchModel, SplitName
from compressor.tasks.causal_lm.encoding import Block, Encoded, blocks_of, encoded_split
from compressor.tasks.causal_lm.on_policy import continued, is_on_policy, prompt_of
from compressor.tasks.causal_lm.pairs import Pairs, groups_in, paired
from compressor.tasks.causal_lm.readers import grouping, require_same_tokens
from compressor.tasks.plain_feed import batch_size_of, by_length

__all__ = ["EVAL_NUMBERS", "LanguageFeed", "evaluation_batches", "refuse_recipe", "stacked"]

Rows = NDArray[np.int64]
EVAL_NUMBERS = 1 << 25
"""Of the logits of a batch that is evaluated, about: 128 MB."""
EVAL_TOKENS = 16_384
"""And of its tokens, at most."""


class LanguageFeed:
    """See `tasks.base.Feed`. `inputs`: key in the batch -> what that model takes. A sample of a batch is a block; where
    a loss compares groups of tokens, the teacher is shown the same text in its own."""

    def __init__(
        self, data: Dataset, inputs: Mapping[str, LanguagePreprocess], recipe: Recipe, device: torch.device,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        refuse_recipe(recipe)
        self._columns = require_same_tokens(inputs, recipe)
        self._grouping = grouping(inputs, recipe)
        self._progress = progress or Silent()
        self._data, self._inputs, self._recipe, self._device = data, dict(inputs), recipe, device
        self._team = team()
        self._encoded: dict[tuple[str, LanguagePreprocess], list[Encoded]] = {}
        self._first = next(iter(inputs))
        self._global, self.batch_size = batch_size_of(recipe, len(self._blocks), self._team.num_processes)
        self.right: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self.costs: dict[tuple[str, str], Costs] = {}

    @cached_property
    def _blocks(self) -> list[Block]:
        """Of the training documents, as the student reads them."""
        if self._grouping is not None:
            return [block for block, _ in self._pairs.blocks]
        return blocks_of(self._tokens("train", self._first), self._inputs[self._first].max_length)

    @cached_property
    def _pairs(self) -> Pairs:
        """The training documents as both sides read them."""
        ours, theirs = self._inputs[self._first], self._inputs["teacher"]
        sides = self._tokens("train", self._first), self._tokens("train", "teacher")
        made = paired(self._data.train, *sides, ours, theirs)
        self._progress.note(made.told(str(self._grouping)))
        return made

    @cached_property
    def _lengths(self) -> Rows:
        return np.array([block.stop - block.start for block in self._blocks])

    @property
    def steps_per_epoch(self) -> int:
        parts: int = self._recipe.accumulate * self._team.num_processes
        return -(-(len(self._blocks) + -len(self._blocks) % parts) // self._global)

    def prepare(self) -> None:
        """A document in which nothing counts is costs_of now, and not after the training."""
        splits: tuple[SplitName, ...] = ("train", "validation", "test")
        for key in self._inputs:
            for split in splits:
                self._tokens(split, key)
        policy, steps = self._recipe.on_policy, self._recipe.epochs * self.steps_per_epoch
        if policy.share:
            count = sum(is_on_policy(policy, self._recipe.seed, step) for step in range(steps))
            self._progress.note(
                f"on-policy: in {count:,} of {steps:,} steps the student writes up to {policy.max_new_tokens} tokens "
                f"behind each prompt, or behind {policy.prompt_tokens} tokens, drawn at temperature "
                f"{policy.sampling_temperature:g}"
            )

    def identity(self, key: str) -> dict[str, object]:
        return {
            "data": self._data.info.fingerprint,
            "order": hashlib.sha256(self._data.train.contents.tobytes()).hexdigest(),
            "preprocess": self._inputs[key].model_dump(mode="json"),
            "seed": self._recipe.seed,
        }

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        for step in range(first_step, self.steps_per_epoch):
            parts = self.samples_of(epoch, step).reshape(self._recipe.accumulate, self._team.num_processes, -1)
            for part in parts[:, self._team.process_index]:
                yield {**self._batch(part, self._inputs if keys is None else keys), "index": torch.from_numpy(part)}

    def _batch(self, part: Rows, keys: Collection[str]) -> dict[str, Tensor]:
        made = self._made("train", [self._blocks[row] for row in part], self._first)
        batch = {f"{key}/{name}": made[name] for key in keys for name in ("input_ids", "attention_mask")}
        batch |= {name: made[name] for name in ("positions", "labels")}
        if self._columns is not None:
            batch["columns"] = torch.tensor(self._columns)
        return batch | (self._grouped(part) if self._grouping is not None else {})

    def _grouped(self, part: Rows) -> dict[str, Tensor]:
        """The same text as the teacher reads it, and which tokens of both belong together."""
        blocks = [self._pairs.blocks[row] for row in part]
        sides = self._tokens("train", self._first), self._tokens("train", "teacher")
        theirs = self._made("train", [block for _, block in blocks], "teacher")
        groups = {name: side.to(self._device) for name, side in groups_in(self._pairs, blocks, *sides).items()}
        named = {f"teacher/{name}": theirs[name] for name in ("input_ids", "attention_mask")}
        token_of = torch.from_numpy(self._pairs.token_of).to(self._device)
        asked = {"teacher_positions": theirs["positions"], "teacher_labels": theirs["labels"]}
        return {**named, **asked, **groups, "teacher_token_of": token_of}

    def written(self, parts: Sequence[Batch], student: BatchModel, step: int) -> list[Batch | None]:
        """See `distill.loop.writing.Writes`."""
        if not is_on_policy(self._recipe.on_policy, self._recipe.seed, step):
            return [None for _ in parts]
        return [self._written(part, student, step) for part in parts]

    def _written(self, part: Batch, student: BatchModel, step: int) -> Batch:
        policy, reads, samples = self._recipe.on_policy, self._inputs[self._first], self._tokens("train", self._first)
        blocks = [self._blocks[row] for row in part["index"].tolist()]
        prompts = [prompt_of(samples[block.document], block, policy.prompt_tokens) for block in blocks]
        texts = continued(student, prompts, policy, reads, (self._recipe.seed, part["index"].numpy(), step))
        made = stacked(texts, [Block(row, 0, len(text.ids) - 1) for row, text in enumerate(texts)], reads.pad_id)
        keys = [name.removesuffix("/input_ids") for name in part if name.endswith("/input_ids")]
        batch = {f"{key}/{name}": made[name] for key in keys for name in ("input_ids", "attention_mask")}
        batch |= {name: made[name] for name in ("positions", "labels")}
        kept = {name: part[name] for name in ("index", "columns") if name in part}
        return {name: tensor.to(self._device) for name, tensor in batch.items()} | kept

    def input_of(self, key: str, samples: Rows, view: int) -> Batch:
        batch = self._batch(samples, [key])
        named = (f"{key}/input_ids", f"{key}/attention_mask", "positions", f"{key}_positions")
        return {name: batch[name] for name in named if name in batch}

    def samples_of(self, epoch: int, step: int) -> Rows:
        if self._drawn[0] != epoch:
            self._drawn = epoch, self._drawn_for(epoch)
        return self._drawn[1][step]

    _drawn: tuple[int, list[Rows]] = -1, []

    def _drawn_for(self, epoch: int) -> list[Rows]:
        """The batches of an epoch, in the order in which they are shown."""
        seed, parts = self._recipe.seed, self._recipe.accumulate * self._team.num_processes
        batches = by_length(self._lengths, self._global, seed, parts, epoch)
        return [batches[int(number)] for number in keyed_order(seed, len(batches), epoch)]

    def names(self, samples: Rows) -> list[str]:
        return [self._data.train.ids[self._blocks[row].document] for row in samples]

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        raise KdcError("the logits of all tokens of a split fit nowhere", "leave out what asks for them")

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], Rows]:
        raise KdcError("the logits of all tokens of a split fit nowhere", "leave out what asks for them")

    def evaluate(self, model: BatchModel, split: SplitName) -> BitsPerByte:
        """Block by block: of the logits nothing is kept but what the tokens cost."""
        preprocess, samples = self._inputs[model.key], self._tokens(split, model.key)
        blocks = [block for block in blocks_of(samples, preprocess.max_length) if _scored(samples, block).any()]
        batches = evaluation_batches([block.stop - block.start for block in blocks], preprocess.vocabulary)
        costs: list[tuple[list[int], NDArray[np.float64]]] = []
        with evaluating(model):
            for rows in batches[self._team.process_index :: self._team.num_processes]:
                made = self._made(split, [blocks[row] for row in rows], model.key, score=True)
                positions = made["positions"]
                logits = model.network(made["input_ids"], made["attention_mask"])[positions]
                nats = F.cross_entropy(logits.float(), made["labels"], reduction="none").double()
                sums = torch.zeros(positions.shape, dtype=torch.float64, device=self._device)
                sums[positions] = nats
                costs.append((rows, sums.sum(1).cpu().numpy()))
        if self._team.num_processes > 1:
            costs = gather_object(costs)
        by_block = np.zeros(len(blocks))
        for rows, part in costs:
            by_block[rows] = part
        of = [block.document for block in blocks]
        nats_of = np.bincount(of, by_block, len(samples)).astype(np.float64)
        tokens = np.array([sample.scored.sum() for sample in samples], np.int64)
        costs_of = Costs(nats_of, tokens, np.array([sample.bytes for sample in samples], np.int64))
        if not np.isfinite(costs_of.nats).all():
            raise KdcError(
                f"{split}: the {model.key} gives a token no probability, or answers with what is no number",
                "a lower learning rate: --set optimizer.lr=…",
            )
        self.costs[model.key, split] = costs_of
        return bits_per_byte(costs_of, split)

    def _tokens(self, split: SplitName, key: str) -> list[Encoded]:
        """Of all documents of a split, as the model `key` reads them."""
        preprocess = self._inputs[key]
        if (split, preprocess) not in self._encoded:
            self._encoded[split, preprocess] = encoded_split(getattr(self._data, split), preprocess)
        return self._encoded[split, preprocess]

    def _made(self, split: SplitName, blocks: Sequence[Block], key: str, *, score: bool = False) -> dict[str, Tensor]:
        made = stacked(self._tokens(split, key), blocks, self._inputs[key].pad_id, score=score)
        return {name: tensor.to(self._device) for name, tensor in made.items()}


def stacked(
    samples: Sequence[Encoded], blocks: Sequence[Block], pad_id: int, *, score: bool = False
) -> dict[str, Tensor]:
    """A batch of blocks, as long as the longest: input_ids and attention_mask int64 [B, N]; positions, bool [B, N],
    where the token behind counts; labels, int64 [n], these tokens. `score`: what counts for a score."""
    shape = len(blocks), max(block.stop - block.start for block in blocks)
    ids, mask = np.full(shape, pad_id, np.int64), np.zeros(shape, np.int64)
    positions, labels = np.zeros(shape, np.bool_), np.zeros(shape, np.int64)
    for row, (number, start, stop) in enumerate(blocks):
        sample, count = samples[number], stop - start
        ids[row, :count], mask[row, :count] = sample.ids[start:stop], 1
        labels[row, :count] = sample.ids[start + 1 : stop + 1]
        positions[row, :count] = (sample.scored if score else sample.learned)[start + 1 : stop + 1]
    made = {"input_ids": ids, "attention_mask": mask, "positions": positions, "labels": labels[positions]}
    return {name: torch.from_numpy(values) for name, values in made.items()}


def _scored(samples: Sequence[Encoded], block: Block) -> NDArray[np.bool_]:
    return samples[block.document].scored[block.start + 1 : block.stop + 1]


def evaluation_batches(lengths: Sequence[int], vocabulary: int) -> list[list[int]]:
    """All blocks in batches of about as many tokens, the shortest first."""
    most = max(1, min(EVAL_TOKENS, EVAL_NUMBERS // vocabulary))
    batches: list[list[int]] = [[]]
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[row] > most:
            batches.append([])
        batches[-1].append(row)
    return batches


def refuse_recipe(recipe: Recipe) -> None:
    """Raise KdcError for what a recipe asks of a language model in vain."""
    if recipe.views != Views():
        raise KdcError("recipe views: documents are shown as they stand, in blocks drawn anew", "leave views out")
    if recipe.transfer.labelled < 1 and not recipe.transfer.drop_unlabelled:
        raise KdcError(
            "recipe transfer.labelled: a document is its own label, so that those that lose it are left out",
            "--set transfer.drop_unlabelled=true",
        )
    if recipe.teacher_answers.top_k is not None:
        raise KdcError("recipe teacher_answers.top_k: kdc keeps no answers of language models yet", "leave it out")
    if recipe.stages:
        raise KdcError("recipe stages: kdc trains language models in one yet", "leave them out")
    for term in recipe.losses:
        row = LOSSES.get(term.name)
        if row is not None and row.taps is not None and not row.tokens and row.taps != "tokens":
            raise KdcError(
                f"recipe losses: {term.name} looks at what a language model does not have, or kdc does not show yet "
                f"({row.taps})",
                "losses on logits, hidden_states or token_cosine",
            )
