"""`static:D`: a table of tokens distilled from a teacher, against the arithmetic by hand; trained, kept, refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model, load_run
from compressor.schema.accuracy import accuracy_in
from compressor.schema.student import DataInfo
from compressor.tasks.text_classification.models.static import StaticClassifier, ranked
from compressor.tasks.text_classification.tokenization import TextTokenizer, of_texts, tokenizer_of
from compressor.tasks.text_classification.vocabulary import trimmed
from tests.kit import Ended, Hearing
from tests.shared import made_once
from tests.tasks.text_classification.kit import SPEED, taught, texts, tokenizer_json, write_csv
from tests.tasks.text_classification.test_text_models import NAMES, SAMPLES, TASK, VOCABULARY, classifier, logits, same

Kdc = Callable[..., Ended]
FAST = ("--rounds", 12, "--seconds", 2, "--no-throughput")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(f"hf:{classifier(tmp_path_factory.mktemp('model'), 2)}", task="text-classification")


def student(reference: str, model: LoadedModel | None, init: str = "pretrained") -> LoadedModel:
    made: LoadedModel = TASK.create_student(reference, init, NAMES, None, None, model)
    return made


def table_of(model: LoadedModel) -> np.ndarray[Any, Any]:
    assert isinstance(model.network, StaticClassifier)
    table: np.ndarray[Any, Any] = model.network.table.weight.detach().numpy().astype(np.float64)
    return table


def test_the_table_is_model2vecs(teacher: LoadedModel) -> None:
    """[CLS] token [SEP] through the teacher, one by one; the mean of the last hidden states; scikit-learn's PCA; SIF
    weights by Zipf's law."""
    from sklearn.decomposition import PCA

    bert: Any = teacher.network.model
    vectors = []
    with torch.no_grad():
        for number in range(5, VOCABULARY):
            ids = torch.tensor([[2, number, 3]])
            state = bert.bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            vectors.append(state[0].mean(0).double().numpy())
    pca = PCA(n_components=6, svd_solver="full")
    expected = pca.fit_transform(np.stack(vectors))
    frequency = 1 / np.arange(2, len(vectors) + 2)
    expected *= (1e-4 / (1e-4 + frequency / frequency.sum()))[:, None]
    made = student("static:6", teacher)
    table = table_of(made)
    signs = np.sign((table[5:] * expected).sum(0))
    assert np.allclose(table[5:] * signs, expected, atol=1e-6, rtol=1e-4)
    assert (table[:5] == 0).all()  # [PAD] [UNK] [CLS] [SEP] [MASK]
    share = round(100 * pca.explained_variance_ratio_.sum())
    assert f"a table of {VOCABULARY:,} tokens: what hf:" in made.notes[0]
    assert (
        f"each of {VOCABULARY - 5} tokens alone, its principal components ({share} % of the variance)" in made.notes[0]
    )
    assert same(student("static:6", teacher), made) is False  # the classifier is drawn
    assert (table_of(student("static:6", teacher)) == table).all()


def test_logits_are_those_of_the_mean_over_what_counts(teacher: LoadedModel) -> None:
    made = student("static:4", teacher)
    assert isinstance(made.network, StaticClassifier)
    weight, bias = (part.detach().numpy() for part in (made.network.classifier.weight, made.network.classifier.bias))
    for row, sample in zip(logits(made, SAMPLES), SAMPLES, strict=True):  # filled up to the longest of all
        ids = tokenizer_of(of_texts(made.preprocess)).encode([sample])[0].ids
        assert np.allclose(row.numpy(), weight @ table_of(made)[ids].mean(0) + bias, atol=1e-6)
    nothing = made.network(torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64))
    assert np.allclose(nothing.detach().numpy(), bias)


def test_ranks_leave_out_what_no_text_is_made_of() -> None:
    values = json.loads(tokenizer_json())
    words = values["model"]["vocab"]
    words["[unused7]"] = len(words)
    words["zebra"] = len(words)
    ids = ranked(TextTokenizer(json.dumps(values), "here"))
    assert ids == [*range(5, words["[unused7]"]), words["zebra"]]


def test_a_tokenizer_without_special_tokens_shows_each_token_alone() -> None:
    values = json.loads(tokenizer_json())
    assert TextTokenizer(json.dumps(values), "here").around == ([2], [3])
    values["post_processor"] = None
    assert TextTokenizer(json.dumps(values), "here").around == ([], [])


def test_a_drawn_table_and_what_cannot_be(teacher: LoadedModel) -> None:
    drawn = student("static:8", teacher, "random")
    assert (table_of(drawn) != 0).all()
    assert "its values drawn at random" in drawn.notes[0]
    assert drawn.weights.parameters == VOCABULARY * 8 + 8 * 3 + 3
    for reference, said in {
        "static:33": "has 32 numbers for each of", "static:0": "is not static:D", "static:": "is not static:D",
        "static:x": "is not static:D", "static:8,width:2": "is not static:D",
    }.items():  # fmt: skip
        with pytest.raises(KdcError, match=said):
            student(reference, teacher)
    with pytest.raises(KdcError, match="is distilled from its teacher, and this one is no network"):
        student("static:8", None)
    for reference in ("static:4", "layers:1"):
        with pytest.raises(KdcError, match=r"is made of one transformer, and static:8 of .* is a table of tokens"):
            student(reference, drawn)


