"""Causal language models: loaded, cut, drawn, and refused where they cannot be what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.errors import KdcError
from compressor.models.ensemble import Mixture
from compressor.models.features import inner_of
from compressor.models.loaded import LoadedModel
from compressor.schema.preprocess import LanguagePreprocess
from compressor.tasks.causal_lm.models.loading import load_hf
from compressor.tasks.causal_lm.models.network import CausalLm
from compressor.tasks.causal_lm.models.students import create_student, kept_layers
from compressor.tasks.inference import inferred
from tests.kit import version_of
from tests.tasks.causal_lm.kit import llama, tokenizer_json, write_jsonl, write_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def teacher(folder: Path) -> LoadedModel:
    return load_hf(str(folder), None)


def network_of(model: LoadedModel) -> CausalLm:
    network = inner_of(model.network)
    assert isinstance(network, CausalLm)
    return network


def test_a_folder_is_loaded_as_transformers_loads_it(folder: Path, teacher: LoadedModel) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(320, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(teacher.network(ids, torch.ones_like(ids)), theirs(ids).logits)
    assert isinstance(teacher.preprocess, LanguagePreprocess)
    preprocess = teacher.preprocess
    assert (preprocess.vocabulary, preprocess.max_length) == (320, 128)
    assert (preprocess.start_id, preprocess.end_id, preprocess.pad_id) == (1, 0, 2)
    assert preprocess.chat_template is not None
    assert teacher.class_names is None


def test_filler_behind_changes_nothing(teacher: LoadedModel) -> None:
    ids = torch.randint(320, (1, 9), generator=torch.Generator().manual_seed(1))
    filled = torch.nn.functional.pad(ids, (0, 50), value=2)
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 50))
    with torch.no_grad():
        torch.testing.assert_close(
            teacher.network(filled, mask)[:, :9], teacher.network(ids, torch.ones_like(ids)), atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize(
    ("asked", "count", "kept"),
    [
        ("15", 30, [*range(8), *range(23, 30)]),  # first 8 + last 7
        ("half", 5, [0, 1, 4]),
        ("2", 4, [0, 3]),
        ("1", 4, [0]),
        ("4", 4, [0, 1, 2, 3]),
        ("0,2", 4, [0, 2]),
    ],
)
def test_first_and_last_layers_stay(asked: str, count: int, kept: list[int]) -> None:
    assert kept_layers(asked, count, f"layers:{asked}") == kept


@pytest.mark.parametrize("asked", ["0", "5", "0,4", "2,1", "1,1"])
def test_layers_that_are_not_there_are_refused(asked: str, teacher: LoadedModel) -> None:
    with pytest.raises(KdcError, match="the teacher has"):
        create_student(f"layers:{asked}", "pretrained", None, teacher)


def test_all_layers_kept_is_the_teacher_bit_for_bit(teacher: LoadedModel) -> None:
    student = create_student("layers:4", "pretrained", None, teacher)
    ids = torch.randint(320, (3, 20), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = teacher.network(ids, torch.ones_like(ids))
        assert torch.equal(student.network(ids, torch.ones_like(ids)), expected)
        other = create_student("layers:4", "random", None, teacher)
        assert not torch.equal(other.network(ids, torch.ones_like(ids)), expected)


def test_a_cut_model_is_the_layers_it_says(teacher: LoadedModel) -> None:
    """Layer 3 stands where layer 1 was, is called so, and counts its cache so; embeddings stay tied."""
    student = create_student("layers:2", "pretrained", None, teacher)
    ours: Any = network_of(student).model
    theirs: Any = network_of(teacher).model
    for new, old in enumerate((0, 3)):
        mine, before = ours.model.layers[new], theirs.model.layers[old]
        assert all(torch.equal(mine.state_dict()[name], value) for name, value in before.state_dict().items())
        assert mine.self_attn.layer_idx == new
    assert ours.config.num_hidden_layers == 2
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert student.weights.parameters == sum(p.numel() for p in ours.parameters())
    assert student.notes == (
        f"student layers:2: layers 0, 3 of the 4 of {teacher.weights.source} (0 to 3), with the teacher's weights",
    )
    assert student.preprocess == teacher.preprocess


def test_a_configuration_is_drawn_and_reads_as_its_teacher(teacher: LoadedModel, tmp_path: Path) -> None:
    config = llama(2, hidden_size=16).config
    (tmp_path / "config.json").write_text(config.to_json_string(), encoding="utf-8")
    torch.manual_seed(3)
    student = create_student(f"hf:{tmp_path / 'config.json'}", "random", 32, teacher)
    assert student.preprocess == teacher.preprocess.model_copy(update={"max_length": 32})
    assert "reads documents by the tokenizer of" in student.notes[0]
    with pytest.raises(KdcError, match="is a configuration, without weights"):
        create_student(f"hf:{tmp_path / 'config.json'}", "pretrained", None, teacher)
    with pytest.raises(KdcError, match=r"no tokenizer\.json lies beside it, and no teacher has one"):
        create_student(f"hf:{tmp_path / 'config.json'}", "random", None, None)


def test_the_token_that_ends_is_taken_from_the_configuration(folder: Path, tmp_path: Path) -> None:
    write_llama(tmp_path, template=None)
    (tmp_path / "tokenizer_config.json").unlink()
    model = load_hf(str(tmp_path), None)
    assert isinstance(model.preprocess, LanguagePreprocess)
    assert (model.preprocess.start_id, model.preprocess.end_id) == (1, 0)
    assert model.preprocess.chat_template is None


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    write_llama(tmp_path, size=300)
    with pytest.raises(KdcError, match="its tokenizer has 320 tokens, and the model 300"):
        load_hf(str(tmp_path), None)
    write_llama(tmp_path, size=1000)
    with pytest.raises(KdcError, match="its tokenizer has 320 tokens, and the model 1,000"):
        load_hf(str(tmp_path), None)


def test_weights_that_lack_a_layer_are_refused(tmp_path: Path) -> None:
    write_llama(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(KdcError, match=r"its weights lack model\.layers\.4"):
        load_hf(str(tmp_path), None)


def test_a_model_that_sees_what_follows_is_refused(tmp_path: Path) -> None:
    """BERT's head over the vocabulary, as transformers offers it among causal models."""
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, is_decoder=False,
    )  # fmt: skip
    BertLMHeadModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    with pytest.raises(KdcError, match="answers otherwise where other tokens follow"):
        load_hf(str(tmp_path), None)


