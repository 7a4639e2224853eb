"""Views of texts: tokens left out, words filled in by a teacher's head; the same for teacher and student."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.models.features import Staged
from compressor.progress import Silent
from compressor.schema.base import parse
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.views import Views
from compressor.tasks.plain_feed import refuse_foreign_views
from compressor.tasks.text_classification.feed import TextFeed
from compressor.tasks.text_classification.opening import open_data
from compressor.tasks.text_classification.tokenization import Encoded, TextTokenizer, kept
from compressor.tasks.text_classification.views import CANDIDATES, FillingIn, altered
from tests.tasks.text_classification.kit import COMMON, TOPICS, texts, tokenizer_json, write_csv

TOKENIZER = kept(TextTokenizer(tokenizer_json(), "here"))
READ = TextPreprocess(
    tokenizer=TOKENIZER.sha256, vocabulary=TOKENIZER.size, max_length=24, token_types=0, pad_id=0, pair=False
)
MASK, CPU = 4, torch.device("cpu")
IDS = {word: int(TOKENIZER.encode([(word,)])[0].ids[1]) for word in (*COMMON, *(w for t in TOPICS.values() for w in t))}


class Filling(Staged):
    """At every place it finds the tokens after the hidden one's left neighbour most probable, one after the other."""

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        ids, _ = inputs
        assert ((ids == MASK).sum(1) == 1).all(), "one word is hidden at a time"
        before = torch.roll(ids, 1, 1)
        return torch.zeros(len(ids), 3), [before[..., None].float()]

    def vocabulary(self, states: Tensor) -> Tensor:
        numbers = torch.arange(TOKENIZER.size + 3)  # rows of the embedding beyond the tokenizer's tokens
        return -((numbers - states - 1) % len(numbers)).float()


TEACHER: Any = SimpleNamespace(network=Filling(), preprocess=READ)
ENCODED = TOKENIZER.encode([(text,) for text, _ in texts(40)], 24)
ALL = np.arange(40)


def views(**keys: Any) -> Views:
    return parse(Views, keys, "views")


def test_the_first_view_is_the_text_as_it_stands() -> None:
    shown = altered(ENCODED, ALL, views(token_dropping=1.0), 0, 0, None)
    assert all((a.ids == b.ids).all() for a, b in zip(shown, ENCODED, strict=True))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_tokens_are_left_out_but_for_special_ones_and_never_all(share: float) -> None:
    shown = altered(ENCODED, ALL, views(token_dropping=share), 0, 1, None)
    before, after = sum(len(row.ids) - 2 for row in ENCODED), sum(len(row.ids) - 2 for row in shown)
    for row, whole in zip(shown, ENCODED, strict=True):
        assert (row.ids[0], row.ids[-1]) == (2, 3)
        assert len(row.ids) >= 3
        rest = iter(whole.ids.tolist())
        assert all(token in rest for token in row.ids.tolist()), "what stays stays in its order"
    if share == 1.0:
        assert {len(row.ids) for row in shown} == {3}
    else:
        assert after / before == pytest.approx(0.7, abs=4 * (0.21 / before) ** 0.5)


def test_of_a_pair_each_text_keeps_a_token() -> None:
    pair = TOKENIZER.encode([("goal match team", "soup bread"), ("goal", "")])
    first, second = altered(pair, np.arange(2), views(token_dropping=1.0), 0, 3, None)
    assert [int((first.text == text).sum()) for text in (0, 1, -1)] == [1, 1, 3]
    assert second.ids.tolist() == pair[1].ids.tolist()


def test_words_are_filled_in_by_the_most_probable_of_their_kind() -> None:
    encoded = TOKENIZER.encode([("the goal was xyz , good !",)])
    filling = FillingIn(TEACHER, encoded, CPU)
    words = sorted(number for number, kind in enumerate(TOKENIZER.kinds.tolist()) if kind == 1)
    at = filling.candidates(0)
    names = ["the", "goal", "was", "good"]
    places = [int(np.flatnonzero(encoded[0].ids == IDS[name])[0]) for name in names]
    assert [*at] == places, "xyz is of several tokens, and signs are no words"
    for place, name in zip(places, names, strict=True):
        before = int(encoded[0].ids[place - 1])
        ranked = sorted(words, key=lambda number: (number - before - 1) % (TOKENIZER.size + 3))
        assert at[place].tolist() == [number for number in ranked if number != IDS[name]][:CANDIDATES]


def test_a_view_has_other_words_at_the_share_that_is_asked_for() -> None:
    filling = FillingIn(TEACHER, ENCODED, CPU)
    shown = altered(ENCODED, ALL, views(word_replacement=0.4), 0, 1, filling)
    changed, words = 0, 0
    for number, (row, whole) in enumerate(zip(shown, ENCODED, strict=True)):
        other = np.flatnonzero(row.ids != whole.ids)
        assert all(row.ids[place] in filling.candidates(number)[place] for place in other.tolist())
        changed, words = changed + len(other), words + len(filling.candidates(number))
    assert changed / words == pytest.approx(0.4, abs=4 * (0.24 / words) ** 0.5)
    every = altered(ENCODED, ALL, views(word_replacement=1.0), 0, 1, filling)
    assert all((row.ids[1:-1] != whole.ids[1:-1]).all() for row, whole in zip(every, ENCODED, strict=True))


