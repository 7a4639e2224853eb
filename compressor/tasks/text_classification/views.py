"""Views of texts, for small sets: tokens left out, and words that the teacher's masked-LM head puts in the place of
others.

Jiao et al. 2020 (TinyBERT, arXiv 1909.10351), algorithm 1: each word of one token is hidden in turn, and the 15 that a
masked language model finds most probable there may take its place. Leaving words out at random is of Wei & Zou 2019
(arXiv 1901.11196). View 0 is the text as it stands, as the algorithm keeps it, too. A view is a pure function of the
seed, the sample and its number, the same for teacher and student.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.errors import KdcError
from compressor.models.features import Staged, inner_of
from compressor.models.loaded import LoadedModel
from compressor.models.weights import tensors_sha256
from compressor.modes import evaluating
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.views import OF_SOUNDS, OF_TEXTS, Views
from compressor.tasks.text_classification.masking import require_mask
from compressor.tasks.text_classification.stacking import stacked
from compressor.tasks.text_classification.tokenization import Encoded, of_texts, tokenizer_of

__all__ = ["CANDIDATES", "FillingIn", "altered", "alters", "refuse_views"]

CANDIDATES = 15
ROWS = 64
"""Texts with a hidden word that are asked about at a time."""

Rows = NDArray[np.int64]


def alters(views: Views) -> bool:
    """Whether a text is shown otherwise than it stands."""
    return views.token_dropping > 0 or views.word_replacement > 0


def refuse_views(views: Views, teacher: LoadedModel | None) -> None:
    """Raise KdcError where a recipe asks for views of texts that there are none of."""
    asked = [
        name
        for name, value in views.model_dump(exclude={"distinct", *OF_TEXTS}).items()
        if value != getattr(Views(), name)
    ]
    if asked:
        raise KdcError(
            f"recipe views.{asked[0]} changes {'sounds' if asked[0] in OF_SOUNDS else 'images'}, and this is a text",
            "leave it out; token_dropping and word_replacement change texts",
        )
    if alters(views) and views.distinct == 1:
        name = next(name for name in OF_TEXTS if getattr(views, name))
        raise KdcError(
            f"recipe views.{name}: the first view of a text is the text as it stands, and views.distinct: 1 shows no "
            "other",
            "--set views.distinct=10, or null for new ones in every epoch",
        )
    if views.word_replacement and (teacher is None or not isinstance(inner_of(teacher.network), Staged)):
        raise KdcError(
            "recipe views.word_replacement asks the masked-LM head of one teacher, and no such network teaches here",
            "leave it out; token_dropping needs none",
        )


def altered(
    encoded: Sequence[Encoded], samples: Rows, views: Views, seed: int, view: int, filling: "FillingIn | None"
) -> list[Encoded]:
    """The view `view` of these samples."""
    if not view or not alters(views):
        return list(encoded)
    longest = max(len(sample.ids) for sample in encoded)
    drawn = keyed_uniform(seed, samples, view, 3 * longest).reshape(len(encoded), longest, 3)
    shown = []
    for sample, number, numbers in zip(encoded, samples.tolist(), drawn, strict=True):
        replacing, which, leaving = numbers[: len(sample.ids)].T
        if filling is not None:
            sample = filling.replaced(sample, number, replacing < views.word_replacement, which)
        shown.append(_without(sample, leaving, views.token_dropping))
    return shown


def _without(sample: Encoded, drawn: NDArray[np.float64], share: float) -> Encoded:
    """Without that share of its tokens; of each text one stays at least, and special ones do."""
    stays = (drawn >= share) | (sample.text < 0)
    for text in (0, 1):
        of_text = sample.text == text
        if of_text.any() and not stays[of_text].any():
            stays[int(np.argmax(np.where(of_text, drawn, -1.0)))] = True
    return sample.part(stays)


class FillingIn:
    """What the teacher's masked-LM head puts in the place of words. It is asked once for each text: about each of its
    words in turn, all of them at once, so that the answer hangs on that text alone. `encoded`: all training texts, as
    the teacher reads them."""

    def __init__(self, teacher: LoadedModel, encoded: Sequence[Encoded], device: torch.device) -> None:
        network = inner_of(teacher.network)
        assert isinstance(network, Staged)
        self._network, self._encoded, self._device = network, encoded, device
        self._preprocess: TextPreprocess = of_texts(teacher.preprocess)
        self._mask, self._kinds = require_mask(self._preprocess), tokenizer_of(self._preprocess).kinds
        self._known: dict[int, dict[int, Rows]] = {}

    @cached_property
    def sha256(self) -> str:
        """Of the network with its head: what it puts where hangs on both."""
        return tensors_sha256(self._network.state_dict())

    def replaced(
        self, sample: Encoded, number: int, chosen: NDArray[np.bool_], which: NDArray[np.float64]
    ) -> Encoded:  # fmt: skip
        """`sample`, which is text `number`, with another word in the place of each that is `chosen`."""
        places = np.flatnonzero(chosen & sample.alone & (self._kinds[sample.ids] > 0))
        if not len(places):
            return sample
        others, ids = self.candidates(number), sample.ids.copy()
        for at in places.tolist():
            fitting = others.get(at, ids[:0])
            if len(fitting):
                ids[at] = fitting[int(which[at] * len(fitting))]
        return sample._replace(ids=ids)

    def candidates(self, number: int) -> dict[int, Rows]:
        """Place -> the ids that may stand there, the most probable first, of each word of one token of a text."""
        if number not in self._known:
            sample = self._encoded[number]
            places = np.flatnonzero(sample.alone & (self._kinds[sample.ids] > 0))
            self._known[number] = dict(zip(places.tolist(), self._asked(sample, places), strict=True))
        return self._known[number]

    def _asked(self, sample: Encoded, places: Rows) -> list[Rows]:
        kinds = torch.from_numpy(self._kinds).to(self._device)
        rows: list[Rows] = []
        with evaluating(self._network):
            for start in range(0, len(places), ROWS):
                some = places[start : start + ROWS]
                logits = self._logits(sample, some)[:, : len(kinds)]
                known = torch.from_numpy(sample.ids[some]).to(self._device)
                fit = (kinds[None] == kinds[known][:, None]) & (
                    torch.arange(len(kinds), device=self._device) != known[:, None]
                )
                best = logits.masked_fill(~fit, -torch.inf).topk(min(CANDIDATES, len(kinds)))
                ids, finite = best.indices.int().cpu().numpy(), best.values.isfinite().cpu().numpy()
                rows += [row[keep] for row, keep in zip(ids, finite, strict=True)]
        return rows

    def _logits(self, sample: Encoded, places: Rows) -> Tensor:
        """Over the vocabulary, at each of the places, with the token there hidden: [places, V]."""
        ids = np.repeat(sample.ids[None], len(places), 0)
        ids[np.arange(len(places)), places] = self._mask
        made = stacked([sample._replace(ids=row) for row in ids], self._preprocess)
        _, states = self._network.stages(*(tensor.to(self._device) for tensor in made.values()))
        rows = torch.arange(len(places), device=self._device), torch.from_numpy(places).to(self._device)
        return self._network.vocabulary(states[-1][rows][:, None])[:, 0].float()
