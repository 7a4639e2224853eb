"""Student: what `kdc distill` (and `kdc teach`) leaves on disk beside the weights, RUN/student.json."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.accuracy import Accuracy, Gain, LostClass
from compressor.schema.base import Noun
from compressor.schema.class_names import ClassNames
from compressor.schema.preprocess import OfTask, TaskName
from compressor.schema.quantization import Quantization, Scheme
from compressor.schema.race import LossRace, Race, RaceRequest
from compressor.schema.recipe import Recipe

__all__ = [
    "Accuracy",
    "Columns",
    "Confusion",
    "DataInfo",
    "Environment",
    "LostClass",
    "Regime",
    "Request",
    "Softened",
    "Specialty",
    "Student",
    "TeacherCard",
    "UnlabelledInfo",
    "Weights",
    "trained_anew",
]


class Weights(Noun):
    """Whose weights these are. `source` as the user typed it; `sha256` over names, shapes and bytes of the tensors,
    whatever file they lay in; `licence` as timm or Hugging Face metadata say, or "unknown".

    What a teacher answers also depends on how it sees images, and on which of its outputs is which class of the data:
    `preprocess_sha256` and `classes_sha256` say that, and are null where it did not matter. The same weights answer
    otherwise in another network, too, of other activations or attention heads: `probe` is what it answered to one drawn
    image, the first logits.

    Of a teacher that is a table of answers, `source` "outputs:FILE": `sha256` is over what the table says, it has 0
    `parameters`, and the rest is as the table tells of its model, or "unknown"."""

    source: str
    architecture: str
    sha256: str
    licence: str
    parameters: int
    preprocess_sha256: str | None = None
    classes_sha256: str | None = None
    probe: tuple[float, ...] = ()

    @property
    def identity(self) -> str:
        """All that its answers depend on, in one text. The probe is coarse in it: another machine's last digits are
        others."""
        largest = max(map(abs, self.probe), default=0.0) or 1.0
        coarse = [round(10 * value / largest) for value in self.probe]
        return f"{self.sha256} {self.preprocess_sha256} {self.classes_sha256} {coarse}"

    def changed_from(self, before: "Weights") -> str | None:
        """What makes these answer otherwise than `before`, as "its weights differ"; None where nothing does."""
        parts = {"weights": "sha256", "preprocessing": "preprocess_sha256", "classes": "classes_sha256"}
        changed = [name for name, key in parts.items() if getattr(self, key) != getattr(before, key)]
        if not changed and not _alike(self.probe, before.probe):
            return "its answers differ, with the same weights: its configuration is another"
        if changed in (["preprocessing"], []):
            return "its preprocessing differs" if changed else None
        return f"its {' and '.join(changed)} differ"


def _alike(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two answers are the same but for rounding."""
    most = 0.01 * max(map(abs, first), default=0.0)
    return len(first) == len(second) and all(abs(a - b) <= most for a, b in zip(first, second, strict=True))


class UnlabelledInfo(Noun):
    """Images without labels that joined the training split. `fingerprint`: sha256 over what they show.
    `left_out_copies`: how many more there were whose content the data holds already. `skipped`: as of the data."""

    source: str
    count: int
    fingerprint: str
    left_out_copies: int
    skipped: tuple[str, ...] = ()


class DataInfo(Noun):
    """Which data. `fingerprint`: sha256 over class names, and the split, label and pixels of every sample; names,
    places and formats of files are not in it. `notes`: what was split off, and how, and what makes figures worth less.
    `skipped`: images that could not be read and that --skip-bad left out. `counts` and `fingerprint` are of the
    labelled data alone, whether or not `unlabelled` images joined it."""

    source: str
    fingerprint: str
    class_names: ClassNames
    counts: dict[str, int]
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    unlabelled: UnlabelledInfo | None = None


class Softened(Noun):
    """A teacher's answers at a temperature, in the mean over samples: entropy in nats, and the probability of the
    class that is the most probable."""

    temperature: float
    entropy: float
    confidence: float


