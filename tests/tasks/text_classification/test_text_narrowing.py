"""Students with layers narrower than their teacher's: what stays of it, and what such a network computes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model
from compressor.tasks.text_classification.models.narrowing import Shape, shape_of
from tests.tasks.text_classification.kit import ENCODER, hf_model
from tests.tasks.text_classification.test_text_models import (
    FAR,
    NAMES,
    TASK,
    VOCABULARY,
    classifier,
    logits_of,
    of_kind,
    same,
)


def loaded(folder: Path) -> LoadedModel:
    return load_model(f"hf:{folder}", task="text-classification")


def student(reference: str, model: LoadedModel, init: str = "pretrained") -> LoadedModel:
    made: LoadedModel = TASK.create_student(reference, init, NAMES, None, None, model)
    return made


def config_of(model: LoadedModel) -> Any:
    network: Any = model.network
    return network.model.config


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_half_as_wide_is_half_of_everything(tmp_path: Path, kind: str) -> None:
    model = loaded(of_kind(tmp_path / kind, kind))
    network: Any = student("layers:2,width:16", model).network
    assert shape_of(network) == Shape(width=16, heads=2, neurons=24)
    kept = network.model.config.kept
    assert [len(numbers) for numbers in kept["heads"]] == [2, 2]
    assert [len(numbers) for numbers in kept["neurons"]] == [24, 24]
    assert len(kept["channels"]) == 16
    drawn: Any = student("layers:2,width:16", model, "random").network
    assert {name: value.shape for name, value in drawn.state_dict().items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    assert not torch.equal(*(net.model.get_input_embeddings().weight for net in (drawn, network)))


def test_weights_that_stay_are_the_teachers_at_their_places(tmp_path: Path) -> None:
    model = loaded(classifier(tmp_path / "model", 3))
    network: Any = student("layers:0,2,width:16", model).network
    kept, teacher = network.model.config.kept, model.network.state_dict()
    channels = torch.tensor(kept["channels"])
    ours = network.state_dict()
    for name in ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"):
        assert torch.equal(ours[f"model.bert.{name}"], teacher[f"model.bert.{name}"][:, channels])
    for new, old in enumerate((0, 2)):
        here, there = f"model.bert.encoder.layer.{new}.", f"model.bert.encoder.layer.{old}."
        rows = torch.cat([torch.arange(8) + 8 * head for head in kept["heads"][new]])
        neurons = torch.tensor(kept["neurons"][new])
        for name in ("query", "key", "value"):
            path = f"attention.self.{name}."
            assert torch.equal(ours[f"{here}{path}weight"], teacher[f"{there}{path}weight"][rows][:, channels])
            assert torch.equal(ours[f"{here}{path}bias"], teacher[f"{there}{path}bias"][rows])
        for name, places in {
            "attention.output.dense": (channels, rows), "intermediate.dense": (neurons, channels),
            "output.dense": (channels, neurons),
        }.items():  # fmt: skip
            expected = teacher[f"{there}{name}.weight"][places[0]][:, places[1]]
            assert torch.equal(ours[f"{here}{name}.weight"], expected)
            assert torch.equal(ours[f"{here}{name}.bias"], teacher[f"{there}{name}.bias"][places[0]])
    assert torch.equal(ours["model.classifier.weight"], teacher["model.classifier.weight"][:, channels])
    pooler = teacher["model.bert.pooler.dense.weight"][channels][:, channels]
    assert torch.equal(ours["model.bert.pooler.dense.weight"], pooler)


def test_what_weighs_nothing_goes(tmp_path: Path) -> None:
    """Of heads and neurons each layer loses its own, of channels all lose the same."""
    model = loaded(classifier(tmp_path / "model", 2))
    bert: Any = model.network.model
    dead: dict[str, Any] = {"heads": [(1, 3), (0, 1)], "neurons": [range(0, 48, 2), range(1, 48, 2)]}
    with torch.no_grad():
        for number, layer in enumerate(bert.bert.encoder.layer):
            for head in dead["heads"][number]:
                rows = slice(8 * head, 8 * head + 8)
                for name in ("query", "key", "value"):
                    part = getattr(layer.attention.self, name)
                    part.weight[rows], part.bias[rows] = 0, 0
                layer.attention.output.dense.weight[:, rows] = 0
            neurons = list(dead["neurons"][number])
            layer.intermediate.dense.weight[neurons], layer.intermediate.dense.bias[neurons] = 0, 0
            layer.output.dense.weight[:, neurons] = 0
    kept = config_of(student("layers:2,width:16", model)).kept
    assert kept["heads"] == [[0, 2], [2, 3]]
    assert kept["neurons"] == [[*range(1, 48, 2)], [*range(0, 48, 2)]]
    channels = list(range(3, 19))
    with torch.no_grad():
        for value in bert.bert.embeddings.parameters():  # tables and a layer norm: the last dimension is the channels
            value[..., channels] = 0
    kept = config_of(student("layers:2,width:16", model)).kept
    assert not {*channels} & {*kept["channels"]}


def test_as_wide_as_its_teacher_is_the_cut_alone(tmp_path: Path) -> None:
    model = loaded(classifier(tmp_path / "model", 2))
    assert same(student("layers:2,width:32", model), student("layers:2", model))


def test_which_stay_is_printed(tmp_path: Path) -> None:
    model = loaded(classifier(tmp_path / "model", 3))
    made = student("layers:0,2,width:8", model)
    kept = config_of(made).kept
    assert made.notes[0].startswith("student layers:0,2,width:8: layers 0, 2 of the 3 of hf:")
    assert (
        "1 of 4 heads and 12 of 48 neurons a layer, and 8 of 32 channels stay, those with the largest" in made.notes[1]
    )
    assert f"of layer 0 the heads {kept['heads'][0][0]}; of layer 2 the heads {kept['heads'][1][0]};" in made.notes[1]
    again = student("layers:2,width:8", made)
    assert same(again, made)
    assert "kept" not in config_of(again).to_diff_dict()


def test_layers_of_another_kind_are_drawn_or_refused(tmp_path: Path) -> None:
    """ModernBERT's queries, keys and values are one matrix."""
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "max_position_embeddings": 64}
    special = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3}
    config = ModernBertConfig(vocab_size=VOCABULARY, num_hidden_layers=2, **sizes, **special, **FAR)
    model = loaded(hf_model(tmp_path / "model", ModernBertForSequenceClassification(config)))
    with pytest.raises(KdcError, match=r"layers of ModernBertForSequenceClassification narrower: their queries, keys"):
        student("layers:2,width:16", model)
    assert shape_of(student("layers:2,width:16", model, "random").network).width == 16  # type: ignore[arg-type]


def test_an_embedding_of_another_width_keeps_it(tmp_path: Path) -> None:
    """ELECTRA's small ones have a narrower table and a linear layer behind it."""
    from transformers import ElectraConfig, ElectraForSequenceClassification

    torch.manual_seed(0)
    config = ElectraConfig(vocab_size=VOCABULARY, num_hidden_layers=2, embedding_size=16, **FAR, **ENCODER)
    model = loaded(hf_model(tmp_path / "model", ElectraForSequenceClassification(config)))
    network: Any = student("layers:2,width:8", model).network
    assert network.model.electra.embeddings.word_embeddings.weight.shape == (VOCABULARY, 16)
    assert network.model.electra.embeddings_project.weight.shape == (8, 16)
    assert logits_of(student("layers:1,width:8", model)).isfinite().all()
