"""A small bundle of texts for the contract tests: a table of tokens and a head, as ONNX and OpenVINO IR, a tokenizer
and texts; and texts to try tokenizers on."""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
from onnx import TensorProto, helper, numpy_helper

from compressor.schema.bundle import FileEntry, RawFiles, Variant
from compressor.schema.preprocess import TextPreprocess
from compressor.schema.profile import Profile
from compressor.tasks.text_classification.feed import stacked
from compressor.tasks.text_classification.tokenization import TextTokenizer
from tests.targets.tiny_bundle import variant, write_bundle
from tests.tasks.text_classification.kit import tokenizer_json

CLASSES, LONGEST = 4, 24
TEXTS = [
    ("the goal of the match was very good",),
    ("Soup and bread!",),
    ("",),
    ("a rocket \U0001f680 and the moon, " * 20,),
    ("old planet new star they said the launch was in orbit",),
    ("x",),
    ("salt sugar salt " * 3,),
]


@dataclass(frozen=True)
class TextBundle:
    """`folder`: the bundle; `preprocess`: its model's; `logits`: what the model answers to `TEXTS`, from numpy."""

    folder: Path
    preprocess: TextPreprocess
    logits: npt.NDArray[np.float32]
    rows: dict[str, npt.NDArray[np.int64]]


def make_texts(folder: Path, texts: Sequence[tuple[str, ...]] = TEXTS) -> TextBundle:
    tokenizer = TextTokenizer(tokenizer_json(), "here")
    preprocess = TextPreprocess(
        tokenizer=tokenizer.sha256, vocabulary=tokenizer.size, max_length=LONGEST, pair=False, pad_id=0
    )
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.text, encoding="utf-8")
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    rows = padded(tokenizer, texts, preprocess)
    kind = np.dtype([(name, np.int64, (LONGEST,)) for name in rows])
    np.save(folder / "inputs.npy", np.array(list(zip(*rows.values(), strict=True)), kind), allow_pickle=False)
    logits = make_model(folder, tokenizer.size, rows)
    np.save(folder / "reference.npy", logits)
    names = [("onnxruntime-fp32", "onnxruntime", "fp32", "model.onnx"), ("openvino-f32", "openvino", "f32", "f32.xml")]
    variants = tuple(text_variant(folder, *name, preprocess) for name in names)
    bundle = write_bundle(folder, (variant("images", "onnxruntime", "fp32", "model.onnx"),))
    targets = [{"runtime": runtime, "precisions": (precision,)} for _, runtime, precision, _ in names]
    profile = bundle.profile.model_dump() | {"batch": 1, "targets": targets}
    told = bundle.model_copy(
        update={
            "profile": Profile.model_validate(profile),
            "student": bundle.student.model_copy(update={"task": "text-classification", "preprocess": preprocess}),
            "variants": variants,
            "reference": variants[0].name,
            "lengths": (0, 8, LONGEST),
            "sequence_length": 16,
        }
    )
    (folder / "bundle.json").write_text(told.model_dump_json(), encoding="utf-8")
    return TextBundle(folder, preprocess, logits, rows)


def text_variant(
    folder: Path, name: str, runtime: str, precision: str, model: str, preprocess: TextPreprocess
) -> Variant:
    files = [model, *([model.replace(".xml", ".bin")] if model.endswith(".xml") else [])]
    entries = tuple(
        FileEntry(path=path, sha256=hashlib.sha256((folder / path).read_bytes()).hexdigest(),
                  bytes=(folder / path).stat().st_size) for path in files
    )  # fmt: skip
    made = variant(name, runtime, precision, model).model_dump() | {
        "task": "text-classification", "preprocess": preprocess, "inputs": "inputs.npy", "files": entries,
        "reference_logits": "reference.npy", "mask": "attention_mask", "dynamic_batch": True,
        "raw": RawFiles(samples="texts.json", tokenizer="tokenizer.json"),
    }  # fmt: skip
    return Variant.model_validate(made)


