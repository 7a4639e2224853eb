"""A tokenizer cut to what some texts use makes the same tokens of them."""

import json
from typing import Any

import numpy as np
import pytest

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.student import DataInfo, Weights
from compressor.tasks.text_classification.feed import stacked
from compressor.tasks.text_classification.tokenization import TextTokenizer, kept, of_texts, tokenizer_of
from compressor.tasks.text_classification.vocabulary import cut_tokenizer, trimmed
from tests.kit import Hearing
from tests.tasks.text_classification.kit import ENCODER, texts, tokenizer_json

USED = [(text,) for text, _ in texts(40)]
OTHERS = [(text,) for text, _ in texts(60, seed=9)] + [("zebra quartz 77!",), ("",), ("goalsoup rocketorbit",)]


def trained(kind: str) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    corpus = [text for text, _ in texts(200, seed=3)] + ["zebra quartz number", "abcdefghijklmnopqrstuvwxyz 0123456789"]
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "BPE":
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=420, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
        )
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=specials, unk_token="<unk>", show_progress=False
        )
    made.train_from_iterator(corpus, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    text: str = made.to_str()
    return text


def wordpiece() -> str:
    """With words that no text has, before those that some do."""
    values = json.loads(tokenizer_json())
    vocabulary = values["model"]["vocab"]
    words = [f"unused{number}" for number in range(30)]
    tokens = [*list(vocabulary)[:5], *words, *list(vocabulary)[5:]]
    values["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    return json.dumps(values)


@pytest.fixture(params=["WordPiece", "BPE", "Unigram"])
def cut(request: pytest.FixtureRequest) -> tuple[TextTokenizer, TextTokenizer, Any]:
    """A tokenizer, the same cut to what USED uses, and the old ids of what stays."""
    before = TextTokenizer(wordpiece() if request.param == "WordPiece" else trained(request.param), "t")
    used = {int(number) for row in before.encode(USED) for number in row.ids} | {0, 1}
    text, ids = cut_tokenizer(before.text, used)
    return before, TextTokenizer(text, "cut"), ids


def test_texts_that_were_counted_become_the_same_tokens(cut: tuple[TextTokenizer, TextTokenizer, Any]) -> None:
    before, after, ids = cut
    assert len(ids) == after.size < before.size
    for old, new in zip(before.encode(USED), after.encode(USED), strict=True):
        assert ids[new.ids].tolist() == old.ids.tolist()
        assert new.types.tolist() == old.types.tolist()


def test_other_texts_are_put_together_out_of_what_stays(cut: tuple[TextTokenizer, TextTokenizer, Any]) -> None:
    before, after, ids = cut
    same = 0
    for old, new in zip(before.encode(OTHERS), after.encode(OTHERS), strict=True):
        assert before.unknown in old.ids or after.unknown not in new.ids
        same += ids[new.ids].tolist() == old.ids.tolist()
    assert same >= 30


def test_a_pair_and_a_cut_end_as_before(cut: tuple[TextTokenizer, TextTokenizer, Any]) -> None:
    before, after, ids = cut
    pair = [(USED[0][0], USED[1][0])]
    (old,), (new,) = before.encode(pair, 12), after.encode(pair, 12)
    assert ids[new.ids].tolist() == old.ids.tolist()
    assert np.array_equal(new.types, old.types)


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    values = json.loads(tokenizer_json())
    values["model"]["type"] = "Moebius"
    with pytest.raises(KdcError, match="a tokenizer of kind Moebius cannot be cut"):
        cut_tokenizer(json.dumps(values), {0})


def student_of(config: Any, text: str) -> LoadedModel:
    import torch

    from compressor.tasks.text_classification.models.classifier import TextClassifier
    from compressor.tasks.text_classification.models.hf_models import built

    torch.manual_seed(0)
    tokenizer = kept(TextTokenizer(text, "t"))
    network = TextClassifier(built(config), tokenizer.text).eval()
    count = sum(parameter.numel() for parameter in network.parameters())
    weights = Weights(source="t", architecture=config.model_type, sha256="0", licence="none", parameters=count)
    pad_id = config.pad_token_id
    preprocess = TextPreprocess(tokenizer=tokenizer.sha256, vocabulary=tokenizer.size, max_length=32, pad_id=pad_id)
    return LoadedModel(network, preprocess, None, weights, "hf")


def data_of_used() -> Dataset:
    splits = [
        Split(
            name,
            tuple(map(str, range(len(rows)))),
            np.zeros(len(rows), np.int64),
            rows.__getitem__,
            np.zeros(1, np.uint64),
        )
        for name, rows in (("train", USED), ("validation", OTHERS), ("test", OTHERS))
    ]
    info = DataInfo(source="t", fingerprint="t", class_names=("a", "b", "c"), counts={})
    return Dataset(info, splits[0], splits[1], splits[2])


def logits_of(model: LoadedModel, rows: list[tuple[str]]) -> Any:
    import torch

    preprocess = of_texts(model.preprocess)
    batch = stacked(tokenizer_of(preprocess).encode(rows, preprocess.max_length), preprocess)
    with torch.no_grad():
        return model.network(*batch.values()).numpy()


@pytest.mark.slow
def test_a_student_without_unused_tokens_answers_the_same() -> None:
    from transformers import BertConfig

    student = student_of(BertConfig(vocab_size=149, num_hidden_layers=1, num_labels=3, **ENCODER), wordpiece())
    count, hearing = student.weights.parameters, Hearing()
    made, text, told = trimmed(student, data_of_used(), hearing)
    assert text == made.network.tokenizer
    assert hearing.notes == [told]
    assert of_texts(made.preprocess).vocabulary == 119
    assert made.weights.parameters == count - 30 * 32
    assert made.weights.sha256 != student.weights.sha256
    assert "vocabulary trimmed from 149 to 119 tokens" in told
    assert "of 63 validation texts" in told
    for rows in (USED[:8], OTHERS[:8]):
        assert np.abs(logits_of(student, rows) - logits_of(made, rows)).max() < 1e-6


def padded_by(token_id: int) -> str:
    """As `wordpiece`, with the padding's token at another id."""
    values = json.loads(wordpiece())
    tokens = [token for token in values["model"]["vocab"] if token != "[PAD]"]
    tokens.insert(token_id, "[PAD]")
    values["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    for token in values["added_tokens"]:
        token["id"] = values["model"]["vocab"][token["content"]]
    for special in values["post_processor"]["special_tokens"].values():
        special["ids"] = [values["model"]["vocab"][token] for token in special["tokens"]]
    return json.dumps(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "pad_id", "after", "tokens"),
    [
        ("Bert", 148, 118, 119),
        ("ModernBert", 148, 118, 119),
        # its positions are counted from the padding's id, which stays therefore, with all tokens before it
        ("Roberta", 20, 20, 149 - 30 + 16),
    ],
)
def test_the_paddings_token_goes_where_the_others_go(kind: str, pad_id: int, after: int, tokens: int) -> None:
    import transformers

    sizes = {name: value for name, value in ENCODER.items() if "dropout" not in name or kind == "Bert"}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=149, num_hidden_layers=1, num_labels=3, pad_token_id=pad_id, **sizes
    )
    student = student_of(config, padded_by(pad_id))
    made, text, _ = trimmed(student, data_of_used(), Hearing())
    preprocess = of_texts(made.preprocess)
    assert (preprocess.pad_id, preprocess.vocabulary) == (after, tokens)
    assert json.loads(text)["model"]["vocab"]["[PAD]"] == after
    for rows in (USED[:8], OTHERS[:8]):
        assert len({len(text.split()) for (text,) in rows}) > 1, "some are filled up"
        assert np.abs(logits_of(student, rows) - logits_of(made, rows)).max() < 1e-6
