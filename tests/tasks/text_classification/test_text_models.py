"""Classifiers of texts: loaded, cut, taught other classes; what does not belong together is refused."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model, with_classes
from compressor.models.features import Taps
from compressor.models.stages import layers_of, named_layer
from compressor.tasks.base import BatchModel
from compressor.tasks.table import task_named
from compressor.tasks.text_classification.feed import stacked
from compressor.tasks.text_classification.models.classifier import TextClassifier, position_limit
from compressor.tasks.text_classification.models.cutting import kept_layers
from compressor.tasks.text_classification.opening import open_data
from compressor.tasks.text_classification.tokenization import TextTokenizer, of_texts, tokenizer_of
from tests.kit import Hearing
from tests.tasks.text_classification.kit import ENCODER, encoder, hf_model, texts, tokenizer_json, write_csv

NAMES = ("food", "space", "sport")
TASK = task_named("text-classification")
VOCABULARY = TextTokenizer(tokenizer_json(), "here").size
FAR: dict[str, Any] = {"id2label": dict(enumerate(NAMES)), "initializer_range": 0.3}
"""Weights that make logits of a size at which a difference is one."""


def classifier(folder: Path, layers: int = 4, **changes: Any) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    settings = {"vocab_size": VOCABULARY, "num_hidden_layers": layers, **FAR, **ENCODER}
    return hf_model(folder, BertForSequenceClassification(BertConfig(**settings | changes)))


def inputs_of(model: LoadedModel, samples: list[tuple[str, ...]]) -> tuple[Tensor, ...]:
    preprocess = of_texts(model.preprocess)
    encoded = tokenizer_of(preprocess).encode(samples, preprocess.max_length)
    return tuple(stacked(encoded, preprocess).values())


def logits(model: LoadedModel, samples: list[tuple[str, ...]]) -> Tensor:
    with torch.no_grad():
        answer: Tensor = model.network.eval()(*inputs_of(model, samples))
    return answer


SAMPLES: list[tuple[str, ...]] = [(text,) for text, _ in texts(12)]


def test_a_folder_of_transformers_answers_as_there(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

    folder = classifier(tmp_path / "model")
    model = load_model(f"hf:{folder}", task="text-classification")
    assert model.class_names == tuple((name,) for name in NAMES)
    assert (model.family, model.weights.architecture, model.headless) == ("hf", "bert", False)
    assert of_texts(model.preprocess).max_length == 64  # as many as it takes, whatever its tokenizer.json says
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    batch = tokenizer([text for (text,) in SAMPLES], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(logits(model, SAMPLES), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_padding_never_counts(tmp_path: Path, kind: str) -> None:
    folder = of_kind(tmp_path / kind, kind)
    model = load_model(f"hf:{folder}", task="text-classification")
    together = logits(model, SAMPLES)
    alone = torch.cat([logits(model, [sample]) for sample in SAMPLES])
    assert torch.allclose(together, alone, atol=1e-5)


def of_kind(folder: Path, kind: str) -> Path:
    import transformers

    torch.manual_seed(2)
    common = {"vocab_size": VOCABULARY, **FAR}
    if kind == "distilbert":
        distil = {"dim": 32, "n_heads": 4, "hidden_dim": 48, "n_layers": 3, "max_position_embeddings": 64}
        model: Any = transformers.DistilBertForSequenceClassification(transformers.DistilBertConfig(**common, **distil))
    elif kind == "roberta":
        model = transformers.RobertaForSequenceClassification(
            transformers.RobertaConfig(**common, **ENCODER, num_hidden_layers=3, type_vocab_size=1, pad_token_id=0)
        )
    else:
        return classifier(folder, 3)
    return hf_model(folder, model)


@pytest.mark.parametrize(("kind", "limit"), [("bert", 64), ("roberta", 63), ("distilbert", 64)])
def test_positions_end_where_they_end(tmp_path: Path, kind: str, limit: int) -> None:
    """RoBERTa and its like begin to count behind the padding's position."""
    folder = of_kind(tmp_path / kind, kind)
    model = load_model(f"hf:{folder}", task="text-classification")
    network = model.network
    assert isinstance(network, TextClassifier)
    assert position_limit(network.model, 512) == limit
    assert logits(model, [("goal " * 200,)]).isfinite().all()
    with pytest.raises(KdcError, match=rf"--max-length 200: .* takes {limit} tokens at most"):
        load_model(f"hf:{folder}", 200, "text-classification")
    assert of_texts(load_model(f"hf:{folder}", 16, "text-classification").preprocess).max_length == 16


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_a_cut_with_all_layers_is_the_teacher_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model = load_model(f"hf:{of_kind(tmp_path / kind, kind)}", task="text-classification")
    whole = TASK.create_student("layers:3", "pretrained", NAMES, None, None, model)
    assert whole.notes == (
        f"student layers:3: layers 0, 1, 2 of the 3 of {model.weights.source} (0 to 2), with the teacher's weights",
    )
    assert same(whole, model)
    cut = TASK.create_student("layers:0,2", "pretrained", NAMES, None, None, model)
    assert cut.weights.parameters < whole.weights.parameters
    assert not torch.allclose(logits_of(cut), logits_of(model), atol=1e-3)
    again = TASK.create_student("layers:0,1", "pretrained", NAMES, None, None, cut)
    assert same(again, cut)


