"""Runs language models with ONNX Runtime GenAI on the CPU. Speaks the protocol of README.md on stdin and stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_language import LanguageModel, serve_language
    from targets.runner_process import Runtime, mixed
    from targets.runner_requests import RequestError
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from runner_language import LanguageModel, serve_language
    from runner_process import Runtime, mixed
    from runner_requests import RequestError

import numpy as np  # after runner_process, which can answer without it

KNOWN = ("fp32", "int8", "int4")
TYPES = {1: "fp32", 2: "int8", 3: "int8", 10: "fp16", 11: "fp64", 16: "bf16"}  # onnx.TensorProto.DataType
MATRICES = {"MatMul": 1, "Gemm": 1, "Gather": 0}  # which of their inputs is the weights
PACKED = ("MatMulNBits", "GatherBlockQuantized")


def load(og: Any, path: str, threads: int, precision: str, streams: int) -> LanguageModel:
    folder = Path(path)
    told = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
    limit, vocabulary, start = int(told["context_length"]), int(told["vocab_size"]), int(told["bos_token_id"])
    model = model_of(og, path, threads)

    @cache
    def tokenizer() -> Any:
        return og.Tokenizer(model)

    def begun(ids: Any, length: int) -> Any:
        params = og.GeneratorParams(model)
        params.set_search_options(batch_size=1, num_beams=1, num_return_sequences=1, max_length=length)
        generator = og.Generator(model, params)
        generator.append_tokens(ids)
        return generator

    def logits(blocks: Any) -> Any:
        return begun(blocks, blocks.shape[1]).get_output("logits")

    def generate(prompt: list[int], tokens: int, tell: Callable[[int], None]) -> None:
        """The most probable token is found here: after one that ends a text, the generator's own search gives nothing
        but padding, and cannot be told otherwise (0.18)."""
        generator = begun(np.array([prompt], np.int32), len(prompt) + tokens)
        for number in range(1, tokens + 1):
            token = int(generator.get_logits()[0, -1].argmax())
            tell(token)
            if number < tokens:
                generator.append_tokens(np.array([[token]], np.int32))

    def encode(text: str) -> list[int]:
        return [start, *(int(token) for token in tokenizer().encode(text))]

    def decode(prompt: list[int], ids: list[int]) -> str:
        """A token at a time: of many at once it leaves out all behind the first byte that is no UTF-8 (0.18)."""
        stream = tokenizer().create_stream()
        for token in prompt:
            stream.decode(token)
        return "".join(stream.decode(token) for token in ids)

    # In a batch of several it takes every token that is the padding token for padding, wherever it stands (0.18).
    read = partial(executed, folder / told["decoder"]["filename"])
    return LanguageModel(limit, vocabulary, logits, False, generate, encode, decode, read)


def model_of(og: Any, path: str, threads: int) -> Any:
    og.disable_telemetry_events()
    options = {
        "intra_op_num_threads": threads,
        "inter_op_num_threads": 1,
        "session.force_spinning_stop": "1",  # as run_ort.py: threads that spin on take the next runner's core
        "log_severity_level": 3,
    }
    config = og.Config(path)
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return og.Model(config)


def executed(path: Path) -> str:
    """The precision of the weights of matrix products and of embeddings: of those that are packed, the bits that the
    kernel is told of; of the others their type. Norms and biases are none of them, and stay in float."""
    types, kinds = {}, []
    nodes = []
    for field, value in fields(part(path.read_bytes(), 7)):  # ModelProto.graph
        if field == 1:
            nodes.append(list(fields(value)))
        elif field == 5:
            tensor = list(fields(value))
            size = sum(1 for number, _ in tensor if number == 1)
            types[text_of(tensor, 8)] = (next(v for number, v in tensor if number == 2), size)
    for node in nodes:
        kind = text_of(node, 4)
        if kind in PACKED:
            kinds.append(f"int{attributes(node).get('bits', 4)}")
        elif kind in MATRICES:
            inputs = [bytes(value).decode() for number, value in node if number == 1]
            code, rank = types.get(inputs[MATRICES[kind]], (0, 0))
            if rank == 2:
                kinds.append(TYPES.get(code, f"type {code}"))
    return mixed(kinds)


def attributes(node: list[tuple[int, Any]]) -> dict[str, int]:
    """The integers among a node's attributes."""
    told = {}
    for attribute in (list(fields(value)) for number, value in node if number == 5):
        for number, value in attribute:
            if number == 3:
                told[text_of(attribute, 1)] = value
    return told


def text_of(message: list[tuple[int, Any]], field: int) -> str:
    return next((bytes(value).decode() for number, value in message if number == field), "")


def part(message: bytes, field: int) -> Any:
    return next((value for number, value in fields(message) if number == field), b"")


def fields(message: Any) -> Iterator[tuple[int, Any]]:
    """The fields of a Protocol Buffers message: number, and an integer or the bytes. The package onnx is not on a
    device; its weights lie in a file beside it, so that the message is small. Packed numbers are not taken apart."""
    view, at = memoryview(message), 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(view):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind not in (1, 2, 5):
            raise RequestError("failed", f"the model's file is no ONNX model: a field of type {kind}")
        size = varint() if kind == 2 else 8 if kind == 1 else 4
        yield key >> 3, view[at : at + size]
        at += size


if __name__ == "__main__":
    serve_language(
        Runtime(
            "onnxruntime-genai",
            "pip install onnxruntime-genai",
            KNOWN,
            lambda og: list(KNOWN),
            load,
            "onnxruntime_genai",
        )
    )
