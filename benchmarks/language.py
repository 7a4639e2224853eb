"""What distillation gains on a language model: labels alone, divergences, what the teacher writes, in bits a byte.

    bible -f gen1:1-rev22:21 > bible.txt          (Debian bible-kjv and bible-kjv-text)
    python -m benchmarks.language --bible bible.txt --work language [--seed 0 1 2] [--arm labels kd jsd] [--chapters 60]

A chapter of the King James text is a document. The teacher, a Llama of 4 layers and 3.7 M parameters with a vocabulary
of 2,000, is taught on the training chapters; the students, of 2 layers and 0.66 M, learn from 5 % of them, each arm
from the same start for as many steps. `sequence` learns from no chapter itself: from what the teacher writes after the
first words of each training chapter, drawn at temperature 1. What is finished is not trained again, what was
interrupted goes on, and after `--minutes` nothing new is begun: so it runs in slices.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compressor.progress import Silent
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.base import read_json
from compressor.schema.student import Student
from compressor.tasks.table import task_named

ARMS: dict[str, list[dict[str, Any]]] = {
    "labels": [{"name": "cross_entropy"}],
    "kd": [{"name": "kd", "temperature": 1.0}],
    "half": [{"name": "kd", "temperature": 1.0, "weight": 0.5}, {"name": "cross_entropy", "weight": 0.5}],
    "jsd": [{"name": "jsd", "beta": 0.5}],
    "reverse_kl": [{"name": "reverse_kl"}],
}
SEQUENCE = "sequence"
WORDS, WRITTEN = 16, 128
"""Of a chapter's start, which the teacher goes on with for so many tokens."""
VOCABULARY, BLOCK, BATCH = 2000, 128, 16
TEACHER = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 8}
STUDENT = {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4}
VERSE = re.compile(r"^([1-3]?[A-Za-z]+?)(\d+):(\d+) (.*)$")


def chapters(text: str) -> Iterator[str]:
    """The verses of each chapter, joined."""
    key, verses = ("", ""), list[str]()
    for line in text.splitlines():
        match = VERSE.match(line.strip())
        if match is None:
            continue
        if (match[1], match[2]) != key and verses:
            yield " ".join(verses)
            verses = []
        key = match[1], match[2]
        verses.append(match[4].strip())
    if verses:
        yield " ".join(verses)