def logits_of(model: LoadedModel) -> Tensor:
    return logits(model, SAMPLES)


def same(first: LoadedModel, second: LoadedModel) -> bool:
    return torch.equal(logits_of(first), logits_of(second))


def test_a_cut_keeps_the_middle_layers_that_it_names(tmp_path: Path) -> None:
    model = load_model(f"hf:{classifier(tmp_path / 'model', 5)}", task="text-classification")
    cut = TASK.create_student("layers:0,3,4", "pretrained", NAMES, None, None, model)
    ours, theirs = cut.network.state_dict(), model.network.state_dict()
    for new, old in enumerate((0, 3, 4)):
        name = "model.bert.encoder.layer.{}.attention.self.query.weight"
        assert torch.equal(ours[name.format(new)], theirs[name.format(old)])
    assert torch.equal(ours["model.bert.pooler.dense.weight"], theirs["model.bert.pooler.dense.weight"])
    numbers = [layer.attention.self.layer_idx for layer in cut.network.model.bert.encoder.layer]  # type: ignore[union-attr]
    assert numbers == [0, 1, 2]


def test_a_cut_keeps_the_kind_of_each_layer(tmp_path: Path) -> None:
    """Layers that attend to all tokens alternate with such as see their neighbours alone: config.layer_types."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 64}
    special = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=6,
        global_attn_every_n_layers=3,
        local_attention=8,
        **sizes,
        **special,
        **FAR,
    )
    if getattr(config, "layer_types", None) is None:
        pytest.skip("this transformers has no layer_types there")
    folder = hf_model(tmp_path / "model", ModernBertForSequenceClassification(config))
    model = load_model(f"hf:{folder}", task="text-classification")
    assert same(TASK.create_student("layers:6", "pretrained", NAMES, None, None, model), model)
    cut: Any = TASK.create_student("layers:0,3,5", "pretrained", NAMES, None, None, model).network
    assert cut.model.config.layer_types == [config.layer_types[number] for number in (0, 3, 5)]
    assert len(cut.model.model.layers) == cut.model.config.num_hidden_layers == 3


def test_a_cut_answers_the_classes_of_the_data_in_their_order(tmp_path: Path) -> None:
    model = load_model(f"hf:{classifier(tmp_path / 'model')}", task="text-classification")
    chosen = with_classes(model, [2, 0], ("sport", "food"))
    cut = TASK.create_student("layers:4", "pretrained", ("sport", "food"), None, None, chosen)
    assert torch.allclose(logits_of(cut), logits_of(model)[:, [2, 0]], atol=1e-6)
    drawn = TASK.create_student("layers:4", "random", ("sport", "food"), None, None, chosen)
    assert not torch.allclose(logits_of(drawn), logits_of(cut), atol=1e-2)


@pytest.mark.parametrize(
    ("asked", "count", "layers"),
    [
        ("6", 12, [0, 2, 4, 7, 9, 11]),  # DistilBERT's
        ("3", 6, [0, 3, 5]),
        ("2", 6, [0, 5]),
        ("4", 12, [0, 4, 7, 11]),
        ("1", 6, [0]),
        ("6", 6, [0, 1, 2, 3, 4, 5]),
        ("half", 6, [0, 3, 5]),
        ("half", 5, [0, 2, 4]),
        ("half", 1, [0]),
        ("0,2,5", 6, [0, 2, 5]),
    ],
)
def test_which_layers_stay(asked: str, count: int, layers: list[int]) -> None:
    assert kept_layers(asked, count, f"layers:{asked}") == layers


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("layers:7", "the teacher has 4 layers"), ("layers:0", "the teacher has 4 layers"),
        ("layers:0,4", "the layers 0 to 3"), ("layers:2,1", "the layers 0 to 3"), ("layers:1,1", "the layers 0 to 3"),
        ("layers:", "is not layers:N"), ("layers:-1", "is not layers:N"), ("layers:x", "is not layers:N"),
        ("layers:2,width:", "is not layers:N"), ("layers:2,wide:16", "is not layers:N"),
        ("layers:2,width:20", "the teacher has 4 heads of 8, .* a multiple of 8, up to 32"),
        ("layers:2,width:40", "a multiple of 8, up to 32"), ("layers:2,width:0", "a multiple of 8, up to 32"),
        ("timm:resnet18", "is none that learns from texts"), ("hf:nowhere.json", "nowhere.json does not exist"),
    ],
)  # fmt: skip
def test_students_that_cannot_be_are_refused(tmp_path: Path, reference: str, said: str) -> None:
    model = load_model(f"hf:{classifier(tmp_path / 'model')}", task="text-classification")
    with pytest.raises(KdcError, match=said):
        TASK.create_student(reference, "pretrained", NAMES, None, None, model)


def test_what_is_no_network_cannot_be_cut(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="is cut out of its teacher, and this one is no network"):
        TASK.create_student("layers:2", "pretrained", NAMES, None, None, None)
    from compressor.models.ensemble import combined
    from compressor.schema.recipe import Ensemble

    models = [
        with_classes(load_model(f"hf:{classifier(tmp_path / name)}", task="text-classification"), [0, 1, 2], NAMES)
        for name in ("a", "b")
    ]
    both = combined(models, Ensemble())
    with pytest.raises(KdcError, match=r"is made of one transformer, and .* is several networks"):
        TASK.create_student("layers:2", "pretrained", NAMES, None, None, both)
    with pytest.raises(KdcError, match="takes no checkpoints"):
        TASK.create_student("layers:2", "weights.pth", NAMES, None, None, models[0])


def test_teachers_answer_as_one_where_they_read_the_same_tokens(tmp_path: Path) -> None:
    from compressor.models.ensemble import combined
    from compressor.schema.recipe import Ensemble

    first, second = (
        with_classes(load_model(f"hf:{classifier(tmp_path / str(n), n)}", task="text-classification"), [0, 1, 2], NAMES)
        for n in (2, 3)
    )
    both = combined([first, second], Ensemble())
    expected = (logits_of(first).softmax(-1) + logits_of(second).softmax(-1)) / 2
    assert torch.allclose(logits_of(both).softmax(-1), expected, atol=1e-6)
    other = json.loads(tokenizer_json())
    other["normalizer"]["lowercase"] = False
    folder = classifier(tmp_path / "other")
    (folder / "tokenizer.json").write_text(json.dumps(other))
    third = with_classes(load_model(f"hf:{folder}", task="text-classification"), [0, 1, 2], NAMES)
    with pytest.raises(KdcError, match="as other tokens or as pairs, cannot answer as one"):
        combined([first, third], Ensemble())


def test_an_encoder_is_no_classifier_until_it_is_taught(tmp_path: Path) -> None:
    backbone = load_model(f"hf:{encoder(tmp_path / 'encoder')}", task="text-classification")
    assert backbone.headless
    assert backbone.class_names is None
    torch.manual_seed(0)
    trainee = TASK.create_trainee(backbone, NAMES, None)
    assert trainee.class_names == tuple((name,) for name in NAMES)
    ours, theirs = trainee.network.state_dict(), backbone.network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items() if "classifier" not in name)
    # Another head for as many classes, too.
    again = TASK.create_trainee(trainee, NAMES, None)
    assert not torch.equal(again.network.state_dict()["model.classifier.weight"], ours["model.classifier.weight"])


def test_a_drawn_student_of_a_configuration(tmp_path: Path) -> None:
    teacher = load_model(f"hf:{classifier(tmp_path / 'model')}", task="text-classification")
    config = {"model_type": "bert", "vocab_size": VOCABULARY, "num_hidden_layers": 1, **ENCODER, "hidden_size": 16}
    (tmp_path / "small.json").write_text(json.dumps(config))
    student = TASK.create_student(f"hf:{tmp_path / 'small.json'}", "random", NAMES, 32, None, teacher)
    assert of_texts(student.preprocess).max_length == 32
    assert of_texts(student.preprocess).tokenizer == of_texts(teacher.preprocess).tokenizer
    assert "reads texts by the tokenizer of" in student.notes[0]
    assert logits_of(student).shape == (12, 3)
    with pytest.raises(KdcError, match="is a configuration, without weights"):
        TASK.create_student(f"hf:{tmp_path / 'small.json'}", "pretrained", NAMES, None, None, teacher)
    (tmp_path / "few.json").write_text(json.dumps(config | {"vocab_size": 20}))
    with pytest.raises(KdcError, match=r"its tokenizer has .* tokens, and the model 20"):
        TASK.create_student(f"hf:{tmp_path / 'few.json'}", "random", NAMES, None, None, teacher)


Change = Callable[[Path], object]


def without_weights(name: str) -> Change:
    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        state = {key: value for key, value in load_file(file).items() if name not in key}
        save_file(state, file, {"format": "pt"})

    return change


def larger_vocabulary(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["model"]["vocab"]["more"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(values))


def smaller_vocabulary(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    few = {token: number for token, number in values["model"]["vocab"].items() if number < 30}
    values["model"]["vocab"] = few
    (folder / "tokenizer.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (larger_vocabulary, r"its tokenizer has 5,001 tokens, and the model \d+: it is that of another model"),
        (smaller_vocabulary, r"its tokenizer has 30 tokens, and the model \d+: it is that of another model"),
        (without_weights("encoder.layer.1."), "its weights lack bert.encoder.layer.1"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no configuration of a model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"spoilt"), "cannot be loaded"),
    ],
)
def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path, change: Change, said: str) -> None:
    folder = classifier(tmp_path / "model")
    change(folder)
    with pytest.raises(KdcError, match=said):
        load_model(f"hf:{folder}", task="text-classification")


def test_a_network_that_padding_changes_is_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=64, pad_token_id=None)
    folder = hf_model(tmp_path / "gpt", GPT2ForSequenceClassification(config))
    with pytest.raises(KdcError, match=r"answers otherwise where a text is filled up"):
        load_model(f"hf:{folder}", task="text-classification")


def test_hidden_states_embedding_and_scores_are_tapped(tmp_path: Path) -> None:
    """Index 0 is the embedding; scores are QK'/sqrt(d) before the mask and the softmax; logits stay as they are."""
    model = load_model(f"hf:{classifier(tmp_path / 'model', 3)}", task="text-classification")
    names = ["embedding", "stage1", "stage-1", "scores1", "scores3", "pooled"]
    inputs = inputs_of(model, SAMPLES)
    taps = Taps(model.network, names, len(NAMES), patches="none")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        found, features = taps(model.network, inputs)
    assert torch.allclose(found, logits_of(model), atol=1e-5)
    bert: Any = model.network.model
    with torch.no_grad():
        states = bert(input_ids=inputs[0], attention_mask=inputs[-1], output_hidden_states=True).hidden_states
        attention = bert.bert.encoder.layer[0].attention.self
        heads = [part(states[0]).unflatten(-1, (4, 8)).transpose(1, 2) for part in (attention.query, attention.key)]
        raw = heads[0] @ heads[1].transpose(2, 3) / np.sqrt(8)
    assert len(states) == 4
    assert torch.allclose(features["embedding"], states[0], atol=1e-5)
    assert torch.allclose(features["stage1"], states[1], atol=1e-5)
    assert torch.allclose(features["stage-1"], states[3], atol=1e-5)
    assert torch.allclose(features["scores1"], raw, atol=1e-5)
    assert features["scores3"].shape == (12, 4, *inputs[0].shape[1:], inputs[0].shape[1])
    assert bert.config._attn_implementation != "kdc_raw_scores"
    assert [layer.name for layer in layers_of(model, "maps")] == ["stage1", "stage2", "stage3"]
    assert named_layer(model, "embedding").shape == (8, 32)
    batch = {f"student/{spec.name}": tensor for spec, tensor in zip(model.preprocess.inputs, inputs, strict=True)}
    outputs = BatchModel(model.network, "student", taps, model.preprocess.mask)(batch)
    assert outputs.flat("stage1").shape == (int(inputs[-1].sum()), 32)