class Confusion(Noun):
    """`count` of the `n` samples of a class were taken for another."""

    label: str
    taken_for: str
    count: int
    n: int


class TeacherCard(Noun):
    """What a teacher's answers to the validation split are like: `stats.teacher_card` says how it is computed.

    `calibration_error`: the expected calibration error in 15 bins of equal width. `evenness`: how far apart the wrong
    classes' logits lie, over the right one's lead; null for fewer than three classes. Both are null, and `softened` is
    empty, where the answers are bare labels. `temperature`: the one that a rule of thumb suggests, and `why`.
    `not_finite`: samples whose logits are not finite numbers; they count as wrong, and for nothing else.
    """

    accuracy: Accuracy
    not_finite: int
    calibration_error: float | None
    softened: tuple[Softened, ...]
    confused: tuple[Confusion, ...]
    evenness: float | None
    temperature: float
    why: str


class Environment(Noun):
    """Where it was made: versions and machine, without names or paths."""

    kdc: str
    python: str
    packages: dict[str, str]
    platform: str
    cpu: str
    device: str


class Specialty(Noun):
    """What a specialist knows (Hinton, Vinyals & Dean 2015, arXiv 1503.02531, sec. 5): `classes` one by one, and all
    others as one class, `dustbin`. Its training data has all samples of its classes, and so many of the others that
    they make up `share` of it; in the whole training data they make up `natural_share`."""

    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    dustbin: str
    share: Annotated[float, Field(gt=0, lt=1)]
    natural_share: Annotated[float, Field(gt=0, lt=1)]

    @property
    def correction(self) -> float:
        """What to add to the dustbin's logit: the log of the proportion by which the specialist's own classes were
        oversampled against it (sec. 5.1). By Bayes' rule the answers then hold for data as it comes."""
        odds = [share / (1 - share) for share in (self.natural_share, self.share)]
        return math.log(odds[0] / odds[1])


class Regime(Noun):
    """Which default recipe was taken (`name`, of distill/regimes/), and `why`: by the training `images`, those of them
    that are `labelled`, and what the student begins with. `overrides`: the keys of the recipe that the user
    gave, which it does not touch. `validation`: samples to tell by how its losses are best weighed; `arms`: what is
    tried for that, its own weights first; empty: nothing is tried. `views`: which it shows, the same ones again or new
    ones, and why; null where it did not have to be settled."""

    name: str
    why: str
    images: int
    labelled: int
    overrides: tuple[str, ...] = ()
    validation: int | None = None
    arms: tuple[str, ...] = ()
    views: str | None = None


class Columns(Noun):
    """Which columns of a table hold what: `text`, one, or two of a pair; `label`. Empty: those that are known by their
    names."""

    text: Annotated[tuple[str, ...], Field(max_length=2)] = ()
    label: str | None = None


