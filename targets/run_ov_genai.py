"""Runs language models with OpenVINO GenAI on the CPU. Speaks the protocol of README.md on stdin and stdout.

Its pipelines tell no log-probabilities: those come from the same model, compiled with the same options by OpenVINO
itself, which is done when it is first asked for them.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.run_ov import NAMES, core
    from targets.runner_language import LanguageModel, serve_language
    from targets.runner_process import Runtime, mixed
    from targets.runner_requests import RequestError
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from runner_language import LanguageModel, serve_language
    from runner_process import Runtime, mixed
    from runner_requests import RequestError
    from run_ov import NAMES, core  # isort: skip  (after runner_process, which can answer without numpy)

import numpy as np  # after runner_process, which can answer without it

KNOWN = ("f32", "int8", "int4")
MODEL = "openvino_model.xml"
LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")
UNLIMITED = 1_000_000  # tokens, where nothing says how many a model takes
PACKED = {"i4": "int4", "u4": "int4", **NAMES}


def options(threads: int) -> dict[str, Any]:
    """What is multiplied with the weights stays in f32, and so do keys and values: by default OpenVINO rounds both to
    8 bits."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }


def load(genai: Any, path: str, threads: int, precision: str, streams: int) -> LanguageModel:
    folder, ov = Path(path), importlib.import_module("openvino")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    limit = next((config[name] for name in LIMITS if isinstance(config.get(name), int)), UNLIMITED)
    # The graph that is scored is the one that generates: not the one for many texts at a time, with pages of memory.
    pipeline = genai.LLMPipeline(path, "CPU", **options(threads), ATTENTION_BACKEND="SDPA")
    tokenizer = pipeline.get_tokenizer()

    @cache
    def compiled() -> Any:
        return core(ov).compile_model(str(folder / MODEL), "CPU", options(threads))

    @cache
    def request() -> Any:
        return compiled().create_infer_request()

    def logits(blocks: Any) -> Any:
        count, length = blocks.shape
        request().reset_state()
        inputs = {
            "input_ids": blocks.astype(np.int64),
            "attention_mask": np.ones((count, length), np.int64),
            "position_ids": np.tile(np.arange(length, dtype=np.int64), (count, 1)),
            "beam_idx": np.arange(count, dtype=np.int32),
        }
        return request().infer(inputs)["logits"]

    def generate(prompt: list[int], tokens: int, tell: Callable[[int], None]) -> None:
        ids = np.array([prompt], np.int64)
        given = genai.TokenizedInputs(ov.Tensor(ids), ov.Tensor(np.ones_like(ids)))
        pipeline.generate(given, greedy(genai, tokens), listener(genai, tell))

    def encode(text: str) -> list[int]:
        """The tokenizer itself puts the token before it that starts a document."""
        return [int(token) for token in tokenizer.encode(text).input_ids.data[0]]

    def decode(prompt: list[int], ids: list[int]) -> str:
        """Some tokenizers leave out a blank at the start of what they decode."""
        before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
        return str(whole[len(before) :] if whole.startswith(before) else tokenizer.decode(ids))

    return LanguageModel(
        limit, config["vocab_size"], logits, True, generate, encode, decode, lambda: executed(compiled())
    )


def greedy(genai: Any, tokens: int) -> Any:
    """Whatever generation_config.json says of drawing, and of tokens that are to be avoided."""
    config = genai.GenerationConfig()
    config.do_sample, config.num_beams, config.repetition_penalty = False, 1, 1.0
    config.max_new_tokens, config.ignore_eos = tokens, True
    return config


def listener(genai: Any, tell: Callable[[int], None]) -> Any:
    class Listener(genai.StreamerBase):  # type: ignore[misc]
        def write(self, tokens: Any) -> Any:
            for token in tokens if isinstance(tokens, list) else [tokens]:
                tell(int(token))
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    return Listener()


def executed(compiled: Any) -> str:
    """The precision of the weights of matrix products and of embeddings, as they lie in the compiled graph, where
    OpenVINO may have widened them."""
    kinds = []
    for node in compiled.get_runtime_model().get_ops():
        kind = layer_of(node)
        weights = {"FullyConnected": 1, "MatMul": 1, "Gather": 0}.get(kind)
        if weights is None:
            continue
        source = node.input_value(weights)
        if layer_of(source.get_node()) == "Const" and len(source.get_partial_shape()) >= 2:
            name = source.get_element_type().get_type_name()
            kinds.append(PACKED.get(name, name))
    return mixed(kinds)


def layer_of(node: Any) -> str:
    kind: str = node.get_rt_info()["layerType"].astype(str)
    return kind


def version(genai: Any) -> str:
    """2026.4.1.0, without what it was built from."""
    return str(genai.__version__).partition("-")[0]


def require_cpu(genai: Any) -> list[str]:
    if not hasattr(genai, "LLMPipeline"):
        raise RequestError("missing", "pip install openvino-genai (this one has no LLMPipeline)")
    return list(KNOWN)


if __name__ == "__main__":
    serve_language(
        Runtime("openvino-genai", "pip install openvino-genai", KNOWN, require_cpu, load, "openvino_genai", version)
    )
