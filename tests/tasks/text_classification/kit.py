"""Small texts of three topics, and a small encoder of them with a tokenizer made of their words."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kit import call
from tests.shared import made_once

__all__ = [
    "ENCODER",
    "SPEED",
    "TOPICS",
    "encoder",
    "hf_model",
    "made_texts",
    "taught",
    "texts",
    "tokenizer_json",
    "with_head",
    "write_csv",
]

TOPICS = {
    "sport": ("goal", "match", "team", "score", "coach", "league", "win"),
    "food": ("soup", "bread", "taste", "sugar", "oven", "dinner", "salt"),
    "space": ("rocket", "orbit", "planet", "moon", "star", "launch", "probe"),
}
COMMON = ("the", "a", "of", "was", "very", "good", "and", "in", "old", "new", "they", "said")
SPEED = ("--set", "optimizer.lr=0.003", "--set", "optimizer.lr_for_batch=null", "--batch-size", "16")
ENCODER: dict[str, Any] = {
    "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.05, "attention_probs_dropout_prob": 0.05,
}  # fmt: skip


def texts(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of 4 to 20 words with their topics; no two alike."""
    rng = np.random.default_rng(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        topic = [*TOPICS][len(rows) % 3]
        words = [str(rng.choice(TOPICS[topic] if rng.random() < 0.4 else COMMON)) for _ in range(rng.integers(4, 21))]
        words[rng.integers(len(words))] = str(rng.choice(TOPICS[topic]))
        rows.setdefault(" ".join(words), topic)
    return list(rows.items())


def write_csv(path: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = ("text", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def tokenizer_json(*, padded: bool = True) -> str:
    """A WordPiece tokenizer as BERT's; `padded`: filled up and cut to 128 tokens, as sentence encoders have it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'"
    words = dict.fromkeys([*COMMON, *(word for topic in TOPICS.values() for word in topic)])
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{sign}" for sign in letters), *words]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    if padded:
        made.enable_padding(length=128)
        made.enable_truncation(128)
    text: str = made.to_str()
    return text


def hf_model(folder: Path, model: Any, tokenizer: str | None = None) -> Path:
    """A model of transformers saved with a tokenizer, as its own `save_pretrained` does."""
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer or tokenizer_json(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def encoder(folder: Path, layers: int = 4, **changes: Any) -> Path:
    """A BERT without a classifier, its weights drawn."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    size = len(json.loads(tokenizer_json())["model"]["vocab"])
    config = BertConfig(vocab_size=size, num_hidden_layers=layers, **ENCODER | changes)
    return hf_model(folder, BertModel(config))


def with_head(folder: Path, layers: int = 4) -> Path:
    """The same with a head over its vocabulary."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    size = len(json.loads(tokenizer_json())["model"]["vocab"])
    return hf_model(folder, BertForMaskedLM(BertConfig(vocab_size=size, num_hidden_layers=layers, **ENCODER)))


def taught(
    folder: Path, data: Path, *more: object, epochs: int = 12, make: Callable[[Path], Path] | None = None
) -> Path:  # fmt: skip
    """What `kdc teach` makes of such an encoder, or of that which `make` makes."""
    model = (make or encoder)(folder / "encoder")
    code = call(
        "teach", "--teacher", f"hf:{model}", "--data", f"csv:{data}", "--out", folder / "teacher",
        "--epochs", epochs, *SPEED, *more,
    )  # fmt: skip
    assert code == 0
    return folder / "teacher"


def made_texts(factory: pytest.TempPathFactory) -> Path:
    """data.csv, encoder/, and the teacher/ that it was taught to be. Never change them."""

    def make(folder: Path) -> None:
        write_csv(folder / "data.csv", texts(240))
        taught(folder, folder / "data.csv")

    return made_once(factory, "texts", make)
