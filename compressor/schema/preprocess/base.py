"""What all tasks say of how a sample becomes the input of one model."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from compressor.schema.base import Noun
from compressor.schema.tensors import Normalization, TensorSpec

__all__ = ["PixelRange", "Preprocess", "Value"]

Value = Annotated[float, Field(ge=-1e12, le=1e12)]


def _two(value: object) -> object:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("must be two numbers, [black, white]")
    return value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("must be [black, white], with black < white")
    return value


PixelRange = Annotated[tuple[Value, Value], BeforeValidator(_two), AfterValidator(_rising)]
"""Which values of images of more than 8 bits a channel become black and white, 0 and 255."""


class Preprocess(Noun):
    """How a sample of a task becomes the input of a model. `task`: its name in the table of tasks, by which a file says
    which of these classes it holds."""

    task: ClassVar[str]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes, in the order in which its network takes it; "batch" is the first dimension of each."""
        raise NotImplementedError

    @property
    def mask(self) -> str | None:
        """The name of the input that says which tokens count; None where there is none."""
        return next((spec.name for spec in self.inputs if spec.mask), None)

    @property
    def most_tokens(self) -> int | None:
        """The most that a dimension which varies may be, such as tokens; None where none does."""
        return None

    @property
    def size(self) -> int | None:
        """What --input-size (pixels of a side), --max-length (tokens) or --clip-seconds (here milliseconds) say of it;
        None where nothing does."""
        return self.most_tokens

    @property
    def lengths(self) -> tuple[int, ...]:
        """At which lengths of a sample latency is measured, beside that of each sample as long as it is."""
        return ()

    @property
    def seconds(self) -> float | None:
        """How long a sample lasts; None where it does not."""
        return None

    @property
    def described(self) -> str:
        """What the model takes, as "images of 224×224"."""
        raise NotImplementedError

    @property
    def normalization(self) -> Normalization | None:
        """The last step, where it is one that can be built into a model."""
        return None

    @property
    def before(self) -> "Preprocess | None":
        """What is left to do for a model that does the rest itself (`Shipping.front_end`); None where none can."""
        return None

    @property
    def every_token(self) -> int | None:
        """How many values the model answers at each token, where it answers every one; None: a value a class, once a
        sample."""
        return None

    @property
    def read_with(self) -> "PixelRange | None":
        """How the samples that it learned from were read, where that was stated (`Recipe.pixel_range`)."""
        return None

    @property
    def cost(self) -> int:
        """The values of one sample: what time and memory grow with."""
        return sum(spec.values for spec in self.inputs)