class Request(Noun):
    """RUN/run.json, written first: what was asked for, wholly resolved. `task`: what is learned (tasks.table).
    `--resume` continues only the same request. References (`teacher`, `student`, `data`, `unlabelled`) are as
    typed; `other_teachers`: of an ensemble, whose first is `teacher`. `init`: where the trained network starts
    from, "pretrained", "random" or the path of a checkpoint; `student` is null for teach, which trains the teacher
    itself. `qat`: how the student learns to round, after it was trained in float: by the same command, in
    RUN/float, or in the run that `init` names, "run:DIR". `specialty`: the classes that a specialist is taught, as
    typed; all others become one. `assistants`: models as `student` names them, between teacher and student: each
    learns from the one before, in RUN/assistants/1 …, and the student from the last. `race`: several students of which
    one is to be taken; `student` is null then. `control`: the same student is then trained on labels alone too, in
    RUN/control. `steps_per_epoch`: of such a control, as many as its student's, however few samples have a label; null:
    once through the data. `cut_from`: of a control, whose layers it begins with. `input_size`: pixels of images, the
    most tokens of texts (--max-length), or of sounds the milliseconds that are heard (--clip-seconds). `regime`: where
    `recipe` is a default of `kdc distill`; null where it is the user's own, and for teach.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: TaskName
    command: Literal["teach", "distill"]
    teacher: str
    other_teachers: tuple[str, ...] = ()
    teacher_classes: str | None = None
    student: str | None
    init: str
    data: str
    unlabelled: str | None = None
    skip_bad: bool
    input_size: Annotated[int, Field(ge=8, le=600_000)] | None
    columns: Columns = Columns()
    recipe: Recipe
    regime: Regime | None = None
    qat: Scheme | None = None
    specialty: tuple[str, ...] | None = None
    assistants: tuple[str, ...] = ()
    race: RaceRequest | None = None
    control: bool = False
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    cut_from: str | None = None

    @property
    def raced(self) -> tuple[str, ...]:
        """The students that race, as they are known so far."""
        if self.race is None:
            return ()
        return tuple(contender.student for contender in self.race.contenders) or self.race.named

    @property
    def is_compared(self) -> bool:
        """Whether its model is held against another one sample by sample: a student with a control, and the control."""
        return self.control or self.steps_per_epoch is not None

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return trained_anew(path)


class Student(Noun):
    """A trained model: RUN/student.json, beside its state dict, RUN/student.safetensors.

    `family` "timm": `architecture` is timm's name, and RUN/channels.json says what is left of pruned channels; "hf":
    RUN/hf/config.json describes the network; "static": `architecture` is static:D. Of texts, RUN/hf/tokenizer.json lies
    there, too. `quantization`: of a
    student that was trained under fake quantization; its state dict is then that of the folded network, and its metrics
    are those with fake quantization. `bias_correction`: what was added after training to the biases of classes that
    were left out of it (`Transfer.correct_bias`); the weights have it already. `specialty`: of a specialist.
    `assistants`: through whom the student learned from its teacher, the last of them its own. `teacher_card`: of the
    one it learned from; of a model that `kdc teach` made, its own. `trained_on`: sha256 of RUN/trained_on.npy, which
    says what images its weights have learned from; null in runs of an earlier kdc. `race`: how the student was chosen,
    where several ran; `losses`: how the regime's losses were weighed, where that was tried: `recipe` has what won.
    `steps_per_epoch`: steps of the optimizer; null in runs of an earlier kdc. `gain`: over a
    control, where one was asked for and is trained.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: TaskName
    made_by: Literal["teach", "distill"]
    family: str
    architecture: str
    init: str
    weights: Weights
    class_names: ClassNames
    preprocess: OfTask
    teacher: Weights | None
    data: DataInfo
    recipe: Recipe
    regime: Regime | None = None
    kept_epoch: int
    kept_rule: str
    validation: Accuracy
    test: Accuracy
    teacher_validation: Accuracy | None
    teacher_card: TeacherCard | None = None
    environment: Environment
    quantization: Quantization | None = None
    bias_correction: dict[str, float] | None = None
    specialty: Specialty | None = None
    assistants: tuple[Weights, ...] = ()
    trained_on: str | None = None
    race: Race | None = None
    losses: LossRace | None = None
    steps_per_epoch: int | None = None
    gain: Gain | None = None

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return trained_anew(path)


def trained_anew(path: Path) -> str:
    """The hint for what lies at `path`, in a run or a part of one: RUN/float, RUN/control, RUN/assistants/1,
    DIR/specialists/1, and parts of these."""
    run = path.parent
    while run.parent.name in ("assistants", "specialists") or run.name in ("float", "control"):
        whole = run.parent if run.name in ("float", "control") else run.parent.parent
        if run.name == "control" and not (whole / "run.json").exists():  # a folder that somebody called so
            break
        run = whole
    return (
        "if another version of kdc made the run, this one trains it anew: the command that made it, with "
        f"--out {run} --overwrite"
    )
