"""What a bundle keeps of its student tells nothing about the machine that it was made on."""

from pathlib import Path

from compressor.export.bundle.identity import without_paths
from compressor.schema.recipe import Peer
from compressor.schema.student import UnlabelledInfo
from tests.models.test_models_runs import record, saved


def test_unlabelled_images_are_named_without_their_folder(tmp_path: Path) -> None:
    student = record(saved(tmp_path / "run"))
    more = UnlabelledInfo(source="folder:/home/somebody/photos", count=3, fingerprint="0" * 64, left_out_copies=1)
    made = student.model_copy(update={"data": student.data.model_copy(update={"unlabelled": more})})
    public = without_paths(made).data.unlabelled
    assert public == more.model_copy(update={"source": "folder:photos"})
    assert without_paths(student).data.unlabelled is None


def test_teachers_of_an_ensemble_and_peers_are_named_without_their_folders(tmp_path: Path) -> None:
    student = record(saved(tmp_path / "run"))
    several = student.weights.model_copy(
        update={"source": "run:/home/somebody/a + hf:owner/name + timm:resnet18@/home/somebody/b.pth"}
    )
    peers = (Peer(student="timm:local-dir:/home/somebody/net", init="/home/somebody/w.pth"),)
    recipe = student.recipe.model_copy(update={"peers": peers})
    public = without_paths(student.model_copy(update={"teacher": several, "recipe": recipe}))
    assert public.teacher is not None
    assert public.teacher.source == "run:a + hf:owner/name + timm:resnet18@b.pth"
    assert public.recipe.peers == (Peer(student="timm:local-dir:net", init="w.pth"),)
    assert "/home" not in public.model_dump_json()
