"""Heads over the vocabulary: those of transformers' …ForMaskedLM, apart from the network that they read."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.distill.loop.learner import bind_losses
from compressor.distill.token_heads import give_heads, head_for_views, leave_heads
from compressor.errors import KdcError
from compressor.losses.tokens import masked_lm, token_kd
from compressor.models import load_model
from compressor.models.features import Taps
from compressor.progress import Silent
from compressor.schema.base import parse
from compressor.schema.recipe import Recipe
from compressor.schema.views import Views
from compressor.tasks.text_classification.models import hf_models
from compressor.tasks.text_classification.models.classifier import TextClassifier, token_types
from compressor.tasks.text_classification.models.cutting import cut
from compressor.tasks.text_classification.models.masked_lm import FILE
from compressor.tasks.text_classification.tokenization import TextTokenizer
from tests.kit import Hearing
from tests.tasks.text_classification.kit import ENCODER, encoder, hf_model, tokenizer_json

VOCABULARY = TextTokenizer(tokenizer_json(), "here").size
WIDE = {"initializer_range": 0.3}
KINDS: dict[str, dict[str, Any]] = {
    "Bert": {**ENCODER, "num_hidden_layers": 2},
    "Roberta": {**ENCODER, "num_hidden_layers": 2, "pad_token_id": 0},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64},
    "Electra": {**ENCODER, "num_hidden_layers": 2, "embedding_size": 16},
    "ModernBert": {
        "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 2,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2,
        "sep_token_id": 3,
    },
}  # fmt: skip
IDS = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
COUNTS = torch.ones_like(IDS)
COUNTS[1, 5:] = 0


def masked_model(kind: str = "Bert", **more: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(vocab_size=VOCABULARY, **KINDS[kind] | WIDE | more)
    torch.manual_seed(3)
    return transformers.AutoModelForMaskedLM.from_config(config).eval()


def loaded(folder: Path, kind: str = "Bert", **more: Any) -> tuple[Any, Any]:
    model = masked_model(kind, **more)
    return model, load_model(f"hf:{hf_model(folder, model)}", task="text-classification")


def token_logits(network: nn.Module) -> Tensor:
    assert isinstance(network, TextClassifier)
    types = [torch.zeros_like(IDS)] if token_types(network.model) else []
    with torch.no_grad():
        answer: Tensor = Taps(network, ["vocabulary"], 2, patches="none")(network, (IDS, *types, COUNTS))[1][
            "vocabulary"
        ]
    return answer


@pytest.mark.parametrize("kind", [*KINDS])
@pytest.mark.parametrize("tied", [True, False])
def test_it_answers_as_transformers_does(tmp_path: Path, kind: str, tied: bool) -> None:
    model, teacher = loaded(tmp_path, kind, tie_word_embeddings=tied)
    names = {*teacher.network.state_dict()}
    teacher.network.give_vocabulary(None, drawn=False)
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=COUNTS).logits
    counts = COUNTS.bool()
    assert torch.allclose(token_logits(teacher.network)[counts], expected[counts], atol=1e-5)
    leave_heads(teacher.network, keep=False)
    assert {*teacher.network.state_dict()} == names


def test_a_tied_head_trains_the_embedding_with_it(tmp_path: Path) -> None:
    network: Any = loaded(tmp_path)[1].network
    network.give_vocabulary(None, drawn=False)
    embedding = network.model.get_input_embeddings().weight
    assert network.masked_lm.model.get_output_embeddings().weight is embedding
    parameters = [*network.parameters()]
    assert len(parameters) == len({id(one) for one in parameters})
    again = copy.deepcopy(network)
    assert again.masked_lm.model.get_output_embeddings().weight is again.model.get_input_embeddings().weight


def test_losses_are_those_of_transformers(tmp_path: Path) -> None:
    """`masked_lm` against BertForMaskedLM's own loss; soft targets by hand, token by token."""
    model, teacher = loaded(tmp_path / "a")
    teacher.network.give_vocabulary(None, drawn=False)
    labels = torch.where(torch.rand(IDS.shape, generator=torch.Generator().manual_seed(1)) < 0.4, IDS, -100)
    labels[COUNTS == 0] = -100
    logits = token_logits(teacher.network)
    with torch.no_grad():
        theirs = model(input_ids=IDS, attention_mask=COUNTS, labels=labels).loss
    assert float(masked_lm(logits, labels, COUNTS)) == pytest.approx(float(theirs), rel=1e-5)
    student = logits.roll(1, -1)
    by_hand = []
    for row, column in COUNTS.nonzero().tolist():
        p, q = ((each[row, column].double() / 2).softmax(-1) for each in (logits, student))
        by_hand.append(4 * float((p * (p / q).log()).sum()))
    assert float(token_kd(student, logits, COUNTS, temperature=2.0)) == pytest.approx(
        sum(by_hand) / len(by_hand), rel=1e-4
    )