def test_more_tokens_than_positions_are_refused(folder: Path) -> None:
    with pytest.raises(KdcError, match=r"--max-length 129: hf:.* takes 128 tokens at most"):
        load_hf(str(folder), 129)


def test_layers_of_another_kind_at_their_new_number_are_refused(tmp_path: Path) -> None:
    """Of these four the configuration has the first as an ordinary layer, whatever the student keeps."""
    from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

    config = Qwen2MoeConfig(
        vocab_size=320, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=16, moe_intermediate_size=8, shared_expert_intermediate_size=8, num_experts=2,
        num_experts_per_tok=1, mlp_only_layers=[0], max_position_embeddings=64,
    )  # fmt: skip
    folder = write_llama(tmp_path / "moe")
    Qwen2MoeForCausalLM(config).save_pretrained(folder)
    mixed = load_hf(str(folder), None)
    assert create_student("layers:0,3", "pretrained", None, mixed).weights.parameters > 0
    with pytest.raises(KdcError, match=r"layers of another kind at these numbers \(model.model.layers.0.mlp"):
        create_student("layers:1,3", "pretrained", None, mixed)


@pytest.mark.skipif(version_of("transformers") < (5,), reason="its configurations say it otherwise")
def test_blocks_end_where_the_longest_of_a_batch_would_change_the_others(tmp_path: Path) -> None:
    """LongRoPE: all positions of a batch turn by other angles once one text is longer than the first training's."""
    from transformers import Phi3Config, Phi3ForCausalLM

    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4,
            "long_factor": [2.0, 3.0, 4.0, 5.0], "original_max_position_embeddings": 16}  # fmt: skip
    config = Phi3Config(
        vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=16, max_position_embeddings=64, original_max_position_embeddings=16, rope_parameters=rope,
        pad_token_id=2,
    )  # fmt: skip
    folder = write_llama(tmp_path / "phi")
    Phi3ForCausalLM(config).save_pretrained(folder)
    loaded = load_hf(str(folder), None)
    assert loaded.preprocess.max_length == 16  # type: ignore[attr-defined]
    ids = torch.randint(320, (1, 20), generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(20) < 10).long()[None]
    with torch.no_grad():
        alone = loaded.network(ids[:, :10], mask[:, :10])
        assert torch.allclose(loaded.network(ids[:, :16], mask[:, :16])[:, :10], alone, atol=1e-6)
        assert not torch.allclose(loaded.network(ids, mask)[:, :10], alone, atol=1e-4)
    with pytest.raises(KdcError, match=r"--max-length 17: hf:.* takes 16 tokens at most"):
        load_hf(str(folder), 17)


def test_the_task_is_told_by_data_and_model(folder: Path, tmp_path: Path) -> None:
    def task(data: str, *teachers: str, stated: bool = False) -> str:
        return inferred(data, teachers, [], task=None, stated_columns=stated).name

    write_jsonl(tmp_path / "data.jsonl", [{"text": "a"}])
    (tmp_path / "texts.csv").write_text("text\na\n")
    (tmp_path / "labelled.csv").write_text("text,label\na,b\n")
    (tmp_path / "prompts.csv").write_text("prompt,completion\na,b\n")
    assert task(f"jsonl:{tmp_path / 'data.jsonl'}") == "causal-lm"
    assert task(f"csv:{tmp_path / 'prompts.csv'}") == "causal-lm"
    assert task(f"csv:{tmp_path / 'texts.csv'}", f"hf:{folder}") == "causal-lm"
    assert task(f"csv:{tmp_path / 'labelled.csv'}", f"hf:{folder}") == "text-classification"
    assert task(f"csv:{tmp_path / 'texts.csv'}", "hf:model.gguf") == "causal-lm"
    with pytest.raises(KdcError, match="no model tells which"):
        task(f"csv:{tmp_path / 'texts.csv'}")


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_several_teachers_answer_by_the_mean_of_their_probabilities(rows: int) -> None:
    """At every token, however many rows a batch has."""

    class Answers(torch.nn.Module):
        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__()
            self.logits = logits

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            return self.logits

    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(rows, 4, 5, generator=generator) for _ in range(2))
    mixture = Mixture([Answers(first), Answers(second)], [0.25, 0.75], "probabilities")
    expected = 0.25 * first.softmax(-1) + 0.75 * second.softmax(-1)
    torch.testing.assert_close(mixture(torch.zeros(1)).exp(), expected)
    logits = Mixture([Answers(first), Answers(second)], [0.25, 0.75], "logits")(torch.zeros(1))
    torch.testing.assert_close(logits.softmax(-1), (0.25 * first + 0.75 * second).softmax(-1))
