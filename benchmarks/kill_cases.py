"""The commands that kill_points.py kills, each on something tiny: what it begins with, and what counts as a loss."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.chain_bundle import write_chain_bundle
from benchmarks.kill_points import VERDICTS, Case, killed
from compressor.errors import KdcError
from compressor.files.bundle_folder import NEXT, UNMEASURED, files_of, holds_bundle
from compressor.measure.machine import this_machine
from compressor.report import check, exit_code_for, seal
from compressor.schema.profile import Budget

__all__ = ["cases", "left_in_bundle", "sound_bundle"]

Command = Sequence[object]

QUICK = ("--rounds", 11, "--seconds", 1, "--no-throughput", "--quiet")
TRAINING = (
    "--input-size", 16, "--batch-size", 8, "--quiet", "--set", "crop_pct=1.0", "--set", "optimizer.lr=0.01",
)  # fmt: skip
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
EACH = {"train": 8, "validation": 4, "test": 4}


def sound_bundle(place: Path) -> str | None:
    """The bundle that lies in `place` passes `kdc check`, as the old one or as the new one."""
    try:
        code = exit_code_for(check(place / "bundle"), False)
    except KdcError as error:
        return error.message
    return None if code in VERDICTS else f"kdc check ends with {code}"


def left_in_bundle(place: Path) -> list[str]:
    """What kdc has in the item there, beside the bundle's own files and folders."""
    return [path.name for path in (place / "bundle").rglob(".kdc*")]


def cases(work: Path) -> dict[str, Case]:
    """All of them, by name; what they begin with lies in `work`, made when it is first needed."""
    return {**_trainings(work), **_predictions(work), **_measurements(work), **_exports(work)}


def _done(command: Command, under: Path) -> None:
    ended = killed(command, under, 0)
    assert ended.code in VERDICTS, ended.said


def _colours(work: Path) -> Path:
    """A few images of 8 x 8 px in three classes, and a teacher that knows them; made once."""
    made, rng = work / "colours", np.random.default_rng(0)
    if not made.exists():
        for split, name, number in ((s, n, i) for s, each in EACH.items() for n in COLOURS for i in range(each)):
            path = made / "data" / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.normal(COLOURS[name], 20, (8, 8, 3)).clip(0, 255).astype(np.uint8)).save(path)
        _done((*_teach(work), "--out", made / "teacher"), made)
        _done((*_distill(work), "--out", made / "run"), made)
        _done(("predict", *_of_teacher(work), "--quiet", "--out", made / "table.csv"), made)
    return made


def _of_teacher(work: Path) -> Command:
    return ("--teacher", f"run:{work / 'colours' / 'teacher'}", "--data", f"folder:{work / 'colours' / 'data'}")


def _teach(work: Path) -> Command:
    model = ("--teacher", "timm:test_resnet", "--teacher-init", "random", "--set", "head_epochs=0", "--epochs", 2)
    return ("teach", *model, "--data", f"folder:{work / 'colours' / 'data'}", *TRAINING)


def _distill(work: Path) -> Command:
    """The teacher's answers are kept from the second epoch on."""
    student = ("--student", "timm:test_efficientnet", "--student-init", "random", "--epochs", 3)
    return ("distill", *_of_teacher(work), *student, "--set", "views.distinct=1", *TRAINING)


def _trainings(work: Path) -> dict[str, Case]:
    """Of `teach` and `distill`: where nothing is, gone on with, and over an older finished run of another seed."""
    made: dict[str, Case] = {}
    for name, command, older in (("teach", _teach, "teacher"), ("distill", _distill, "run")):
        cache = () if name == "teach" else ("--teacher-cache", "cache")
        case = _training((*command(work), "--seed", 7), cache, work)
        made[name] = case
        made[f"{name} --resume"] = replace(case, begin=_half(case, work / f"half-{name}"), arguments=case.resume)
        made[f"{name} --overwrite"] = _overwriting(case, work, older)
    made["distill --control"] = _controlled(work)
    return made


