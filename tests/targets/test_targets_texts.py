"""Texts on a device: the same tokens as training and transformers, batches as long as their longest text, latency by
length, and the example programs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from compressor.deploy import write_best
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.measurement import Measurement
from compressor.tasks.text_classification.tokenization import TextTokenizer
from tests.targets.text_bundle import (
    AWKWARD,
    LONGEST,
    TEXTS,
    TextBundle,
    lines_of_pages,
    make_texts,
    many_texts,
    sample_settings,
)
from tests.tasks.text_classification.kit import tokenizer_json

if TYPE_CHECKING:
    from tests.targets.harness import Bench, Environment, LoadScript, StartRunner

TARGETS = Path(__file__).resolve().parents[2] / "targets"
RUNS = [("run_ort.py", "model.onnx", "fp32"), ("run_ov.py", "f32.xml", "f32")]
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TextBundle:
    return make_texts(tmp_path_factory.mktemp("texts") / "bundle")


def on_device(load: "LoadScript", text: str, folder: Path, **settings: Any) -> Any:
    """The tokenizer of the device, with training's tokenizer.json; and that."""
    training = TextTokenizer(text, "here")
    (folder / "tokenizer.json").write_text(training.text, encoding="utf-8")
    return load("text_tokens").Tokenizer(folder / "tokenizer.json", sample_settings(training, **settings)), training


@pytest.mark.parametrize("pair", [False, True])
def test_a_device_makes_the_tokens_of_training(load: "LoadScript", tmp_path: Path, pair: bool) -> None:
    device, training = on_device(load, tokenizer_json(), tmp_path, max_length=12, pair=pair, token_types=2)
    texts = list(many_texts(len(AWKWARD) + 100))
    samples = [(text, other) if pair else (text,) for text, other in zip(texts, reversed(texts), strict=True)]
    whole = training.encode(samples)
    cut = 0
    for sample, expected, untouched in zip(samples, training.encode(samples, 12), whole, strict=True):
        tokens = device.encode(sample)
        assert (list(tokens.ids), list(tokens.types)) == (expected.ids.tolist(), expected.types.tolist())
        assert tokens.cut == (len(untouched.ids) > 12)
        assert tokens.whole == len(untouched.ids)
        cut += tokens.cut
    assert 0 < cut < len(samples)