def prepared(
    work: Path, bible: Path, count: int | None, teacher: dict[str, int] = TEACHER, student: dict[str, int] = STUDENT,
    vocabulary: int = VOCABULARY,
) -> None:  # fmt: skip
    """The documents (`count`: the first of them alone), a tokenizer that is trained on them, and the configurations of
    both models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    work.mkdir(parents=True, exist_ok=True)
    documents = list(chapters(bible.read_text(encoding="utf-8")))
    if len(documents) < 1000:
        raise SystemExit(f"{bible} holds {len(documents)} chapters: make it by `bible -f gen1:1-rev22:21`")
    documents = documents[:count]
    (work / "kjv.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(documents, trainer)
    for name, sizes in (("teacher", teacher), ("student", student)):
        folder = work / f"{name}-drawn"
        folder.mkdir(exist_ok=True)
        config = {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": vocabulary,
            "max_position_embeddings": 2 * BLOCK, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0,
            **sizes,
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "tokenizer.json").write_text(tokenizer.to_str())
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))


def recipe(losses: list[dict[str, Any]], epochs: int, lr: float, seed: int, labelled: float) -> dict[str, Any]:
    """As the plain loop had it: AdamW, weight decay 0.1, 50 steps of warm-up, a cosine to a tenth."""
    return {
        "seed": seed, "epochs": epochs, "batch_size": BATCH, "losses": losses, "ema_decay": 0.0,
        "optimizer": {
            "lr": lr, "lr_for_batch": None, "weight_decay": 0.1, "warmup_epochs": 0.1 * epochs, "schedule": "cosine",
            "final_lr_share": 0.1, "clip_norm": 1.0,
        },
        "transfer": {"labelled": labelled, "drop_unlabelled": labelled < 1},
    }  # fmt: skip


def run(work: Path, name: str, command: list[str], asked: dict[str, Any]) -> Student:
    """Train, or go on with, what lies in `work`/`name`."""
    out, file = work / name, work / f"{name}.yaml"
    if not (out / "student.json").exists():
        file.write_text(json.dumps(asked))
        resume = ["--resume"] if (out / "run.json").exists() else []
        line = [sys.executable, "-m", "compressor", *command, "--recipe", str(file), "--out", str(out), *resume]
        subprocess.run(line, check=True)
    return read_json(out / "student.json", Student)


def completions(work: Path, data: str) -> Path:
    """What the teacher writes after the first words of each training chapter."""
    file, prompts = work / "completions.jsonl", work / "prompts.jsonl"
    if not prompts.exists():
        train = task_named("causal-lm").open_data(data, progress=Silent()).train
        starts = [" ".join(train.read(row).text.split()[:WORDS]) for row in range(len(train))]
        prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in starts))
    line = [
        sys.executable, "-m", "compressor", "predict", "--teacher", f"run:{work / 'teacher'}", "--data",
        f"jsonl:{prompts}", "--mode", "text", "--temperature", "1", "--max-tokens", str(WRITTEN), "--seed", "0",
        "--licence", "none", "--resume", "--out", str(file),
    ]  # fmt: skip
    subprocess.run(line, check=True)
    return file


def told(record: Student) -> str:
    score = record.test
    assert isinstance(score, BitsPerByte)
    return f"{score.bits_per_byte:.3f} [{score.low:.3f}–{score.high:.3f}], perplexity {score.perplexity:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bible", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arm", nargs="+", choices=[*ARMS, SEQUENCE], default=["labels", "kd", "jsd", SEQUENCE])
    parser.add_argument("--teacher-epochs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12, help="of a student: some 21 steps each")
    parser.add_argument("--sequence-epochs", type=int, default=3, help="of one that learns from completions")
    parser.add_argument("--chapters", type=int, help="the first of them alone, for a try")
    parser.add_argument("--minutes", type=float, default=1e9)
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    if not (asked.work / "kjv.jsonl").exists():
        prepared(asked.work, asked.bible, asked.chapters)
    data = ["--data", f"jsonl:{asked.work / 'kjv.jsonl'}"]
    drawn = {name: f"hf:{asked.work / f'{name}-drawn'}" for name in ("teacher", "student")}
    teach = ["teach", "--teacher", drawn["teacher"], "--teacher-init", "random", "--max-length", str(BLOCK), *data]
    teacher = run(asked.work, "teacher", teach, recipe(ARMS["labels"], asked.teacher_epochs, 2e-3, 0, 1.0))
    print(f"| teacher, {teacher.weights.parameters / 1e6:.2f} M | {told(teacher)} |", flush=True)
    distill = ["distill", "--student", drawn["student"], "--student-init", "random", "--max-length", str(BLOCK), *data]
    for seed in asked.seed:
        for arm in asked.arm:
            if time.monotonic() > until and not (asked.work / f"{arm}-{seed}" / "student.json").exists():
                continue
            name, taught = f"{arm}-{seed}", f"run:{asked.work / 'teacher'}"
            wanted = recipe(ARMS.get(arm, ARMS["labels"]), asked.epochs, 3e-3, seed, 0.05)
            if arm == SEQUENCE:
                taught = f"outputs:{completions(asked.work, data[1])}"
                wanted = recipe(ARMS["labels"], asked.sequence_epochs, 3e-3, seed, 1.0)
                wanted["completions"] = {"cut_off": False}
            student = run(asked.work, name, [*distill, "--teacher", taught], wanted)
            steps = (student.steps_per_epoch or 0) * wanted["epochs"]
            size = f"{student.weights.parameters / 1e6:.2f} M, {steps} steps"
            print(f"| {arm}, seed {seed}, {size} | {told(student)} |", flush=True)


if __name__ == "__main__":
    main()
