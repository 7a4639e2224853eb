"""The line that counts the data."""

from compressor.data.samples import Dataset
from compressor.distill.trainer import log_sizes
from compressor.tasks.image_classification import open_data
from tests.kit import Hearing


def test_the_line_that_counts_the_data_names_the_first_classes() -> None:
    """Who reads "3 classes" does not see that they are called test, train and val."""
    data, hearing = open_data("digits"), Hearing()
    log_sizes(data, hearing)
    few = data.info.model_copy(update={"class_names": ("blue", "green", "red")})
    log_sizes(Dataset(few, data.train, data.validation, data.test), hearing)
    counts = "train 1,293, validation 145, test 359"
    assert hearing.notes == [
        f"data digits: 10 classes (0, 1, 2, 3, 4, 5 and 4 more); {counts}",
        f"data digits: 3 classes (blue, green, red); {counts}",
    ]
