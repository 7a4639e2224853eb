"""Goes on with a text, with ONNX Runtime GenAI: `python3 generate.py PROMPT [--tokens 40]`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.generate_text import main, require_room
else:
    sys.dont_write_bytecode = True  # __pycache__ would hold this machine's paths
    from generate_text import main, require_room


def generate(folder: Path, prompt: str, tokens: int, tell: Callable[[str], None]) -> None:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it reports to its maker where nothing forbids it
    import onnxruntime_genai  # here, so that main can say how to install it

    onnxruntime_genai.disable_telemetry_events()
    told = json.loads((folder / "genai_config.json").read_text("utf-8"))["model"]
    model = onnxruntime_genai.Model(str(folder))
    tokenizer = onnxruntime_genai.Tokenizer(model)
    # As in training, a text stands behind the token that starts a document.
    ids = [told["bos_token_id"], *(int(token) for token in tokenizer.encode(prompt))]
    require_room(len(ids), tokens, told["context_length"])
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=len(ids) + tokens)
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(ids)
    stream = tokenizer.create_stream()
    while not generator.is_done():
        generator.generate_next_token()
        tell(stream.decode(generator.get_next_tokens()[0]))


if __name__ == "__main__":
    sys.exit(main(generate))