def test_what_is_tapped_trains(tmp_path: Path) -> None:
    model = load_model(f"hf:{classifier(tmp_path / 'model', 2)}", task="text-classification")
    inputs = inputs_of(model, SAMPLES)
    network: Any = model.network.train()
    _, features = Taps(network, ["scores1", "stage1", "embedding"], 3, patches="none")(network, inputs)
    sum(feature.square().mean() for feature in features.values()).backward()  # type: ignore[union-attr]
    assert network.model.bert.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


def test_a_tokenizer_that_begins_no_text_is_said(tmp_path: Path) -> None:
    """Without a post_processor there is no [CLS], which transformers puts there by itself."""
    folder = classifier(tmp_path / "model", 1)
    assert not load_model(f"hf:{folder}", task="text-classification").notes
    values = json.loads((folder / "tokenizer.json").read_text())
    values["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(values))
    model = load_model(f"hf:{folder}", task="text-classification")
    assert "its tokenizer.json puts no [CLS] before a text, since it has no post_processor" in model.notes[0]
    rows = [(text, label) for text, label in texts(60)]
    rows[3] = ("\u0301", rows[3][1])  # an accent alone, which the normalizer takes away
    (tmp_path / "train").mkdir()
    train = write_csv(tmp_path / "train" / "train.csv", rows)
    for name in ("validation", "test"):
        write_csv(train.with_name(f"{name}.csv"), texts(12, seed=len(name)))
    progress = Hearing()
    data = open_data(f"csv:{train.parent}", progress=progress)
    TASK.fitted(model, data, None, progress)
    assert any("1 training texts have no token" in line and "e.g. train/3" in line for line in progress.warnings)
