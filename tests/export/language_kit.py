"""A small language model as a folder of transformers, what is built of it, and the runners that run that."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.export.language import build
from compressor.models import load_model
from compressor.progress import Silent
from compressor.runtimes import RUNTIMES
from compressor.tasks.causal_lm.shipping import transformers_folder
from tests.forked import python
from tests.shared import made_once
from tests.tasks.causal_lm.kit import documents, write_llama

__all__ = [
    "EACH",
    "FLOAT",
    "LIMIT",
    "TARGETS",
    "VOCABULARY",
    "asked",
    "blocks_of",
    "given",
    "made",
    "reference",
    "write_blocks",
]

TARGETS = Path(__file__).resolve().parents[2] / "targets"
LIMIT, VOCABULARY = 128, 320
FLOAT = {name: next(iter(row.precisions)) for name, row in RUNTIMES.items() if row.generates}
"""The precision of each runtime that is compared with transformers."""
EACH = pytest.mark.parametrize("runtime", FLOAT)


def given(factory: pytest.TempPathFactory) -> Path:
    """A Llama whose answers differ from token to token, in ASCII, as what an export begins with. Never change it."""

    def make(folder: Path) -> None:
        write_llama(folder / "source", 2, hidden_size=64, initializer_range=0.3)
        speak_ascii(folder / "source")
        transformers_folder(load_model(f"hf:{folder / 'source'}", task="causal-lm"), folder / "model")

    return made_once(factory, "language-given", make) / "model"


def speak_ascii(folder: Path) -> None:
    """Bytes that drawn weights put side by side are seldom UTF-8, of which no runtime makes the same text: tokens with
    other bytes than ASCII's get nothing, which is less than the most probable of the others."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    strange = [number for token, number in vocabulary.items() if not token.replace("Ġ", "").isascii()]
    assert 100 < len(strange) < VOCABULARY - 100
    weights["model.embed_tokens.weight"][strange] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def made(factory: pytest.TempPathFactory, runtime: str, precision: str) -> Path:
    """What is built of it. Never change it."""
    source = given(factory)

    def make(folder: Path) -> None:
        build(source, runtime, precision, folder / "model", max_length=LIMIT, progress=Silent())

    return made_once(factory, f"language-{runtime}-{precision}", make) / "model"


def asked(runtime: str, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """The replies of a new process of the runtime's runner."""
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    command = [*python(), str(TARGETS / RUNTIMES[runtime].runner)]
    ended = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=240)
    replies = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(replies) == len(requests), ended.stderr
    return replies


def write_blocks(path: Path, blocks: list[list[int]]) -> Path:
    ids = np.array([token for block in blocks for token in block], np.int32)
    np.savez(path, ids=ids, starts=np.cumsum([0, *map(len, blocks)], dtype=np.int64))
    return path


def reference(source: Path, block: list[int]) -> NDArray[np.float64]:
    """log softmax [N, vocabulary] of all tokens of a block, by transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source).eval()
    with torch.no_grad():
        told: NDArray[np.float64] = model(torch.tensor([block])).logits[0].double().log_softmax(-1).numpy()
    return told


def blocks_of(source: Path) -> list[list[int]]:
    """Real text in several lengths: a token alone, two, some, one more than the model takes; with tokens that end and
    fill up documents in the middle, which are tokens like any other."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    text = [1, *tokenizer.encode(" ".join(documents(20)), add_special_tokens=False).ids]
    assert len(text) > 300
    return [
        text[:1],
        text[:2],
        text[:33],
        [*text[30:40], 0, 1, 2, 2, 0, *text[40:50]],
        text[50:83],
        text[83 : 84 + LIMIT],
    ]
