"""Recipe: how a student (or a teacher) is trained. Numbers, enums and names that kdc owns; never code."""

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from compressor.schema.base import Noun
from compressor.schema.completion_filters import CompletionFilters
from compressor.schema.on_policy import OnPolicy
from compressor.schema.preprocess import PixelRange
from compressor.schema.provenance import LicenceRule
from compressor.schema.views import Epochs, Share, Views

__all__ = [
    "Ensemble",
    "KeepBy",
    "LossTerm",
    "OnPolicy",
    "Optimizer",
    "Peer",
    "Qat",
    "Recipe",
    "Schedule",
    "Stage",
    "TeacherAnswers",
    "Transfer",
    "Views",
]

# Bounds beyond which a value is a slip, and would end as a network of NaN or as a loop that nobody sees the end of.
Rate = Annotated[float, Field(gt=0, le=100)]
Norm = Annotated[float, Field(gt=0, le=1e9)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Images = Annotated[int, Field(ge=1, le=1_000_000)]
KeepBy = Literal["accuracy", "balanced", "auc", "bits_per_byte"]


class Optimizer(Noun):
    """AdamW (Loshchilov & Hutter 2019). The rate rises linearly for `warmup_epochs`, then falls as `schedule` says to
    `final_lr_share` of `lr`."""

    lr: Rate = 3e-3
    """The highest learning rate."""
    lr_for_batch: Images | None = None
    """The batch size that `lr` is right for; at another it is scaled by the square root of their ratio (Malladi et al.
    2022, arXiv 2205.10287). Null: `lr` is taken as it is."""
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.02
    """Of AdamW, decoupled from the gradient."""
    warmup_epochs: Weight = 0.5
    """Epochs in which the rate rises."""
    final_lr_share: Share = 0.01
    """The share of `lr` that it ends with."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Along half a cosine, or along a line."""
    clip_norm: Norm | None = 5.0
    """The largest norm of the gradients of a step; null: they are not clipped."""


class TeacherAnswers(Noun):
    """How exactly a student sees its teacher's answers, and what one of them takes on disk: all logits, or with `top_k`
    the probabilities of the k most probable classes, the rest's spread evenly over the others; rounded to `dtype`.
    The same holds where they are not kept: what is learned does not depend on the cache."""

    dtype: Literal["float32", "float16"] = "float32"
    """What they are rounded to, and pooled features with them."""
    maps_dtype: Literal["float32", "float16"] = "float16"
    """What coarse maps are rounded to, where a loss (`pkd`) looks at some."""
    top_k: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many of the most probable classes are kept; null: all logits."""


class Schedule(Noun):
    """A weight that changes over the training, from its first step (`from`) to its last (`to`): along a line, or along
    half a cosine (slow at both ends)."""

    from_: Annotated[Weight, Field(alias="from")]
    """The weight at the first step."""
    to: Weight
    """The weight at the last step."""
    shape: Literal["linear", "cosine"] = "linear"
    """How it gets from one to the other."""

    def at(self, progress: float) -> float:
        """The weight when `progress` of the training, 0 to 1, is done."""
        share = progress if self.shape == "linear" else 0.5 * (1 - math.cos(math.pi * progress))
        return self.from_ + (self.to - self.from_) * share


class Transfer(Noun):
    """The transfer set: which training samples the student is shown (Hinton et al. 2015, arXiv 1503.02531)."""

    labelled: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of each class's training samples that keep their label, always the same ones; the others teach through
    the teacher alone."""
    drop_unlabelled: bool = False
    """The others are left out altogether."""
    without: tuple[str, ...] = ()
    """Classes whose samples are all left out of train (section 3)."""
    correct_bias: bool = False
    """After training, fit these classes' biases on validation."""

    @model_validator(mode="after")
    def _consistent(self) -> "Transfer":
        if len(set(self.without)) != len(self.without):
            raise ValueError("names the same class twice in without")
        if self.correct_bias and not self.without:
            raise ValueError("correct_bias fits the biases of the classes in without, which names none")
        return self


class LossTerm(Noun):
    """One row of `losses`: the name of a loss of kdc's table (`kdc losses`), its weight, and its own parameters, such
    as `temperature`."""

    model_config = ConfigDict(extra="allow")

    name: str
    """A loss of `kdc losses`."""
    weight: Annotated[
        Annotated[Weight, Tag("[number]")] | Annotated[Schedule, Tag("[schedule]")],
        Discriminator(lambda value: "[number]" if isinstance(value, (int, float, str)) else "[schedule]"),
    ] = 1.0
    """A number, or a schedule of one."""
    at: Literal["auto", "same_stride"] | tuple[tuple[str, str], ...] = "auto"
    """Where a loss on features looks: auto, stages matched by stride or else by depth; same_stride, stages of equal
    stride alone, and where there are none the loss is left out; or pairs of layers, [the student's, the teacher's],
    each a stage (stage2, stage-1 for the last) or the path of a module."""

    @field_validator("at", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """One message for both spellings."""
        pairs = value if isinstance(value, (list, tuple)) else ()
        well_formed = all(
            isinstance(pair, (list, tuple)) and [type(name) for name in pair] == [str, str] for pair in pairs
        )
        if value not in ("auto", "same_stride") and not (pairs and well_formed):
            raise ValueError("must be auto, same_stride, or pairs of layers: [[the student's, the teacher's], …]")
        return value

    def weight_at(self, progress: float) -> float:
        return self.weight.at(progress) if isinstance(self.weight, Schedule) else self.weight

    @property
    def ever(self) -> bool:
        """Whether it counts at any time."""
        return self.weight_at(0.0) > 0 or self.weight_at(1.0) > 0

    @property
    def parameters(self) -> dict[str, object]:
        """The loss's own parameters, e.g. `{"temperature": 4.0}`."""
        return dict(self.model_extra or {})


class Peer(Noun):
    """A network that is trained along with the student, from which it learns and which learns from it: by the losses on
    the peers' answers (`mutual`, `peer_ensemble`), and by all others that take logits alone. It is not kept."""

    student: str
    """A timm model, as `--student`."""
    init: str = "random"
    """pretrained, random, or the path of a checkpoint, as `--student-init`."""


class Ensemble(Noun):
    """How several teachers answer as one: the weighted mean of their probabilities, or of their logits."""

    of: Literal["probabilities", "logits"] = "probabilities"
    """What the mean is taken of."""
    weights: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] | None = None
    """One a teacher, in the order of the command; null: all the same."""


class Qat(Noun):
    """Quantization-aware distillation: the finished student is trained on for `epochs` under fake quantization, with
    the same losses and views, and without weight decay."""

    epochs: Epochs = 3
    """How long it is trained on."""
    lr_share: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Share of the optimizer's rate."""
    warmup_epochs: Weight = 0.1
    """Epochs in which the rate rises."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """As in the recipe."""
    calibration: Images = 512
    """Training samples that the ranges of its activations are computed from."""


class Stage(Noun):
    """What the student learns before it learns by the recipe's own losses: FitNets' hints, TinyBERT's hidden states.
    All but these keys is the recipe's; views begin again, so that kept predictions serve every stage. What a loss
    trains between two networks goes with its stage; the weights that go on are the last (averaged, with `ema_decay`).
    """

    losses: Annotated[tuple[LossTerm, ...], Field(min_length=1)]
    """Their weighted sum is learned from. They may leave the classifier out."""
    data: Annotated[str, Field(min_length=1)] | None = None
    """Texts that it learns from in place of the training data, as --unlabelled names them; their labels are not
    read."""
    epochs: Epochs
    """Passes over the training data."""
    optimizer: Optimizer | None = None
    """AdamW and a schedule of its own; null: the recipe's, over this stage's epochs."""

    @model_validator(mode="after")
    def _consistent(self) -> "Stage":
        _refuse_twice(self.losses)
        return self


def _refuse_twice(losses: tuple[LossTerm, ...]) -> None:
    names = [term.name for term in losses]
    if len(set(names)) != len(names):
        raise ValueError("names the same loss twice in losses")


class Recipe(Noun):
    """Everything about a training but its data and its models. Student and teacher see the same images.

    `batch_size` samples make a step, whatever the number of processes; each of them takes its share, in `accumulate`
    parts one after the other, which takes less memory. Losses are means over the whole step, over its labelled samples
    where they ask for labels; but BatchNorm sees one part at a time, and relations, and correlations, are those within
    a part."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    """The version of this noun."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of everything that is drawn."""
    epochs: Epochs = 30
    """Passes over the training data."""
    head_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs in which the new classifier trains alone, first."""
    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 128
    """Samples a step, of all processes together."""
    accumulate: Images = 1
    """Parts that a process takes its share in."""
    mode: Literal["offline"] = "offline"
    """The only one: `--teacher` says who teaches."""
    optimizer: Optimizer = Optimizer()
    """AdamW and its schedule."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the averaged weights, which are what is measured and kept; 0: off."""
    keep_by: KeepBy = "accuracy"
    """What the kept epoch is the best by, on a validation split that is large enough to choose on: accuracy, the mean
    recall of the classes, or, for two classes, the area under the ROC curve; of a language model, which has no classes,
    bits_per_byte. Trials of students and of the losses'
    weights before a training are ranked by it, however large the split is."""
    views: Views = Views()
    """The augmentation."""
    teacher_answers: TeacherAnswers = TeacherAnswers()
    """What the student sees of the teacher's predictions."""
    transfer: Transfer = Transfer()
    """Which training samples it sees."""
    crop_pct: Annotated[float, Field(ge=0.1, le=1)] | None = None
    """The share of the resized image that the centre crop keeps; null: as the models' own."""
    pixel_range: PixelRange | None = None
    """The values that become black and white in images of more than 8 bits a channel, e.g. [0, 4095] for 12 bits in 16;
    null: the whole range of their kind."""
    qat: Qat = Qat()
    """Quantization-aware distillation: `--qat`, and the top rung of int8."""
    ensemble: Ensemble = Ensemble()
    """How several teachers answer as one."""
    peers: Annotated[tuple[Peer, ...], Field(max_length=16)] = ()
    """Networks that learn along, for `mutual` and `peer_ensemble`."""
    losses: Annotated[tuple[LossTerm, ...], Field(min_length=1)]
    """Their weighted sum is learned from."""
    licence: LicenceRule = LicenceRule()
    """Which licences teachers, and the weights that the student begins with, may be under. What breaks it is not
    trained, and what was trained fails `kdc check`. A profile may say it, too: both hold then."""
    completions: CompletionFilters = CompletionFilters()
    """Which completions are learned from, of --teacher outputs:FILE.jsonl."""
    on_policy: OnPolicy = OnPolicy()
    """Of language models: in which share of the steps the student writes and the teacher scores it."""
    stages: Annotated[tuple[Stage, ...], Field(max_length=8)] = ()
    """What is learned before, one after the other; the recipe's own losses and epochs are the last stage."""

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.head_epochs >= self.epochs and self.head_epochs:
            raise ValueError("head_epochs must be less than epochs")
        if self.stages and self.peers:
            raise ValueError("peers learn along from the first step, so there are no stages before")
        _refuse_twice(self.losses)
        return self

    @property
    def epochs_in_all(self) -> int:
        """Of all stages."""
        return self.epochs + sum(stage.epochs for stage in self.stages)
