"""Small documents, a tokenizer that is trained on them, and small Llamas that read by it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kit import call
from tests.shared import made_once

__all__ = [
    "CHAT",
    "SPEED",
    "documents",
    "llama",
    "made_documents",
    "marked_json",
    "tokenizer_json",
    "write_jsonl",
    "write_llama",
]

WORDS = {
    "farmer": ("plough", "field", "barley", "ox", "harvest", "barn"),
    "sailor": ("rope", "harbour", "mast", "storm", "anchor", "gull"),
    "baker": ("oven", "flour", "crust", "yeast", "loaf", "salt"),
}
SPEED = ("--set", "optimizer.lr=0.003", "--set", "optimizer.lr_for_batch=null")
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|end|>", "<|start|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>")


def documents(count: int, seed: int = 0) -> list[str]:
    """Of 1 to 4 sentences about one trade each; no two alike."""
    rng = np.random.default_rng(seed)
    made: dict[str, None] = {}
    while len(made) < count:
        trade = [*WORDS][len(made) % 3]
        things = WORDS[trade]
        sentences = [
            f"the {trade} saw the {rng.choice(things)} and the {rng.choice(things)} of day {rng.integers(99)}."
            for _ in range(rng.integers(1, 5))
        ]
        made.setdefault(" ".join(sentences))
    return [*made]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tokenizer_json(size: int = 320) -> str:
    """Byte-level BPE, trained on the documents: as GPT-2's, Llama 3's and SmolLM2's. It would put a token of its own
    before each text, which kdc leaves out."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*SPECIAL], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(documents(60), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", made.token_to_id("<|start|>"))]
    )
    text: str = made.to_str()
    return text


def marked_json(size: int = 340) -> str:
    """As Llama 2's: ▁ for a space, one before each text, and tokens for the bytes of what the vocabulary lacks."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    special = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    learning = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    learning.train_from_iterator((text.replace(" ", "▁") for text in documents(60)), trainer)
    model = json.loads(learning.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    made = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", *SPECIAL])
    text: str = made.to_str()
    return text


def llama(layers: int = 4, size: int = 320, **changes: Any) -> Any:
    """A Llama, its weights drawn; embeddings tied."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    settings = {
        "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
        "max_position_embeddings": 128, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 0,
    } | changes  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, num_hidden_layers=layers, **settings))


def write_llama(
    folder: Path, layers: int = 4, *, template: str | None = CHAT, tokenizer: str | None = None, **changes: Any
) -> Path:
    """One in a folder, with its tokenizer, as `save_pretrained` leaves them. `tokenizer`: another tokenizer.json."""
    model = llama(layers, **changes)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer or tokenizer_json(), encoding="utf-8")
    config = {"bos_token": "<|start|>", "eos_token": {"content": "<|end|>"}, "pad_token": "<|pad|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def made_documents(factory: pytest.TempPathFactory) -> Path:
    """data.jsonl, llama/, and the teacher/ that it was taught to be. Never change them."""

    def make(folder: Path) -> None:
        write_jsonl(folder / "data.jsonl", [{"text": text} for text in documents(120)])
        write_llama(folder / "llama")
        code = call(
            "teach", "--teacher", f"hf:{folder / 'llama'}", "--data", f"jsonl:{folder / 'data.jsonl'}",
            "--out", folder / "teacher", "--epochs", 6, "--max-length", 32, *SPEED,
        )  # fmt: skip
        assert code == 0

    return made_once(factory, "documents", make)
