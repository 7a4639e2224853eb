"""Goes on with a text, with OpenVINO GenAI: `python3 generate.py PROMPT [--tokens 40]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.generate_text import main, require_room
else:
    sys.dont_write_bytecode = True  # __pycache__ would hold this machine's paths
    from generate_text import main, require_room

LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")
# As it was measured: by default it rounds to 8 bits what is multiplied with the weights, and keys and values.
OPTIONS = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "PERFORMANCE_HINT": "LATENCY",
    "ATTENTION_BACKEND": "SDPA",
}


def generate(folder: Path, prompt: str, tokens: int, tell: Callable[[str], None]) -> None:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it reports to its maker
    import openvino_genai  # here, so that main can say how to install it

    config = json.loads((folder / "config.json").read_text("utf-8"))
    pipeline = openvino_genai.LLMPipeline(str(folder), "CPU", **OPTIONS)
    # As in training, a text stands behind the token that starts a document: the tokenizer puts it there.
    given = pipeline.get_tokenizer().encode(prompt)
    limit = next((config[name] for name in LIMITS if isinstance(config.get(name), int)), None)
    if limit is not None:
        require_room(given.input_ids.shape[1], tokens, limit)
    settings = pipeline.get_generation_config()
    settings.do_sample, settings.max_new_tokens = False, tokens

    def told(text: str) -> object:
        tell(text)
        return openvino_genai.StreamingStatus.RUNNING

    pipeline.generate(given, settings, told)


if __name__ == "__main__":
    sys.exit(main(generate))