def test_a_view_hangs_on_seed_sample_and_number_alone() -> None:
    filling, both = FillingIn(TEACHER, ENCODED, CPU), views(word_replacement=0.3, token_dropping=0.2)

    def tokens(rows: list[Encoded]) -> list[list[int]]:
        return [row.ids.tolist() for row in rows]

    first = tokens(altered(ENCODED, ALL, both, 0, 2, filling))
    fresh = FillingIn(TEACHER, ENCODED, CPU)
    assert tokens(altered(ENCODED[9:11], ALL[9:11], both, 0, 2, fresh)) == first[9:11]
    assert tokens(altered(ENCODED, ALL, both, 0, 3, filling)) != first
    assert tokens(altered(ENCODED, ALL, both, 1, 2, filling)) != first


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = write_csv(tmp_path_factory.mktemp("views") / "data.csv", texts(60))
    return open_data(f"csv:{path}", progress=Silent())


def feed_of(data: Dataset, teacher: Any = TEACHER, read: TextPreprocess = READ, **changed: Any) -> TextFeed:
    values = {"losses": [{"name": "kd"}], "batch_size": 8, "views": {"distinct": 3, **changed}}
    return TextFeed(data, {"student": READ, "teacher": read}, parse(Recipe, values, "recipe"), CPU, teacher)


def test_teacher_and_student_see_the_same_view_which_comes_again(data: Dataset) -> None:
    feed = feed_of(data, read=READ.model_copy(update={"max_length": 64}), token_dropping=0.2, word_replacement=0.4)
    seen = []
    for epoch in range(4):
        batches = {tuple(batch["index"].tolist()): batch for batch in feed.batches(epoch, 0)}
        for index, batch in batches.items():
            ids = batch["student/input_ids"]
            assert torch.equal(ids, batch["teacher/input_ids"])
            asked = feed.input_of("teacher", np.array(index), epoch % 3)
            assert torch.equal(asked["teacher/input_ids"], ids), "what is kept is of this view"
        seen.append({index: batch["student/input_ids"].tolist() for index, batch in batches.items()})
    assert seen[0] == seen[3]
    assert seen[0] != seen[1] != seen[2]


def test_kept_answers_are_of_these_views(data: Dataset) -> None:
    plain, dropping = feed_of(data), feed_of(data, token_dropping=0.2)
    filled = feed_of(data, token_dropping=0.2, word_replacement=0.1)
    identities = [feed.identity("teacher") for feed in (plain, dropping, filled)]
    assert "views" not in identities[0]
    assert len({str(identity) for identity in identities}) == 3


@pytest.mark.parametrize(
    ("keys", "teacher", "said"),
    [
        ({"token_dropping": 0.1, "distinct": 1}, TEACHER, "views.distinct: 1 shows no other"),
        ({"word_replacement": 0.1}, None, "asks the masked-LM head of one teacher"),
        ({"hflip": False}, TEACHER, "views.hflip changes images"),
    ],
)
def test_views_that_cannot_be_are_refused(data: Dataset, keys: dict[str, Any], teacher: Any, said: str) -> None:
    with pytest.raises(KdcError, match=said):
        feed_of(data, teacher, **keys)


@pytest.mark.parametrize("name", ["token_dropping", "word_replacement"])
def test_other_tasks_have_no_such_views(name: str) -> None:
    with pytest.raises(KdcError, match=f"recipe views.{name} changes texts"):
        refuse_foreign_views(views(**{name: 0.1}))
    refuse_foreign_views(Views())


def test_which_tokens_are_words() -> None:
    kinds = TOKENIZER.kinds
    assert [kinds[number] for number in (0, 2, 4, IDS["goal"])] == [0, 0, 0, 1]
    continued = TOKENIZER.encode([("goalx",)])[0]
    assert [int(kinds[number]) for number in continued.ids[1:-1]] == [1, *[2] * (len(continued.ids) - 3)]
    assert not continued.alone.any()


def test_words_of_a_tokenizer_that_marks_where_they_begin() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<mask>"], show_progress=False)
    made.train_from_iterator(["goal goals goalkeeper , !"] * 9 + ["soup soups"] * 9, trainer)
    tokenizer = TextTokenizer(made.to_str(), "here")
    kinds = {token: int(tokenizer.kinds[number]) for token, number in made.get_vocab().items()}
    assert [kinds[token] for token in ("<mask>", "\u0120goal", "s", "!", "\u0120")] == [0, 1, 2, 0, 0]
    assert tokenizer.mask == 1