def _controlled(work: Path) -> Case:
    """A student and its control: each is whole where its record is there, and the gain is that of both."""
    case = _training((*_distill(work), "--seed", 7, "--control"), ("--teacher-cache", "cache"), work)

    def parts(place: Path) -> list[bytes]:
        runs = [place / "run" / name for name in ("", "control") if (place / "run" / name / "student.json").exists()]
        weights = [(run / "student.safetensors").read_bytes() for run in runs]
        gains = [json.loads((run / "student.json").read_text(encoding="utf-8"))["gain"] for run in runs[:1]]
        return [*weights, *(json.dumps(gain).encode() for gain in gains if gain is not None)]

    def made(place: Path) -> bytes | None:
        found = parts(place)
        return b"".join(found) if len(found) == 3 else None

    def sound(place: Path, new: bytes | None) -> str | None:
        known = new or b""
        return None if all(part in known for part in parts(place)) else "a part that is finished is another one"

    return replace(case, sound=sound, made=made)


def _training(command: Command, cache: tuple[str, ...], work: Path) -> Case:
    """A training into `place`/run, where nothing is."""

    def arguments(place: Path) -> Command:
        return (*command, *((cache[0], place / cache[1]) if cache else ()), "--out", place / "run")

    def begin(place: Path) -> None:
        _colours(work)
        place.mkdir()

    def sound(place: Path, new: bytes | None) -> str | None:
        finished = (place / "run" / "student.json").exists()
        return "a finished run has another student" if finished and weights(place) != new else None

    def weights(place: Path) -> bytes | None:
        path = place / "run" / "student.safetensors"
        return path.read_bytes() if path.exists() else None

    def resume(place: Path) -> Command:
        there = (place / "run" / "run.json").exists()
        return (*arguments(place), *(["--resume"] if there else []))

    return Case(begin, arguments, sound, resume, _left_of_run, weights)


def _left_of_run(place: Path) -> list[str]:
    found = [path.name for path in place.rglob("*") if path.name.startswith(".kdc")]
    return found + [name for name in (".before", "checkpoint") if (place / "run" / name).exists()]


def _half(case: Case, kept: Path) -> Callable[[Path], None]:
    """Begins with a run that was killed right after it had saved its first epoch."""

    def begin(place: Path) -> None:
        if not kept.exists():
            case.begin(place)
            calls = killed(case.arguments(place), place, 0).calls
            shutil.rmtree(place)
            case.begin(place)
            killed(case.arguments(place), place, calls.index(f"os.rename {place}/run/checkpoint") + 2)
            place.rename(kept)
        shutil.copytree(kept, place)

    return begin


def _overwriting(case: Case, work: Path, older: str) -> Case:
    """Over a finished run: it is there until the new one is finished, in its place or aside."""

    def begin(place: Path) -> None:
        shutil.copytree(_colours(work) / older, place / "run")

    def arguments(place: Path) -> Command:
        return (*case.arguments(place), "--overwrite")

    def sound(place: Path, new: bytes | None) -> str | None:
        old = work / "colours" / older
        if any(_holds(place / "run" / name, old) for name in ("", ".before")):
            return None
        finished = (place / "run" / "student.json").exists() and case.made(place) == new
        return None if finished else "neither the old run nor the new one is whole"

    def resume(place: Path) -> Command:
        request = place / "run" / "run.json"
        seed = json.loads(request.read_text(encoding="utf-8"))["recipe"]["seed"] if request.exists() else None
        return case.resume(place) if seed == 7 else arguments(place)

    return replace(case, begin=begin, arguments=arguments, sound=sound, resume=resume)


def _holds(folder: Path, old: Path) -> bool:
    files = [path.relative_to(old) for path in old.rglob("*") if path.is_file()]
    return all(
        (folder / path).is_file() and (folder / path).read_bytes() == (old / path).read_bytes() for path in files
    )


def _predictions(work: Path) -> dict[str, Case]:
    return {
        "predict": _prediction(work, ".csv", over=False),
        "predict --overwrite": _prediction(work, ".csv", over=True),
        "predict --overwrite, parquet": _prediction(work, ".parquet", over=True),
    }