def other_tokenizers() -> dict[str, tuple[str, dict[str, str]]]:
    """One a family, as BERT, RoBERTa and XLM-R have them, the latter two trained on this project's pages; each fills up
    and cuts texts by its own file. By name: tokenizer.json, and what transformers is told."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    lines = lines_of_pages()[:400]
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    pieces.train_from_iterator(
        lines,
        trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=letters, show_progress=False),
    )
    pieces.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(
        lines,
        trainers.UnigramTrainer(vocab_size=1500, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    unigram.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    for one in (pieces, unigram):
        one.enable_padding(length=64, pad_id=1, pad_token="<pad>")
        one.enable_truncation(48)
    told = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    return {"bert": (tokenizer_json(), SPECIAL), "roberta": (pieces.to_str(), told), "xlm-r": (unigram.to_str(), told)}


def test_a_pair_of_long_texts(load: "LoadScript", tmp_path: Path) -> None:
    """As the library cuts them itself, this takes more memory than there is."""
    device, training = on_device(load, tokenizer_json(), tmp_path, max_length=13, pair=True)
    long, longer = "goal " * 10_000, "soup " * 20_000
    goal, soup = ([training.encode([(word,)])[0].ids[1]] for word in ("goal", "soup"))
    for sample, counts in (((long, longer), (5, 5)), ((longer, long), (5, 5)), (("goal", longer), (1, 9))):
        tokens = device.encode(sample)
        first, second = (goal, soup) if sample[0] != longer else (soup, goal)
        assert list(tokens.ids) == [2, *first * counts[0], 3, *second * counts[1], 3]
        assert training.encode([sample], 13)[0].ids.tolist() == list(tokens.ids)
    wider, _ = on_device(load, tokenizer_json(), tmp_path, max_length=14, pair=True)
    for sample, counts in (((long, longer), (5, 6)), ((longer, long), (6, 5))):
        assert list(wider.encode(sample).types).count(1) == counts[1] + 1


@pytest.mark.slow
def test_ten_thousand_texts_as_transformers_has_them(load: "LoadScript", tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    texts = list(many_texts(10_000))
    assert len(texts) == 10_000
    assert "" in texts
    assert max(map(len, texts)) == 100_000
    for name, (text, special) in other_tokenizers().items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "theirs.json").write_text(text, encoding="utf-8")
        theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "theirs.json"), **special)
        device, _ = on_device(load, text, folder, max_length=32)
        expected = theirs(texts, truncation=True, max_length=32)["input_ids"]
        found = [list(device.encode((one,)).ids) for one in texts]
        differ = [row for row, (ours, other) in enumerate(zip(found, expected, strict=True)) if ours != other]
        assert differ == [], (name, texts[differ[0]][:80])
        assert 1000 < sum(len(ids) == 32 for ids in found) < 9000  # many are cut, and many are not
        short = [text[:600] for text in texts]  # of two long ones, what transformers cuts off takes all memory
        pairs = [[one, other] for one, other in zip(short[:1000], short[1000:2000], strict=True)]
        both = theirs([one for one, _ in pairs], [other for _, other in pairs], truncation=True, max_length=32)
        assert [list(device.encode(pair).ids) for pair in pairs] == both["input_ids"]


def test_a_tokenizer_of_another_model_and_texts_that_are_none(load: "LoadScript", tmp_path: Path) -> None:
    device, _ = on_device(load, tokenizer_json(), tmp_path, pair=False)
    error = load("text_tokens").TextError
    with pytest.raises(error, match="the model takes one text, found 2"):
        device.encode(("a", "b"))
    with pytest.raises(error, match="no text that can be tokenized"):
        device.encode(("half of a pair: \ud83d",))
    (tmp_path / "tokenizer.json").write_text((tmp_path / "tokenizer.json").read_text().replace("goal", "gaol"))
    with pytest.raises(error, match="not the one that the model was trained with"):
        load("text_tokens").Tokenizer(tmp_path / "tokenizer.json", device._preprocess)


@pytest.mark.parametrize(("script", "model", "precision"), RUNS, ids=["onnxruntime", "openvino"])
def test_a_batch_is_as_long_as_its_longest_text(
    made: TextBundle, start: "StartRunner", tmp_path: Path, script: str, model: str, precision: str
) -> None:
    runner = start(script)
    asked = {"mask": "attention_mask", "batch": 2}
    loaded = runner.ask("load", model=str(made.folder / model), threads=1, precision=precision, streams=1)
    assert loaded["ok"], loaded
    told = runner.ask("inputs", path=str(made.folder / "inputs.npy"), distinct=32, **asked)
    assert told == {"ok": True, "distinct": len(TEXTS)}
    assert len(runner.ask("block", n=9)["wall_ms"]) == 9  # of batches of several lengths
    out = tmp_path / "logits.npy"
    assert runner.ask("predict", inputs=str(made.folder / "inputs.npy"), out=str(out), **asked)["n"] == len(TEXTS)
    np.testing.assert_allclose(np.load(out), made.logits, atol=1e-5)
    stated = runner.ask("inputs", path=str(made.folder / "inputs.npy"), distinct=32, length=40, **asked)
    assert stated["ok"], stated
    assert runner.ask("throughput", seconds=0.05)["tokens"] == 2 * 40


def test_records_are_cut_or_repeated_to_a_length(made: TextBundle, load: "LoadScript") -> None:
    ports = [(name, ["batch", "tokens"], "int64") for name in made.rows]
    counts = made.rows["attention_mask"].sum(1)
    for length in (5, 50):
        records = load("runner_records").Records(str(made.folder / "inputs.npy"), "attention_mask", length)
        batch = records.fill(records.new_batch(2, ports), [3, 5])
        for slot, row in enumerate((3, 5)):
            expected = np.resize(made.rows["input_ids"][row, : counts[row]], length)
            np.testing.assert_array_equal(batch["input_ids"][slot], expected)
        assert (batch["attention_mask"] == 1).all()
    records = load("runner_records").Records(str(made.folder / "inputs.npy"), "attention_mask")
    fixed = [(name, ["batch", LONGEST], "int64") for name in made.rows]
    batch = records.fill(records.new_batch(1, fixed), [5])
    assert batch["input_ids"].shape == (1, LONGEST)  # of a model that takes one length alone


def test_the_tokenizer_is_tried_on_the_test_texts(made: TextBundle, start: "StartRunner") -> None:
    runner = start("run_ort.py")
    asked: dict[str, Any] = {
        "task": "text-classification", "samples": str(made.folder / "texts.json"),
        "tokenizer": str(made.folder / "tokenizer.json"),
        "inputs": str(made.folder / "inputs.npy"), "preprocess": made.preprocess.model_dump(),
    }  # fmt: skip
    told = runner.ask("preprocess", **asked)
    assert told["ok"], told
    assert (told["n"], told["differ"], told["cut"]) == (len(TEXTS), 0, 1)
    assert told["lengths"] == made.rows["attention_mask"].sum(1).tolist()
    assert len(told["wall_ms"]) == len(TEXTS)
    shorter = made.preprocess.model_copy(update={"max_length": 10}).model_dump()
    assert runner.ask("preprocess", **{**asked, "preprocess": shorter})["differ"] > 0
    missing = start("run_ort.py", "tokenizers").ask("preprocess", **asked)
    assert (missing["ok"], missing["kind"]) == (False, "missing")
    assert missing["message"].startswith("pip install tokenizers")


@pytest.mark.slow
def test_a_session_has_latency_by_length_and_tries_the_tokenizer(made: TextBundle, bench: "Bench") -> None:
    ended = bench(str(made.folder), "--rounds", "6", "--window", "0.05")
    assert ended.returncode == 0, ended.stderr
    told = read_json(made.folder / "measurements" / "measurement.json", Measurement)
    blocks = {(block.variant, block.length, block.round): block for block in told.by_length}
    assert set(blocks) == {
        (name, length, number)
        for name in ("onnxruntime-fp32", "openvino-f32") for length in (0, 8, LONGEST) for number in range(6)
    }  # fmt: skip
    assert {len(block.wall_ms) for block in told.by_length} == {6}
    assert [(row.n, row.cut, row.differ) for row in told.preprocessing] == [(len(TEXTS), 1, 0)]
    assert {window.tokens for row in told.contestants for one in row.throughput for window in one.windows} == {16.0}
    without = bench(str(made.folder), "--rounds", "2", "--no-throughput", missing="tokenizers")
    assert without.returncode == 0, without.stderr
    assert "no inputs were made of raw samples: pip install tokenizers" in without.stderr
    told = read_json(made.folder / "measurements" / "measurement.json", Measurement)
    assert (told.preprocessing[0].error or "").startswith("pip install tokenizers")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-aarch64-static") is None, reason="qemu-user-static is missing: no aarch64 here")
@pytest.mark.skipif(not os.environ.get("KDC_AARCH64"), reason="KDC_AARCH64 names no folder of examples/aarch64.sh")
def test_fifty_texts_under_emulated_aarch64(tmp_path: Path) -> None:
    """Their tokens, and the logits of ONNX Runtime."""
    made = make_texts(tmp_path / "bundle", [(text,) for text in many_texts(50)])
    (made.folder / "runners").symlink_to(TARGETS)
    command = [
        "bash",
        str(TARGETS.parent / "examples" / "aarch64.sh"),
        str(made.folder),
        os.environ["KDC_AARCH64"],
        "50",
    ]
    environment = {**os.environ, "PYTHON": sys.executable}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    assert "same  onnxruntime-fp32: 50 of 50 samples have the same top-1" in ended.stdout
    assert "50 of 50 have the same tokens there" in ended.stdout


def classified(made: TextBundle, folder: Path, environment: dict[str, str], *arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, str(folder / "best" / "classify.py"), *arguments], env=environment, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["onnxruntime", "openvino"])
def test_the_example_program(made: TextBundle, bare: "Environment", tmp_path: Path, number: int) -> None:
    """Where neither transformers nor torch can be imported."""
    bundle = read_json(made.folder / "bundle.json", Bundle)
    write_best(made.folder, bundle, bundle.variants[number], device="")
    best = made.folder / "best"
    readme = (best / "README.md").read_text()
    assert f"pip install {('onnxruntime', 'openvino')[number]} tokenizers\n    python3 classify.py TEXT\n" in readme
    given = json.loads((best / "preprocess.json").read_text())
    assert (given["max_length"], given["inputs"][0]["name"]) == (LONGEST, "input_ids")
    for (text,), logits in list(zip(TEXTS, made.logits, strict=True))[:4]:
        ended = classified(made, made.folder, bare(), text, "--top", "1")
        assert ended.returncode == 0, ended.stderr
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert ended.stdout == f"{shares.max():7.2%}  {'abcd'[int(logits.argmax())]}\n"
        assert ("which the model reads 24" in ended.stderr) == ("rocket" in text)
    (tmp_path / "text.txt").write_bytes("Soup and bread!".encode("utf-16"))
    wrong = classified(made, made.folder, bare(), str(tmp_path / "text.txt"), "--file")
    assert (wrong.returncode, wrong.stderr) == (2, f"classify.py: {tmp_path / 'text.txt'} is not UTF-8, at byte 0\n")
    two = classified(made, made.folder, bare(), "one", "two")
    assert (two.returncode, two.stderr) == (2, "classify.py: the model takes one text, found 2\n")
    without = classified(made, made.folder, bare("tokenizers"), "text")
    assert without.returncode == 4
    assert without.stderr.startswith("classify.py: pip install ")
