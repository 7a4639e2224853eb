"""Which layers of a deeper transformer teach those of a shallower one."""

from dataclasses import dataclass

from compressor.errors import KdcError

__all__ = ["LayerMap", "even_map"]


@dataclass(frozen=True)
class LayerMap:
    """Pairs (the student's, the teacher's). `hidden`: of hidden states, counted as transformers counts them: 0 is the
    embedding, 1 what comes out of the first block. `attention`: of the blocks' attention, the first block's being 0."""

    hidden: tuple[tuple[int, int], ...]
    attention: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        hidden, attention = (
            ", ".join(f"{student} from {teacher}" for student, teacher in pairs)
            for pairs in (self.hidden, self.attention)
        )
        return f"hidden states {hidden} (0: the embedding); attention {attention} (0: the first block)"


def even_map(student: int, teacher: int) -> LayerMap:
    """TinyBERT's map of a student of so many blocks to a teacher: with `k = teacher / student`, hidden state i learns
    from `i k`, and attention i from `(i + 1) k - 1`, the last block of the k that it stands for.

    Jiao et al. 2020 (arXiv 1909.10351), section 4, the uniform one. Raises KdcError where k is no whole number: which
    layers are left out is then for the user to say.
    """
    if student < 1 or teacher % student:
        raise KdcError(
            f"{student} blocks do not share out the teacher's {teacher} evenly",
            "name the pairs: at: [[stage1, stage1], …]; `embedding` is what the first takes, stage-1 the last",
        )
    k = teacher // student
    return LayerMap(
        tuple((number, number * k) for number in range(student + 1)),
        tuple((number, (number + 1) * k - 1) for number in range(student)),
    )
