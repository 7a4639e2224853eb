"""Confident errors of a teacher and its student, side by side: questions whose answers stand in the training text.

    python -m benchmarks.closed_book --teacher run:teacher --student run:student --data jsonl:kjv.jsonl
        [--questions FILE.jsonl] [--confident 0.5] [--examples 8]

A question is the beginning of a sentence, its answer the word that follows it in the text: {"prompt": …, "answer": …} a
line. Without --questions, sentences of the King James text, as benchmarks.language has it. What does not stand in the
training split just so, or goes on there in more than one way, is left out and counted. Both models answer greedily from
what they know: an answer is right where it begins with the word. One is sure of it where the mean probability of its
tokens (geometric, the model's own) is `--confident` or more. Student and teacher need no common tokenizer.
"""

import argparse
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

import torch

from compressor.models.references import load_model
from compressor.progress import Silent
from compressor.schema.completions import Completion, Question
from compressor.tasks.causal_lm.documents import Written
from compressor.tasks.causal_lm.generation import answerer
from compressor.tasks.causal_lm.opening import documents_of
from compressor.tasks.table import task_named

KJV = """
In the beginning God created the|heaven
And God said, Let there be light: and there was|light
And the evening and the morning were the first|day
And the LORD God formed man of the dust of the|ground
And the LORD God planted a garden eastward in|Eden
Now the serpent was more subtil than any beast of the|field
And Adam called his wife's name|Eve
And Abel was a keeper of sheep, but Cain was a tiller of the|ground
And all the days of Methuselah were nine hundred sixty and nine|years
But Noah found grace in the eyes of the|LORD
And the rain was upon the earth forty days and forty|nights
Cursed be Canaan; a servant of servants shall he be unto his|brethren
Now the LORD had said unto Abram, Get thee out of thy|country
But the men of Sodom were wicked and sinners before the LORD|exceedingly
And Melchizedek king of Salem brought forth bread and|wine
But his wife looked back from behind him, and she became a pillar of|salt
And Abraham called the name of his son that was born unto him, whom Sarah bare to him,|Isaac
And Esau said to Jacob, Feed me, I pray thee, with that same red|pottage
And Jacob served seven years for|Rachel
And Leah conceived, and bare a son, and she called his name|Reuben
Now Israel loved Joseph more than all his|children
And Joseph was brought down to|Egypt
Now there arose up a new king over Egypt, which knew not|Joseph
Now Moses kept the flock of Jethro his father in|law
And God said unto Moses, I AM THAT I|AM
Honour thy father and thy|mother
And Deborah, a|prophetess
And Moses was an hundred and twenty years old when he|died
And Nadab and Abihu, the sons of|Aaron
And the LORD opened the mouth of the|ass
Hear, O Israel: The LORD our God is one|LORD
And Joshua the son of|Nun
And the LORD said unto Cain, Where is Abel thy|brother
And Samson went down to|Timnath
And Ruth said, Intreat me not to leave|thee
And the child Samuel ministered unto the LORD before|Eli
And David said to Saul, Let no man's heart fail because of|him
So David prevailed over the Philistine with a sling and with a|stone
And David said unto Jonathan, Behold, to morrow is the new|moon
And Nathan said to David, Thou art the|man
"""
MOST = 6
"""Tokens of an answer."""


class Answered(NamedTuple):
    """What a model said: the text, whether it is right, and the geometric mean of its tokens' probabilities."""

    text: str
    right: bool
    likelihood: float


def questions_of(path: Path | None) -> list[tuple[str, str]]:
    if path is None:
        return [tuple(line.split("|")) for line in KJV.strip().splitlines()]  # type: ignore[misc]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(row["prompt"], row["answer"]) for row in rows]


def known(questions: list[tuple[str, str]], texts: list[str]) -> list[tuple[str, str]]:
    """Those whose prompt stands in the texts, and is followed by nothing but its answer there."""
    kept = []
    for prompt, answer in questions:
        follows = {word for text in texts for word in re.findall(re.escape(prompt) + r"\s*(\w+)", text)}
        if follows == {answer}:
            kept.append((prompt, answer))
    return kept


def is_right(text: str, answer: str) -> bool:
    """Whether an answer begins with that word."""
    words = re.findall(r"\w+", text)
    return bool(words) and words[0].casefold() == answer.casefold()


def answered(reference: str, questions: list[tuple[str, str]]) -> list[Answered]:
    answer = answerer(load_model(reference, None, "causal-lm"), torch.device("cpu"))
    made = []
    for prompt, word in questions:
        said: Completion = answer(Question(prompt=prompt, mode="text", temperature=0, max_tokens=MOST))
        likelihood = 0.0 if said.log_likelihood is None else math.exp(said.log_likelihood)
        made.append(Answered(said.completion.strip(), is_right(said.completion, word), likelihood))
    return made


def table(
    questions: list[tuple[str, str]], teacher: list[Answered], student: list[Answered], confident: float, most: int
) -> list[str]:
    """Both side by side: counts, then questions that either answers wrong and is sure of, the surest first."""

    def sure(row: Answered) -> bool:
        return not row.right and row.likelihood >= confident

    lines = ["| | teacher | student |", "| --- | ---: | ---: |"]
    sides = (teacher, student)
    for name, counts in (
        ("right", [sum(row.right for row in side) for side in sides]),
        (f"wrong, and sure of it (at {confident:g} or more)", [sum(map(sure, side)) for side in sides]),
        ("wrong, and not sure", [sum(not row.right and not sure(row) for row in side) for side in sides]),
    ):
        lines.append(f"| {name}, of {len(questions)} | {counts[0]} | {counts[1]} |")
    both = sum(sure(ours) and sure(theirs) for ours, theirs in zip(student, teacher, strict=True))
    same = sum(
        sure(ours) and sure(theirs) and ours.text == theirs.text for ours, theirs in zip(student, teacher, strict=True)
    )
    lines += [f"| both wrong and sure; with the same words | {both} | {same} |", ""]
    rows = sorted(
        (row for row in zip(questions, teacher, student, strict=True) if sure(row[1]) or sure(row[2])),
        key=lambda row: -max(side.likelihood for side in row[1:] if sure(side)),
    )
    lines += [
        "| question | answer | teacher | likelihood | student | likelihood |",
        "| --- | --- | --- | ---: | --- | ---: |",
    ]
    for (prompt, word), theirs, ours in rows[:most]:
        cells = [f"{'' if side.right else 'wrong: '}{side.text} | {side.likelihood:.2f}" for side in (theirs, ours)]
        lines.append(f"| …{prompt[-45:]} | {word} | {cells[0]} | {cells[1]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--confident", type=float, default=0.5)
    parser.add_argument("--examples", type=int, default=8)
    asked = parser.parse_args()
    asking = questions_of(asked.questions)
    data = task_named("causal-lm").open_data(asked.data, progress=Silent())
    texts = [document.text for document in documents_of(data.train) if isinstance(document, Written)]
    questions = known(asking, texts)
    print(f"{len(questions)} of {len(asking)} questions: the others do not stand in the training text just so\n")
    sides = [answered(reference, questions) for reference in (asked.teacher, asked.student)]
    print("\n".join(table(questions, sides[0], sides[1], asked.confident, asked.examples)))


if __name__ == "__main__":
    main()