def test_another_classifier_on_the_same_table(teacher: LoadedModel) -> None:
    made = student("static:8", teacher)
    again = TASK.create_trainee(made, ("a", "b"), None)
    assert logits(again, SAMPLES).shape == (len(SAMPLES), 2)
    assert (table_of(again) == table_of(made)).all()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        write_csv(folder / "data.csv", texts(240))
        taught(folder, folder / "data.csv")

    return made_once(tmp_path_factory, "texts", make)


def distilling(made: Path, out: Path, *more: object) -> tuple[object, ...]:
    data = f"csv:{made / 'data.csv'}"
    return "distill", "--teacher", f"run:{made / 'teacher'}", "--data", data, "--out", out, *more


def test_a_table_without_unused_tokens_answers_the_same(teacher: LoadedModel) -> None:
    """As `kdc export --trim-vocabulary` leaves it: the table is nearly all of the file."""
    made = student("static:4", teacher)
    rows = [texts for texts in SAMPLES for _ in range(3)]
    splits = [
        Split(
            name, tuple(map(str, range(len(rows)))), np.arange(len(rows)) % 3, rows.__getitem__, np.zeros(1, np.uint64)
        )
        for name in ("train", "validation", "test")
    ]
    info = DataInfo(source="t", fingerprint="t", class_names=NAMES, counts={})
    small, _, told = trimmed(made, Dataset(info, splits[0], splits[1], splits[2]), Hearing())
    assert small.weights.parameters < made.weights.parameters
    assert table_of(small).shape[0] == of_texts(small.preprocess).vocabulary < VOCABULARY
    assert "vocabulary trimmed from" in told
    assert torch.equal(logits(small, SAMPLES), logits(made, SAMPLES))


@pytest.mark.slow
def test_a_table_learns_and_is_a_run_as_any_other(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    """Whole words tell the topic of these texts, so that a mean over them does, too."""
    run = tmp_path / "run"
    ended = kdc(*distilling(made, run, "--student", "static:16", *SPEED, "--epochs", 20))
    assert ended.code == 0, ended.err
    said = " ".join(ended.err.split())
    assert "student static:16: a table of" in said
    model, record = load_run(run)
    assert (record.family, record.architecture) == ("static", "static:16")
    assert accuracy_in(record.test).accuracy > 0.9
    assert isinstance(model.network, StaticClassifier)
    assert record.trained_on is not None
    ended = kdc(
        "predict", "--teacher", f"run:{run}", "--data", f"csv:{made / 'data.csv'}", "--out", tmp_path / "answers.csv"
    )
    assert ended.code == 0, ended.err
    hint = ("--student", "static:16", *SPEED, "--set", "losses=[{name: kd}, {name: hidden_states}]")
    ended = kdc(*distilling(made, tmp_path / "other", *hint))
    assert ended.code == 2
    assert "a table of tokens (static:D) has no layers to compare" in " ".join(ended.err.split())


@pytest.mark.slow
def test_a_table_and_a_narrower_cut_are_exported_and_measured(made: Path, kdc: Kdc, here: Path, tmp_path: Path) -> None:
    """As any other student; of a network that learned from another's states, no projector is in the bundle."""
    states = ("--set", "losses=[{name: kd}, {name: relations}, {name: hidden_states}]")
    for name, student, more in (("table", "static:16", ()), ("narrow", "layers:2,width:16", states)):
        run, bundle = tmp_path / name, tmp_path / f"{name}-bundle"
        assert kdc(*distilling(made, run, "--student", student, *SPEED, "--epochs", 6, *more)).code == 0
        ended = kdc("export", run, "--profile", here, "--out", bundle, *FAST)
        assert (bundle / "report.json").is_file(), ended.err
        reference = np.load(bundle / "eval" / "student_reference.npy")
        for variant in ("onnxruntime-fp32", "openvino-f32"):
            answers = np.load(bundle / "measurements" / f"{variant}.npy")
            assert np.abs(answers - reference).max() < 1e-4, (name, variant)
        weights = load_run(run)[1].weights.parameters
        graph = onnx.load(bundle / "model.onnx").graph
        floats = sum(int(np.prod(each.dims)) for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT)
        assert abs(floats - weights) < 200, "a scale here, an epsilon there"
        assert not [each for each in graph.initializer if sorted(each.dims) == [16, 32] and name == "narrow"]


@pytest.mark.slow
def test_a_table_has_a_default_recipe_of_its_own(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    ended = kdc(*distilling(made, tmp_path / "run", "--student", "static:8"))
    assert ended.code == 0, ended.err
    record = load_run(tmp_path / "run")[1]
    assert record.regime is not None
    assert record.regime.name == "text_static"
    assert record.recipe.optimizer.lr == 0.003
    assert record.recipe.epochs == 30


@pytest.mark.slow
def test_a_table_reads_no_pairs(made: Path, kdc: Kdc, tmp_path: Path) -> None:
    rows = texts(90)
    pairs = [(text, rows[-number][0], topic) for number, (text, topic) in enumerate(rows)]
    data = write_csv(tmp_path / "pairs.csv", pairs, ("sentence1", "sentence2", "label"))
    teacher = taught(tmp_path, data, epochs=1)
    ended = kdc(
        "distill", "--teacher", f"run:{teacher}", "--data", f"csv:{data}", "--student", "static:8", "--out",
        tmp_path / "run", *SPEED,
    )  # fmt: skip
    assert (ended.code, "does not tell the two texts of a pair apart" in " ".join(ended.err.split())) == (2, True)
