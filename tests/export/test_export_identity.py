"""What a bundle keeps of its student tells nothing about the machine that it was made on."""

from pathlib import Path

from compressor.export.bundle.identity import without_paths
from compressor.schema.race import Contender, LossRace, Race, Trial
from compressor.schema.recipe import Peer
from compressor.schema.report import Estimate
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


def test_whose_losses_were_weighed_is_named_without_its_folder(tmp_path: Path) -> None:
    share = Estimate(value=0.5, low=0.4, high=0.6, n=100, of="validation samples")
    short, long = (
        Trial(
            student="timm:local-dir:/home/somebody/net", arm="labels", epochs=epochs, steps=9, accuracy=share,
            seconds=1.0, inputs={},
        )
        for epochs in (1, 6)
    )  # fmt: skip
    losses = LossRace(
        arms={"labels": {"cross_entropy": 1.0}}, epochs=1, trials=(short,), in_full=(long,), failed={},
        winner="labels", lead=None, reason="it is the only one left",
    )  # fmt: skip
    public = without_paths(record(saved(tmp_path / "run")).model_copy(update={"losses": losses})).losses
    assert public is not None
    assert [trial.student for trial in (*public.trials, *public.in_full)] == ["timm:local-dir:net"] * 2
    assert public.in_full[0].epochs == 6


def test_those_who_raced_are_named_without_their_folders_and_stay_apart(tmp_path: Path) -> None:
    """Two folders of one name, and one whose path begins as another's."""
    a, b, c = (f"timm:local-dir:/home/somebody/{path}" for path in ("a/net", "b/net", "a/net-large/1"))
    share = Estimate(value=0.5, low=0.4, high=0.6, n=100, of="validation samples")
    trials = tuple(
        Trial(student=name, epochs=1, steps=9, accuracy=share, seconds=1.0, inputs={}) for name in (b, a, c, "timm:x")
    )
    race = Race(
        contenders=tuple(Contender(student=name) for name in (a, b, c, "timm:x")), why="named by --students", share=0.5,
        planned=4, rounds=(trials,), failed={c: f"{c} could not learn"}, winner=b, lead=None,
        reason=f"{b} has the highest validation accuracy, against {a}",
    )  # fmt: skip
    public = without_paths(record(saved(tmp_path / "run")).model_copy(update={"race": race})).race
    assert public is not None
    first, second, third = "timm:local-dir:net", "timm:local-dir:net (2)", "timm:local-dir:1"
    assert [contender.student for contender in public.contenders] == [first, second, third, "timm:x"]
    assert [trial.student for trial in public.rounds[0]] == [second, first, third, "timm:x"]
    assert public.winner == second
    assert public.reason == f"{second} has the highest validation accuracy, against {first}"
    assert public.failed == {third: f"{third} could not learn"}