def _prediction(work: Path, ending: str, *, over: bool) -> Case:
    """`over`: over an older table, of the most probable classes alone."""
    name = f"table{ending}"
    kept = work / f"older{ending}"

    def begin(place: Path) -> None:
        _colours(work)
        place.mkdir()
        if over:
            if not kept.exists():
                _done((*command(place), "--labels-only", "--out", kept), place)
            shutil.copyfile(kept, place / name)

    def command(place: Path) -> Command:
        return ("predict", *_of_teacher(work), "--quiet")

    def arguments(place: Path) -> Command:
        return (*command(place), "--out", place / name, *(["--overwrite"] if over else []))

    def resume(place: Path) -> Command:
        there = (place / name).exists() and not over
        return (*arguments(place), *(["--overwrite"] if there else []))

    def table(place: Path) -> bytes | None:
        return (place / name).read_bytes() if (place / name).exists() else None

    def sound(place: Path, new: bytes | None) -> str | None:
        found = table(place)
        return None if found in (new, kept.read_bytes() if over else None) else "another table"

    def left(place: Path) -> list[str]:
        return [path.name for path in place.iterdir() if path.name != name]

    return Case(begin, arguments, sound, resume, left, table)


def _measurements(work: Path) -> dict[str, Case]:
    """Of bundles of chains of convolutions: sealed, and measured once already."""

    def begin(place: Path) -> None:
        kept = work / "chains"
        if not kept.exists():
            for name, blocks in (("bundle", 1), ("earlier", 2)):
                write_chain_bundle(kept / name, blocks, 1, Budget(p50_ms=1000), this_machine())
                seal(kept / name)
                _done(("measure", kept / name, *QUICK), kept)
        shutil.copytree(kept, place)

    def stale(place: Path) -> None:
        begin(place)
        (place / "bundle" / "measurements" / "new.txt").write_text("from the device", encoding="utf-8")
        (place / "bundle" / "report.md").write_text("an older one\n", encoding="utf-8")
        seal(place / "bundle")

    def measure(place: Path) -> Command:
        return ("measure", place / "bundle", *QUICK)

    def baseline(place: Path) -> Command:
        return (*measure(place), "--baseline", place / "earlier")

    def report(place: Path) -> Command:
        return ("report", place / "bundle", "--out", place / "report.md", "--overwrite")

    return {
        "measure": Case(begin, measure, _sound, measure, left_in_bundle),
        "measure --baseline": Case(begin, baseline, _sound, baseline, left_in_bundle),
        "report": Case(stale, report, _sound, report, left_in_bundle),
    }


def _sound(place: Path, new: bytes | None) -> str | None:
    return sound_bundle(place)


def _exports(work: Path) -> dict[str, Case]:
    """Of a bundle of float32, of no device in particular."""
    kept = ("--set", "budget={p50_ms: 1000}", "--set", "fingerprint.cpu=none", "--precision", "fp32")
    common = ("export", work / "colours" / "run", "--profile", "x86-avx2", "--target", "onnxruntime", *kept, *QUICK)

    def export(place: Path) -> Command:
        return (*common, "--out", place / "bundle", "--overwrite")

    def over(place: Path) -> None:
        older = _colours(work) / "bundle"
        if not older.exists():
            _done((*common, "--out", older), older)
        shutil.copytree(older, place / "bundle")

    def nothing(place: Path) -> None:
        _colours(work)
        place.mkdir()

    def go_on(place: Path) -> Command:
        """As the message of the interrupted one says, where something waits to be measured."""
        bundle = place / "bundle"
        waits = (bundle / UNMEASURED).exists() or not (bundle / "SHA256SUMS").exists()
        return ("measure", bundle, *QUICK) if waits and holds_bundle(bundle) else export(place)

    def new_or_none(place: Path, new: bytes | None) -> str | None:
        """Nothing, something unfinished that says so, or a whole bundle."""
        bundle = place / "bundle"
        if not bundle.exists() or not (files_of(bundle) or (bundle / NEXT).exists()):
            return None
        try:
            check(bundle)
        except KdcError as error:
            return None if "kdc measure" in error.hint else error.message
        return None

    return {
        "export": Case(nothing, export, new_or_none, go_on, left_in_bundle),
        "export --overwrite": Case(over, export, _sound, go_on, left_in_bundle),
    }