def padded(
    tokenizer: TextTokenizer, texts: Sequence[tuple[str, ...]], preprocess: TextPreprocess
) -> dict[str, npt.NDArray[np.int64]]:
    """As training has them, filled up to the model's length."""
    made = {name: values.numpy() for name, values in stacked(tokenizer.encode(texts, LONGEST), preprocess).items()}
    return {name: np.pad(values, ((0, 0), (0, LONGEST - values.shape[1]))) for name, values in made.items()}


def make_model(folder: Path, vocabulary: int, rows: dict[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """The mean of a vector a token, of those that count, times a head; its answers to `rows`, in float64."""
    rng = np.random.default_rng(3)
    table = rng.normal(0, 1, (vocabulary, 8)).astype(np.float32)
    head = rng.normal(0, 1, (8, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Cast", ["attention_mask"], ["counts"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["counts", "last"], ["wide"]),
        helper.make_node("Mul", ["states", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["counts", "tokens"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    weights = [numpy_helper.from_array(values, name) for name, values in (("table", table), ("head", head))]
    weights += [
        numpy_helper.from_array(np.array([axis], np.int64), name) for name, axis in (("last", 2), ("tokens", 1))
    ]
    answers = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])]
    graph = helper.make_graph(nodes, "texts", ports, answers, weights)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(folder / "model.onnx")
    )
    ov.save_model(ov.convert_model(str(folder / "model.onnx")), folder / "f32.xml", compress_to_fp16=False)
    counts = rows["attention_mask"].astype(np.float64)[..., None]
    mean = (table[rows["input_ids"]] * counts).sum(1) / counts.sum(1)
    answer: npt.NDArray[np.float32] = (mean @ head).astype(np.float32)
    return answer


EMOJI = (
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0001f44d\U0001f3fd",
    "\u2764\ufe0f",
    "\U0001f1e9\U0001f1ea",
)
RANGES = ((32, 126), (160, 591), (768, 879), (880, 1279), (1424, 1791), (2304, 2431), (8192, 8303), (12352, 12543),
          (19968, 20991), (44032, 45055), (64256, 64335), (65280, 65519), (0x1F300, 0x1F5FF), (1, 31))  # fmt: skip
AWKWARD = (
    "", " ", "\t\n\r ", "\u3000\u00a0", "[SEP] [CLS] [MASK] [PAD] [UNK]", "<s></s> <mask> <unk>", "\ufeffmark",
    "e\u0301 \u00e9", "\u202eright to left\u202c", "\ufdfa", "A" * 300, "\U0001f680" * 300, "word " * 20_000,
    "x" * 100_000, "a [SEP] <s> word " * 40, "\ufffd\ufffe",
)  # fmt: skip


def many_texts(count: int, seed: int = 0) -> Iterator[str]:
    """Awkward ones first, among them two of 100,000 characters; then lines of this project's pages, pieces of them with
    signs of all kinds in between, and nothing but such signs."""
    rng = random.Random(seed)
    lines = lines_of_pages()
    yield from AWKWARD[:count]
    for number in range(count - len(AWKWARD)):
        real = rng.choice(lines)
        if number % 3 == 0:
            yield real
        elif number % 3 == 1:
            words = real.split()
            for _ in range(rng.randint(1, 4)):
                words.insert(rng.randint(0, len(words)), rng.choice(EMOJI) if rng.random() < 0.4 else signs(rng, 6))
            yield rng.choice(("", " ", "  ")).join(words)
        else:
            yield signs(rng, 60)


def lines_of_pages() -> list[str]:
    """What this project's pages say."""
    pages = [path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parents[2] / "docs").glob("*.md"))]
    return [line for page in pages for line in page.splitlines() if line.strip()]


def signs(rng: random.Random, most: int) -> str:
    made = []
    for _ in range(rng.randint(0, most)):
        low, high = rng.choice(RANGES)
        made.append(chr(rng.randint(low, high)))
    return "".join(made)


def sample_settings(tokenizer: TextTokenizer, **changes: Any) -> dict[str, Any]:
    """What of a model's preprocessing counts for tokens."""
    told = TextPreprocess(tokenizer=tokenizer.sha256, vocabulary=tokenizer.size, **{"max_length": 32, **changes})
    return told.model_dump()