def terms_of(*losses: str) -> Any:
    values = {"losses": [{"name": "kd"}, *({"name": name} for name in losses)]}
    return bind_losses(parse(Recipe, values, "recipe"), has_teacher=True)


TRIPLE = terms_of("token_kd", "masked_lm", "token_cosine")


def test_a_student_begins_with_its_teachers_head_and_ships_without(tmp_path: Path) -> None:
    from dataclasses import replace

    _, teacher = loaded(tmp_path)
    small = cut(teacher, "layers:1", drawn=False).network
    student, said = replace(teacher, network=small), Hearing()
    before = {*small.state_dict()}
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    give_heads(TRIPLE, student, teacher, said)
    assert torch.equal(torch.rand(3), drawn), "what is drawn later does not hang on the head"
    assert (
        "the student's masked-LM head: that of its teacher; it is trained along, and is no part of the" in said.notes[0]
    )
    ours, theirs = small.masked_lm, teacher.network.masked_lm
    assert ours is not None
    for name, value in theirs.weights().items():
        assert torch.equal(ours.weights()[name], value)
    assert {*small.state_dict()} > before
    leave_heads(small, keep=False)
    assert {*small.state_dict()} == before
    hf_models.save_architecture(small, tmp_path / "out")
    assert not (tmp_path / "out" / FILE).exists()


def test_a_student_of_another_width_has_a_new_head(tmp_path: Path) -> None:
    _, teacher = loaded(tmp_path / "teacher")
    small = encoder(tmp_path / "small", 2, hidden_size=16, num_attention_heads=2, intermediate_size=32)
    student = load_model(f"hf:{small}", task="text-classification")
    said = Hearing()
    give_heads(TRIPLE, student, teacher, said)
    assert "masked-LM head: drawn at random" in said.notes[0]
    assert token_logits(student.network).shape == (*IDS.shape, VOCABULARY)


def test_a_teacher_without_a_head_is_refused_by_what_is_missing(tmp_path: Path) -> None:
    teacher = load_model(f"hf:{encoder(tmp_path)}", task="text-classification")

    def both(losses: Any, views: Views) -> None:
        give_heads(losses, teacher, teacher, Silent())
        head_for_views(views, teacher)

    for losses, views in ((TRIPLE, Views()), ([], Views(word_replacement=0.1))):
        with pytest.raises(KdcError) as refused:
            both(losses, views)
        assert "has no masked-LM head: its weights lack cls.predictions." in refused.value.message
        assert "kdc teach --teacher hf:ENCODER keeps the head" in refused.value.hint
    give_heads(terms_of("masked_lm"), teacher, None, Silent())  # that asks no teacher
    head_for_views(Views(), teacher)


def test_half_a_head_is_none(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    loaded(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({n: t for n, t in weights.items() if "transform.dense" not in n}, tmp_path / "model.safetensors")
    teacher = load_model(f"hf:{tmp_path}", task="text-classification")
    assert teacher.network.head is None


def test_a_run_keeps_the_head_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, teacher = loaded(tmp_path / "model")
    network: Any = hf_models.with_new_classifier(teacher.network, 3)
    run = tmp_path / "hf"
    hf_models.save_architecture(network, run)
    tokenizer = TextTokenizer(network.tokenizer, "here")

    def again() -> Any:
        made = hf_models.from_run(run, 3, 10**6, tokenizer)
        made.load_state_dict(network.state_dict())
        made.eval().give_vocabulary(None, drawn=False)
        return made

    first = again()
    network.eval().give_vocabulary(None, drawn=False)
    assert torch.equal(token_logits(first), token_logits(network))
    network.leave_vocabulary(keep=True)
    weights = load_file(run / FILE)
    name = next(iter(weights))
    save_file({**weights, name: weights[name] + torch.nan}, run / FILE)
    with pytest.raises(KdcError, match="not finite"):
        again()
    save_file({**weights, name: weights[name][:3].clone()}, run / FILE)
    with pytest.raises(KdcError, match=f"{name} is of the masked-LM head of another network"):
        again()
    (run / FILE).write_bytes(b"torn")
    with pytest.raises(KdcError, match=FILE):
        again()


def test_what_has_no_such_head_is_said(tmp_path: Path) -> None:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=2, n_positions=64, pad_token_id=0
    )
    network = TextClassifier(transformers.GPT2ForSequenceClassification(config), tokenizer_json())
    with pytest.raises(KdcError, match="transformers has no masked-LM head for gpt2"):
        network.give_vocabulary(None, drawn=True)
    assert json.loads(tokenizer_json())["model"]["type"] == "WordPiece"
