"""LanguageBundle: what `kdc export` leaves on disk of a language model, BUNDLE/bundle.json.

bundle.json            this manifest
models/VARIANT/        a folder a variant, as its runtime reads it
eval/                  the validation and test split as blocks of tokens, what they cost torch and the teacher, prompts
runners/               the scripts that run and measure it where kdc is not installed
measurements/          raw samples             report.html, report.md, report.json   made from them
README.md              a model card            junit.xml                the report for a CI
best/                  what ships              SHA256SUMS               every other file; `sha256sum -c` reads it
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.bundle import FileEntry
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.profile import Profile
from compressor.schema.student import Student, Weights

__all__ = ["Answers", "Corpus", "LanguageBundle", "LanguageVariant"]


class LanguageVariant(Noun):
    """One artefact. `model`: the folder that the runner loads, all of whose `files` ship. `role`: reference is the
    student in full precision on the same runtime, where the profile does not ask for it: it runs along and is not
    judged. `made`: how, in one line. `weight_bytes`: the bytes of the stored weights by their type. In int8 and int4
    only the weights are so; all that is computed is in float."""

    name: str
    role: Literal["student", "reference"]
    runtime: str
    precision: str
    runner: str
    model: str
    files: tuple[FileEntry, ...]
    made: str
    weight_bytes: dict[str, int]

    @property
    def size_bytes(self) -> int:
        """Of all the files that ship."""
        return sum(entry.bytes for entry in self.files)


class Corpus(Noun):
    """A split as the student reads it, block behind block, `tokens` in all. Each token of a block but the first is
    asked for, given those before it in its block; what counts is what a score counts (docs/language.md#bits-a-byte).

    `blocks`: an .npz file with `ids` int32 [tokens] and `starts` int64 [blocks + 1]. `documents`: int32 [tokens] in a
    .npy file, of which document a token that counts is, and -1 where it does not. `bytes`: int64 [n], of each
    document's text that counts, in UTF-8. `torch`: float32 [tokens], the natural log-probability that the student gives
    each token in torch in fp32, 0 where it is not asked for. `contents`: sha256 over what the documents say."""

    split: Literal["validation", "test"]
    n: Annotated[int, Field(ge=1)]
    tokens: Annotated[int, Field(ge=2)]
    blocks: str
    documents: str
    bytes: str
    torch: str
    contents: str

    @property
    def files(self) -> tuple[str, ...]:
        return (self.blocks, self.documents, self.bytes, self.torch)


class Answers(Noun):
    """What generation is timed on: `prompts`, a JSON array of `count` arrays of `prompt_tokens` ids, of the validation
    split, to each of which `new_tokens` tokens are generated greedily."""

    prompts: str
    count: Annotated[int, Field(ge=1)]
    prompt_tokens: Annotated[int, Field(ge=1)]
    new_tokens: Annotated[int, Field(ge=2)]


class LanguageBundle(Noun):
    """The manifest. `kdc`: the version that made it. `support` lists the files that are no variant's. `reference`: the
    variant of which a second copy runs along, to tell noise from effects (A/A). `teacher_costs`: float64 [n, 3] in a
    .npy file, what each test document costs the teacher in torch: nats, tokens, bytes, as its own tokenizer cuts them;
    null where there is no teacher that runs. `score_batch`: blocks that a runner scores together, so that their logits
    fit into memory. `most_tokens`: that the model takes; null where nothing says so."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: Literal["causal-lm"] = "causal-lm"
    kdc: str = "unknown"
    profile: Profile
    student: Student
    preprocess: LanguagePreprocess
    teacher: Weights | None
    teacher_costs: str | None
    reference: str
    corpora: Annotated[tuple[Corpus, ...], Field(min_length=2, max_length=2)]
    answers: Answers
    score_batch: Annotated[int, Field(ge=1)]
    most_tokens: int | None
    variants: tuple[LanguageVariant, ...]
    support: tuple[FileEntry, ...]
    notes: tuple[str, ...] = ()

    def corpus(self, split: str) -> Corpus:
        return next(corpus for corpus in self.corpora if corpus.split == split)

    @property
    def used(self) -> tuple[str, ...]:
        """The files of `support` that figures are made from, or that run."""
        eval_files = [path for corpus in self.corpora for path in corpus.files]
        taught = [self.teacher_costs] if self.teacher_costs is not None else []
        return (*eval_files, *taught, self.answers.prompts, *(f"runners/{variant.runner}" for variant in self.variants))

    @property
    def most_bytes(self) -> int:
        """Of what a runner leaves, but for a header."""
        return 4 * max(corpus.tokens for corpus in self.corpora)

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return (
            "if another version of kdc made the bundle, this one makes it anew: "
            f"kdc export RUN --profile NAME --out {path.parent} --overwrite"
        )
