"""What stands between two networks' features and a loss: trained with the student, kept in its checkpoints, and never
exported. Adding a connector is a class and a row of CONNECTORS; `losses.LOSSES` says which one a loss takes.

A connector is called with the pairs of features, the labels and the samples' numbers, and names what the loss takes.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.distill.features.base import Connector, Given, LayerPairs
from compressor.distill.features.token_connectors import SameHeads, SameWidth, Vocabulary
from compressor.errors import KdcError
from compressor.losses.numbers import full
from compressor.models.stages import Layer

__all__ = ["CONNECTORS", "Connector", "LayerPairs"]

CRD_WIDTH = 128
"""Of the embeddings that are compared (Tian et al. 2020, section 4)."""
CRD_NEGATIVES = 4096
"""Rows of the memory that a batch is held against, at most."""
CRD_MOMENTUM = 0.5
"""How much of a remembered embedding stays when its sample comes again, as in the authors' code."""
REVIEW_WIDTH = 64


class Resize(Connector):
    """The larger map of a pair is brought to the smaller one's size, by adaptive average pooling."""

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        pairs = [_same_size(s, t) for s, t in zip(student, teacher, strict=True)]
        return {"student_features": [s for s, _ in pairs], "teacher_features": [t for _, t in pairs]}


class Project(Connector):
    """Maps: the student's go through a 1×1 convolution to the teacher's channels (Romero et al. 2015, arXiv 1412.6550,
    have a regressor there), at the smaller of the two sizes. Tokens, [n, D] or [B, N, D]: through a linear layer."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        self.regressors = nn.ModuleList(_regressor(s, t) for s, t in sides.pairs)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        pairs = self.sized(student, teacher)
        projected = [_projected(self.regressor(number), s.to(full(s))) for number, (s, _) in enumerate(pairs)]
        return {"student_features": projected, "teacher_features": [t for _, t in pairs]}

    def regressor(self, number: int) -> nn.Module:
        """That of a pair."""
        return self.regressors[number]

    def sized(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The pairs, each at one size."""
        return [_same_size(s, t) for s, t in zip(student, teacher, strict=True)]


def _regressor(student: Layer, teacher: Layer) -> nn.Module:
    if student.is_tokens != teacher.is_tokens:
        raise KdcError(f"{student.name} and {teacher.name}: a map and tokens cannot be compared", "name other layers")
    if student.is_tokens:
        return nn.Linear(student.shape[1], teacher.shape[1])
    return nn.Conv2d(student.shape[0], teacher.shape[0], 1)


class ProjectShared(Project):
    """Tokens of all the layers, the embedding among them, go through one linear layer, as TinyBERT has it (Jiao et al.
    2020, arXiv 1909.10351): in a transformer they are all of one width. Maps: through one each."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        if not sides.student[0].is_tokens:
            return
        widths = {(student.shape[-1], teacher.shape[-1]) for student, teacher in sides.pairs}
        if len(widths) > 1:
            raise KdcError("one projector for all layers needs one width in each network", "hint has one a layer")
        self.regressors = self.regressors[:1]

    def regressor(self, number: int) -> nn.Module:
        return self.regressors[min(number, len(self.regressors) - 1)]


class ProjectCoarse(Project):
    """The same of coarse maps, each side half as long as the smaller map's, and 7 at most. Whole, the early stages of a
    large teacher, such as 256×56×56, would cost as much as the student itself, and fill a disk where they are kept."""

    MOST = 7

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        # From the whole maps: those that come here may be coarse already.
        self.sizes = [self.coarse(*pair)[1:] for pair in sides.pairs]

    @classmethod
    def coarse(cls, student: Layer, teacher: Layer) -> tuple[int, ...]:
        sides = zip(student.shape[1:], teacher.shape[1:], strict=True)
        return teacher.shape[0], *(min(-(-min(pair) // 2), cls.MOST) for pair in sides)

    def sized(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        return [(_sized(s, size), _sized(t, size)) for s, t, size in zip(student, teacher, self.sizes, strict=True)]


class ProjectPooled(Connector):
    """Vectors: the student's go through a linear layer to the teacher's width."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        self.regressors = nn.ModuleList(nn.Linear(s.shape[0], t.shape[0]) for s, t in sides.pairs)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        projected = [layer(s.float()) for layer, s in zip(self.regressors, student, strict=True)]
        return {"student_features": projected, "teacher_features": list(teacher)}


