"""What a bundle keeps of its student tells nothing about the machine that it was made on."""

from pathlib import Path

from compressor.export.identity import without_paths
from compressor.spec.student import UnlabelledInfo
from tests.models.test_models_runs import record, saved


def test_unlabelled_pictures_are_named_without_their_folder(tmp_path: Path) -> None:
    student = record(saved(tmp_path / "run"))
    more = UnlabelledInfo(source="folder:/home/somebody/photos", count=3, fingerprint="0" * 64, left_out_copies=1)
    made = student.model_copy(update={"data": student.data.model_copy(update={"unlabelled": more})})
    public = without_paths(made).data.unlabelled
    assert public == more.model_copy(update={"source": "folder:photos"})
    assert without_paths(student).data.unlabelled is None
