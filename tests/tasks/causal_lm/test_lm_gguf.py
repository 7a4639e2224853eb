"""GGUF files: what llama.cpp's own writer makes of a model is that model again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressor.errors import KdcError
from compressor.models.tokenizers import FILE
from compressor.tasks.causal_lm.models.loading import load_hf, require_model
from compressor.tasks.causal_lm.models.students import create_student
from compressor.tasks.causal_lm.shipping import transformers_folder
from compressor.tasks.causal_lm.tokenizer import of_documents, tokenizer_of
from tests.tasks.causal_lm.kit import CHAT, llama, write_llama

gguf = pytest.importorskip("gguf", reason="the extra gguf")

NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def rotated(weights: torch.Tensor, heads: int) -> torch.Tensor:
    """Queries and keys as llama.cpp has them: the halves of a head interleaved."""
    return weights.reshape(heads, 2, len(weights) // heads // 2, -1).swapaxes(1, 2).reshape(weights.shape)


def write_gguf(path: Path, folder: Path) -> None:
    """The Llama and the tokenizer of `folder`, as llama.cpp's converter writes them."""
    model = llama(2)
    config, tokenizer = model.config, json.loads((folder / FILE).read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.license", "mit")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(
        [" ".join(pair) if isinstance(pair, list) else pair for pair in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)  # without one transformers adds a token
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT)
    state = model.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for layer in range(2):
        for theirs, ours in NAMES.items():
            weights = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(ours)
            weights = weights if heads is None else rotated(weights, heads)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", np.ascontiguousarray(weights.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_the_model_that_was_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_llama(tmp_path / "llama", layers=2)
    write_gguf(tmp_path / "model.gguf", folder)
    capfd.readouterr()
    ours, theirs = load_hf(str(tmp_path / "model.gguf"), 32), load_hf(str(folder), 32)
    assert "it/s" not in capfd.readouterr().err
    ids = torch.randint(320, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for_both = [model.network(ids, torch.ones_like(ids)) for model in (ours, theirs)]
    torch.testing.assert_close(*for_both, atol=1e-6, rtol=1e-6)
    assert ours.weights.licence == "mit"
    assert "its weights are stored as F32, and were unpacked to float32" in ours.notes[0]
    preprocess = of_documents(ours.preprocess)
    assert (preprocess.start_id, preprocess.end_id) == (1, 0)
    tokenizer = tokenizer_of(preprocess)
    assert tokenizer.template == CHAT
    text = ["the farmer saw the ox.", "grün 🐂"]
    expected = tokenizer_of(of_documents(theirs.preprocess)).tokens(text, special=False)
    assert [row[0] for row in tokenizer.tokens(text, special=False)] == [row[0] for row in expected]
    student = create_student("layers:1", "pretrained", None, ours)
    assert not hasattr(student.network.model.config, "quantization_config")  # type: ignore[union-attr]
    transformers_folder(ours, tmp_path / "unpacked")
    again = load_hf(str(tmp_path / "unpacked"), 32)
    with torch.no_grad():
        torch.testing.assert_close(again.network(ids, torch.ones_like(ids)), for_both[0], atol=0, rtol=0)


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(KdcError, match="is no GGUF file that can be read"):
        load_hf(str(tmp_path / "model.gguf"), None)
    with pytest.raises(KdcError, match=r"hf:.*gone\.gguf does not exist"):
        require_model(str(tmp_path / "gone.gguf"))


@pytest.mark.parametrize(
    ("without", "beside", "said"),
    [
        ("blk.1.ffn_up.weight", None, r"lacks model\.layers\.1\.mlp\.up_proj\.weight"),
        (None, "blk.1.attn_q.bias", "holds 25,792 numbers, and transformers has room for 25,760 in a llama"),
        (None, "rope_freqs.weight", r"its positions are scaled \(rope_freqs\.weight\)"),
    ],
)
def test_a_file_that_would_be_another_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str | None, beside: str | None, said: str
) -> None:
    """One part of several, biases that no Llama has, positions as Llama 3.1 scales them."""
    write = gguf.GGUFWriter.add_tensor

    def add(writer: Any, name: str, weights: Any) -> None:
        if name != without:
            write(writer, name, weights)
        if name == "output_norm.weight" and beside is not None:
            write(writer, beside, np.zeros(32, np.float32))

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add)
    write_gguf(tmp_path / "model.gguf", write_llama(tmp_path / "llama", layers=2))
    with pytest.raises(KdcError, match=said):
        load_hf(str(tmp_path / "model.gguf"), None)
