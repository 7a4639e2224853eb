"""OpenVINO GenAI: the network is traced with its keys and values, which OpenVINO keeps as its state from then on; NNCF
packs the weights, and openvino_tokenizers makes the tokenizer a model, too."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import KdcError, needs
from compressor.export.language.base import LanguageBuilder, config_of
from compressor.export.openvino.ir import ir_constants, save
from compressor.export.quiet import quiet
from compressor.models.hugging_face import pretrained, transformers_library
from compressor.runtimes import RUNTIMES

__all__ = ["BUILDER"]

NAME = "openvino-genai"
PURPOSE = f"an export to {NAME}"
MODEL = "openvino_model"
TOKENIZER_CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
BESIDE = ("config.json", "generation_config.json", TOKENIZER_CONFIG, TEMPLATE)
GROUP, LEAST_GROUP = 32, 16
"""Weights that share a scale in int4, and the fewest, of layers whose inputs GROUP does not divide."""
LIMITS = ("max_position_embeddings", "n_positions", "max_seq_len")
UNLIMITED = 1_000_000
FIRST = ("input_ids", "attention_mask", "position_ids")


def _convert(model_folder: Path, precision: str, out: Path) -> str:
    ov = needs("openvino", RUNTIMES[NAME].install, PURPOSE)
    with quiet("OpenVINO cannot convert the model"):
        model = _stateful(ov, *_traced(ov, model_folder))
        made = f"openvino {ov.__version__.partition('-')[0]}, convert_model, with state"
        if precision != "f32":
            model, packing = _packed(model, precision)
            made = f"{made}; {packing}, activations float32"
        save(model, out, half=False, name=MODEL)
        _write_tokenizer(ov, model_folder, out)
    for name in BESIDE:
        if (model_folder / name).is_file():
            shutil.copyfile(model_folder / name, out / name)
    return made


class _Flat(nn.Module):
    """A causal language model whose keys and values go in and come out as tensors, two a layer."""

    def __init__(self, model: nn.Module, layer: Any, cache: Any) -> None:
        super().__init__()
        self.model, self.layer, self.cache = model, layer, cache

    def forward(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor) -> Any:
        cache = self.cache()
        for keys, values in zip(past[::2], past[1::2], strict=True):
            layer = self.layer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        told = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=True, cache=cache
        )
        return told.logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def _traced(ov: Any, model_folder: Path) -> tuple[Any, list[tuple[int, int]]]:
    """The network with keys and values as inputs and outputs; of each of these how many heads there are and how large
    one is."""
    transformers = transformers_library()
    from transformers.cache_utils import DynamicCache, DynamicLayer

    model, _ = pretrained(transformers.AutoModelForCausalLM, str(model_folder), transformers)
    model = model.float().eval()
    kind = type(model).__name__
    with torch.no_grad():
        told = model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=True)
    layers = getattr(getattr(told, "past_key_values", None), "layers", None)
    if not layers or not all(isinstance(layer, DynamicLayer) for layer in layers):
        raise KdcError(f"{kind} remembers otherwise than in keys and values, which kdc cannot make OpenVINO keep")
    past = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
    ids, batch, before = torch.full((2, 4), 3), 2, past[0].shape[2]
    example = (
        ids,
        torch.ones(batch, before + 4, dtype=torch.int64),
        torch.arange(before, before + 4).repeat(batch, 1),
        *(tensor.repeat(batch, 1, 1, 1) for tensor in past),
    )
    with torch.no_grad():
        made = ov.convert_model(_Flat(model, DynamicLayer, DynamicCache), example_input=example)
    return made, [(tensor.shape[1], tensor.shape[3]) for tensor in past]


def _stateful(ov: Any, model: Any, shapes: list[tuple[int, int]]) -> Any:
    """`model` as openvino_genai takes it: tensors by their names, keys and values as state, which begins empty, and
    `beam_idx`: which of the texts before each text goes on from."""
    from openvino import opset13 as ops
    from openvino.passes import MakeStateful, Manager

    past = [f"past_key_values.{number // 2}.{'value' if number % 2 else 'key'}" for number in range(len(shapes))]
    present = [name.replace("past_key_values", "present") for name in past]
    for port, name in zip(model.inputs, (*FIRST, *past), strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, ("logits", *present), strict=True):
        port.get_tensor().set_names({name})
    for name in FIRST:
        model.input(name).get_node().set_partial_shape(ov.PartialShape([-1, -1]))
    beams = ops.parameter([-1], np.int32, "beam_idx")
    beams.output(0).get_tensor().set_names({"beam_idx"})
    model.add_parameters([beams])
    for name, (heads, size) in zip(past, shapes, strict=True):
        port = model.input(name)
        port.get_node().set_partial_shape(ov.PartialShape([-1, heads, -1, size]))
        readers = list(port.get_target_inputs())
        chosen = ops.gather(port, beams, ops.constant(0, np.int64))
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
    model.validate_nodes_and_infer_types()
    manager = Manager()
    manager.register_pass(MakeStateful(dict(zip(past, present, strict=True))))
    manager.run_passes(model)
    _begin_empty(ops, model)
    return model


def _begin_empty(ops: Any, model: Any) -> None:
    batch = ops.gather(
        ops.shape_of(model.input("input_ids"), "i64"), ops.constant(np.array([0], np.int64)), ops.constant(0, np.int64)
    )
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            _, heads, _, size = node.get_output_partial_shape(0)
            rest = np.array([heads.get_length(), 0, size.get_length()], np.int64)
            shape = ops.concat([batch, ops.constant(rest)], 0)
            node.set_arguments([ops.broadcast(ops.constant(np.float32(0)), shape)])
    model.validate_nodes_and_infer_types()


def _packed(model: Any, precision: str) -> tuple[Any, str]:
    """The model with packed weights. In int4 embeddings and what gives the answers take 8 bits: they are few layers,
    and lose the most."""
    nncf = needs("nncf", RUNTIMES[NAME].install, f"{precision} weights")
    if precision == "int8":
        packed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        return packed, f"nncf {nncf.__version__}, int8 weights by channel, symmetric"
    fallback = nncf.AdvancedCompressionParameters(
        group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=LEAST_GROUP
    )
    packed = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        ratio=1.0,
        group_size=GROUP,
        backup_mode=nncf.BackupMode.INT8_SYM,
        advanced_parameters=fallback,
    )
    kinds = f"int4 weights in groups of {GROUP}, symmetric, of embeddings and the last layer int8 by channel"
    return packed, f"nncf {nncf.__version__}, {kinds}"


def _write_tokenizer(ov: Any, model_folder: Path, out: Path) -> None:
    """Both ways, as models; the one puts the token that starts a document before a text."""
    transformers = transformers_library()
    tokenizers = needs("openvino_tokenizers", RUNTIMES[NAME].install, PURPOSE)
    library = needs("tokenizers", RUNTIMES[NAME].install, PURPOSE)
    read = library.Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    start = config_of(model_folder)["bos_token_id"]
    token = read.id_to_token(start)
    read.post_processor = library.processors.TemplateProcessing(single=[token, "$A"], special_tokens=[(token, start)])
    special = {
        name: token for name, token in config_of(model_folder, TOKENIZER_CONFIG).items() if name.endswith("_token")
    }
    given = transformers.PreTrainedTokenizerFast(tokenizer_object=read, **special)
    if (model_folder / TEMPLATE).is_file():
        given.chat_template = (model_folder / TEMPLATE).read_text(encoding="utf-8")
    encoder, decoder = tokenizers.convert_tokenizer(given, with_detokenizer=True, skip_special_tokens=True)
    for name, made in (("openvino_tokenizer", encoder), ("openvino_detokenizer", decoder)):
        ov.save_model(made, out / f"{name}.xml", compress_to_fp16=False)


def _constants(folder: Path) -> Iterator[tuple[str, int]]:
    """Unsigned types are packed weights, too, with a zero point."""
    for kind, size in ir_constants(folder / f"{MODEL}.xml"):
        yield {"uint4": "int4", "uint8": "int8"}.get(kind, kind), size


def _limit(folder: Path) -> int:
    config = config_of(folder)
    return next((config[name] for name in LIMITS if isinstance(config.get(name), int)), UNLIMITED)


def _encoder(folder: Path) -> Callable[[str], list[int]]:
    genai = needs("openvino_genai", RUNTIMES[NAME].install, PURPOSE)
    with quiet("openvino-genai cannot read the model's tokenizer"):
        tokenizer = genai.Tokenizer(str(folder))
    start = config_of(folder)["bos_token_id"]

    def encode(text: str) -> list[int]:
        ids = [int(token) for token in tokenizer.encode(text).input_ids.data[0]]
        if ids[:1] != [start]:
            raise RuntimeError("it does not put the token that starts a document before a text")
        return ids[1:]

    return encode


BUILDER = LanguageBuilder(_convert, _constants, _limit, _encoder)