class Review(Connector):
    """Attention-based fusion (Chen et al. 2021, arXiv 2104.09044, figure 3): from the last pair to the first, a level
    is fused with what the deeper ones gave, and projected to its teacher's channels."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        self.enter = nn.ModuleList(
            nn.Sequential(nn.Conv2d(s.shape[0], REVIEW_WIDTH, 1, bias=False), nn.BatchNorm2d(REVIEW_WIDTH))
            for s in sides.student
        )
        self.fuse = nn.ModuleList(nn.Conv2d(2 * REVIEW_WIDTH, 2, 1) for _ in sides.student[:-1])
        self.leave = nn.ModuleList(
            nn.Sequential(nn.Conv2d(REVIEW_WIDTH, t.shape[0], 3, padding=1, bias=False), nn.BatchNorm2d(t.shape[0]))
            for t in sides.teacher
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        deeper: Tensor | None = None
        given: list[Tensor] = []
        for level in reversed(range(len(student))):
            fused = self.enter[level](student[level].float())
            if deeper is not None:
                above = F.interpolate(deeper, fused.shape[2:], mode="nearest")
                shares = torch.sigmoid(self.fuse[level](torch.cat([fused, above], 1)))
                fused = fused * shares[:, :1] + above * shares[:, 1:]
            deeper = fused
            given.insert(0, self.leave[level](fused))
        pairs = [_same_size(s, t) for s, t in zip(given, teacher, strict=True)]
        return {"student_features": [s for s, _ in pairs], "teacher_features": [t for _, t in pairs]}


class Attention(Connector):
    """Attention matrices [B, heads, N, N]: averaged over the heads where their numbers differ."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        for s, t in sides.pairs:
            if s.shape[1:] != t.shape[1:]:
                raise KdcError(
                    f"attention matrices of {s.shape[1]} and {t.shape[1]} tokens cannot be compared",
                    "give both networks the same input size, patch size and class tokens",
                )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        pairs = [
            (s, t) if s.shape[1] == t.shape[1] else (s.mean(1, keepdim=True), t.mean(1, keepdim=True))
            for s, t in zip(student, teacher, strict=True)
        ]
        return {"student_features": [s for s, _ in pairs], "teacher_features": [t for _, t in pairs]}


