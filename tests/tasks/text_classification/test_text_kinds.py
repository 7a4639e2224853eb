"""Kinds of networks that transformers has: what kdc cannot work with is one line, before anything is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model
from compressor.tasks.table import task_named
from compressor.tasks.text_classification.models.classifier import TextClassifier, padding_matters
from compressor.tasks.text_classification.tokenization import TextTokenizer
from tests.tasks.text_classification.kit import encoder, hf_model, tokenizer_json

NAMES = ("food", "space", "sport")
TASK = task_named("text-classification")
VOCABULARY = TextTokenizer(tokenizer_json(), "here").size
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "num_hidden_layers": 2, "num_labels": 3, "id2label": dict(enumerate(NAMES)),
}  # fmt: skip


def made(name: str, *, masked_lm: bool = False, **changes: Any) -> nn.Module:
    """A network with drawn weights. `name`: of its configuration."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES | changes)
    auto = transformers.AutoModelForMaskedLM if masked_lm else transformers.AutoModelForSequenceClassification
    model: nn.Module = auto.from_config(config)
    return model


def loaded(folder: Path, model: nn.Module) -> LoadedModel:
    return load_model(f"hf:{hf_model(folder, model)}", task="text-classification")


def funnel() -> nn.Module:
    """It pools tokens in twos, so that what fills up an odd number of them counts."""
    import transformers

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"block_sizes": [2, 2], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48}
    config = transformers.FunnelConfig(vocab_size=VOCABULARY, num_labels=3, initializer_range=0.3, **sizes)
    model: nn.Module = transformers.FunnelForSequenceClassification(config)
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (funnel, r"\(funnel\) answers otherwise where a text is filled up"),
        (
            lambda: made("Bart", d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8),
            r"\(bart\) is an encoder and a decoder, and kdc takes encoders alone",
        ),
        (lambda: made("IBert", pad_token_id=0), r"\(ibert\): kdc does not know its kind of embedding"),
        (
            lambda: made("Nystromformer", segment_means_seq_len=16, num_landmarks=8),
            r"\(nystromformer\) does not take texts of any length: shape",
        ),
    ],
)
def test_what_kdc_cannot_work_with_is_refused(tmp_path: Path, make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(KdcError, match=said) as refused:
        loaded(tmp_path, make())
    assert "take an encoder" in refused.value.hint


def test_padding_is_seen_through_drawn_weights(tmp_path: Path) -> None:
    """Those of a ConvBERT are so small that its answers hardly change; those that it learns are not."""
    import transformers

    network = TextClassifier(made("ConvBert", embedding_size=32), "").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs: tuple[Tensor, ...] = (torch.arange(5, 13)[None], torch.ones(1, 8, dtype=torch.int64))
    assert padding_matters(network, inputs, 0, drawn=True)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not padding_matters(TextClassifier(made("Bert"), "").eval(), inputs, 0, drawn=True)

    teacher = loaded(tmp_path / "teacher", made("Bert"))
    sizes = {name: value for name, value in SIZES.items() if name not in ("num_labels", "id2label")}
    transformers.ConvBertConfig(**sizes, embedding_size=32).to_json_file(tmp_path / "conv.json")
    with pytest.raises(KdcError, match=r"\(convbert\) answers otherwise where a text is filled up"):
        TASK.create_student(f"hf:{tmp_path / 'conv.json'}", "random", NAMES, None, None, teacher)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("Longformer", {"attention_window": 16, "pad_token_id": 0}), ("Luke", {"entity_vocab_size": 5})],
)
def test_a_head_that_reads_more_than_hidden_states_is_left_alone(
    tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    """The encoder can be taught all the same; who asks for the head is told."""
    model = loaded(tmp_path, made(name, masked_lm=True, **changes))
    assert isinstance(model.network, TextClassifier)
    assert model.headless
    assert model.network.head is None
    for drawn in (True, False):
        with pytest.raises(KdcError, match=f"cannot run the masked-LM head of {name.lower()} apart"):
            model.network.give_vocabulary(None, drawn=drawn)


def test_weights_that_hang_on_the_number_of_layers_cannot_be_cut(tmp_path: Path) -> None:
    teacher = loaded(tmp_path, made("Esm", pad_token_id=0, mask_token_id=4))
    with pytest.raises(KdcError, match="EsmForSequenceClassification has weights that hang on all of its layers"):
        TASK.create_student("layers:1", "pretrained", NAMES, None, None, teacher)


@pytest.mark.parametrize(("lower", "alike"), [(True, True), (False, False)])
def test_a_tokenizer_that_transformers_reads_otherwise_is_said(tmp_path: Path, lower: bool, alike: bool) -> None:
    """tokenizer.json puts all in lower case; transformers does as tokenizer_config.json says."""
    from transformers import AutoTokenizer

    folder = encoder(tmp_path, 1)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": lower})
    )
    theirs = AutoTokenizer.from_pretrained(folder)("The GOAL")["input_ids"]
    ours = TextTokenizer(tokenizer_json(), "here").encode([("The GOAL",)])[0].ids.tolist()
    assert (theirs == ours) is alike
    notes = load_model(f"hf:{folder}", task="text-classification").notes
    told = [note for note in notes if "as other tokens than transformers" in note]
    assert len(told) == (0 if alike else 1)
    if not alike:
        assert "'The quick Brown-FOX" in told[0]
        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        assert not load_model(f"hf:{folder}", task="text-classification").notes


def test_a_tokenizer_that_transformers_cannot_read_is_said(tmp_path: Path) -> None:
    """Then nobody has held tokenizer.json against it."""
    folder = encoder(tmp_path, 1)
    (folder / "tokenizer_config.json").write_text("[1")
    [note] = load_model(f"hf:{folder}", task="text-classification").notes
    assert "transformers cannot read its tokenizer" in note
    assert "so tokenizer.json was held against nothing" in note
