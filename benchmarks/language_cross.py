"""A student of another tokenizer: labels alone, uld and aligned_kd, in bits a byte.

    bible -f gen1:1-rev22:21 > bible.txt          (Debian bible-kjv and bible-kjv-text)
    python -m benchmarks.language_cross --bible bible.txt --work cross [--seed 0 1 2] [--chapters 120]

As benchmarks.language, whose text, recipe and way to go on it shares; smaller, so that it ends on a busy machine. The
teacher reads by byte-level BPE with 800 tokens, the student by Unigram with 400, ▁ for a space. Every arm starts
from the same weights a seed; blocks are cut where both tokenizers end a token, or with labels alone where they are
full, so that steps may differ by a few: they are printed.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.language import ARMS, BLOCK, prepared, recipe, run, told

LABELS = {"name": "cross_entropy"}
CROSS: dict[str, list[dict[str, Any]]] = {
    "labels": [LABELS],
    "uld": [{"name": "uld", "weight": 1.5}, LABELS],
    "aligned_kd": [{"name": "aligned_kd"}, LABELS],
}
TEACHER = {"num_hidden_layers": 4, "hidden_size": 96, "intermediate_size": 264, "num_attention_heads": 4}
STUDENT = {"num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 132, "num_attention_heads": 4}
VOCABULARY, OTHER = 800, 400


def other_tokenizer(work: Path) -> None:
    """The student's: Unigram, as T5 and ALBERT have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = [json.loads(line)["text"] for line in (work / "kjv.jsonl").read_text(encoding="utf-8").splitlines()]
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<|end|>"]
    trainer = trainers.UnigramTrainer(vocab_size=OTHER, unk_token="<unk>", special_tokens=special, show_progress=False)
    made.train_from_iterator(texts, trainer)
    folder = work / "student-drawn"
    config = json.loads((folder / "config.json").read_text())
    ids = {"vocab_size": made.get_vocab_size(), "bos_token_id": 1, "eos_token_id": 1}
    (folder / "config.json").write_text(json.dumps(config | ids))
    (folder / "tokenizer.json").write_text(made.to_str())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bible", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--chapters", type=int, default=120, help="the first of them alone")
    parser.add_argument("--teacher-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="of a student")
    parser.add_argument("--labelled", type=float, default=0.25, help="the share of the documents that it learns from")
    asked = parser.parse_args()
    work = asked.work
    if not (work / "kjv.jsonl").exists():
        prepared(work, asked.bible, asked.chapters, TEACHER, STUDENT, VOCABULARY)
        other_tokenizer(work)
    data = ["--data", f"jsonl:{work / 'kjv.jsonl'}", "--max-length", str(BLOCK)]
    drawn = {name: f"hf:{work / f'{name}-drawn'}" for name in ("teacher", "student")}
    teach = ["teach", "--teacher", drawn["teacher"], "--teacher-init", "random", *data]
    teacher = run(work, "teacher", teach, recipe(ARMS["labels"], asked.teacher_epochs, 3e-3, 0, 1.0))
    print(f"| teacher, {teacher.weights.parameters / 1e6:.2f} M | {told(teacher)} |", flush=True)
    distill = [
        "distill", "--teacher", f"run:{work / 'teacher'}", "--student", drawn["student"], "--student-init", "random",
        *data,
    ]  # fmt: skip
    for seed in asked.seed:
        for arm, losses in CROSS.items():
            student = run(work, f"{arm}-{seed}", distill, recipe(losses, asked.epochs, 3e-3, seed, asked.labelled))
            steps = (student.steps_per_epoch or 0) * asked.epochs
            size = f"{student.weights.parameters / 1e6:.2f} M, {steps} steps"
            print(f"| {arm}, seed {seed}, {size} | {told(student)} |", flush=True)


if __name__ == "__main__":
    main()