class Contrast(Connector):
    """Embeddings of both networks, and a memory of them for all training samples (Tian et al. 2020, arXiv 1910.10699).

    The negatives of a batch are the remembered embeddings of samples of other classes, drawn anew for each batch; a
    sample without a label takes all others. The memory is part of the checkpoint; what it holds is without gradients.
    """

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        if len(sides.student) > 1:
            raise KdcError(f"crd compares one layer, and `at` names {len(sides.student)}", "leave `at` out")
        # The names of the state on disk, which an interrupted run goes on from.
        self.own = nn.Linear(sides.student[-1].shape[0], CRD_WIDTH)
        self.others = nn.Linear(sides.teacher[-1].shape[0], CRD_WIDTH)
        self.student_memory: Tensor
        self.teacher_memory: Tensor
        self.classes: Tensor
        for name in ("student_memory", "teacher_memory"):
            self.register_buffer(name, F.normalize(torch.randn(sides.samples, CRD_WIDTH)))
        # -2: not seen yet, so that its class is not known.
        self.register_buffer("classes", torch.full((sides.samples,), -2))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        student_embeddings = F.normalize(self.own(student[-1].float()))
        teacher_embeddings = F.normalize(self.others(teacher[-1].float()))
        every = len(self.classes)
        # From torch's generator on the CPU, which each step seeds: the same wherever the step is taken again.
        drawn = torch.randint(every, (CRD_NEGATIVES,)) if every > CRD_NEGATIVES else torch.arange(every)
        drawn = drawn.to(student_embeddings.device, non_blocking=True)
        rows = index.to(student_embeddings.device, non_blocking=True)
        known = labels[:, None] >= 0
        kept_classes = self.classes[drawn]
        negatives = (drawn != rows[:, None]) & (~known | (kept_classes != labels[:, None]))
        given = {
            "student_embeddings": student_embeddings,
            "teacher_embeddings": teacher_embeddings,
            "student_memory": self.student_memory[drawn],
            "teacher_memory": self.teacher_memory[drawn],
            "negatives": negatives,
        }
        if self.training:
            self._remember(rows, student_embeddings.detach(), teacher_embeddings.detach(), labels)
        return given

    @torch.no_grad()
    def _remember(self, rows: Tensor, student_embeddings: Tensor, teacher_embeddings: Tensor, labels: Tensor) -> None:
        for memory, now in ((self.student_memory, student_embeddings), (self.teacher_memory, teacher_embeddings)):
            memory[rows] = F.normalize(CRD_MOMENTUM * memory[rows] + (1 - CRD_MOMENTUM) * now)
        self.classes[rows] = labels


class Exits(Connector):
    """A classifier on each stage but the last (Zhang et al. 2019, arXiv 1905.08094): a 3×3 convolution, pooling, and a
    linear layer."""

    def __init__(self, sides: LayerPairs) -> None:
        super().__init__(sides)
        if len(sides.student) < 2:
            raise KdcError("early exits need a student with at least two stages", "choose another student")
        self.exits = nn.ModuleList(_exit(layer.shape[0], sides.classes) for layer in sides.student[:-1])

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], labels: Tensor, index: Tensor) -> Given:
        return {"exit_logits": [leave(s.float()) for leave, s in zip(self.exits, student[:-1], strict=True)]}


def _exit(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes),
    )  # fmt: skip


def _projected(layer: nn.Module, features: Tensor) -> Tensor:
    """A 1×1 convolution as the matrix product that it is: for maps that lie position after position in memory, as they
    do on CPU, it takes two thirds of the time."""
    if not isinstance(layer, nn.Conv2d):
        projected: Tensor = layer(features)
        return projected
    return F.linear(features.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias).permute(0, 3, 1, 2)


def _same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.ndim < 4:  # tokens, position by position
        if student.shape[:-1] != teacher.shape[:-1]:
            raise KdcError(
                f"student and teacher have {student.shape[-2]} and {teacher.shape[-2]} tokens, which are not the same "
                "ones",
                "losses on logits (kdc losses), or a student with the teacher's tokens",
            )
        return student, teacher
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return _sized(student, size), _sized(teacher, size)


def _sized(features: Tensor, size: Sequence[int]) -> Tensor:
    """Averages of cells; those of one size take half as long when they are called so."""
    height, width, (rows, columns) = *features.shape[2:], size
    if (height, width) == (rows, columns):
        return features
    if height % rows or width % columns:
        return F.adaptive_avg_pool2d(features, (rows, columns))
    return F.avg_pool2d(features, (height // rows, width // columns))


CONNECTORS: Mapping[str | None, type[Connector]] = {
    None: Connector,
    "resize": Resize,
    "project": Project,
    "project_shared": ProjectShared,
    "project_coarse": ProjectCoarse,
    "project_pooled": ProjectPooled,
    "review": Review,
    "attention": Attention,
    "contrast": Contrast,
    "exits": Exits,
    "scores": SameHeads,
    "same_width": SameWidth,
    "vocabulary": Vocabulary,
}
