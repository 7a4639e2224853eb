"""The pipelines in examples/ci: their own steps, run in order on digits."""

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressor.measure.machine import this_machine
from compressor.profiles import write_new_profile
from tests.ci_runners import CANARY, GitHub, GitLab, Job, bash, comments_of, programs
from tests.kit import TRAINING, call
from tests.shared import made_once

ROOT = Path(__file__).resolve().parent.parent
CI = ROOT / "examples" / "ci"
WORKFLOW, ACTION, GITLAB = CI / "github" / "kdc.yml", CI / "github" / "action.yml", CI / "gitlab-ci.yml"

RECIPE = """schema: 1
epochs: 3
batch_size: 64
crop_pct: 1.0
losses: [{name: kd, weight: 0.9, temperature: 4.0}, {name: cross_entropy, weight: 0.1}]
optimizer: {lr: 0.01}
views: {hflip: false, scale: [0.7, 1.0]}
"""
DISTILL = "--input-size=32\n  --student-init\n  random\n"
EXPORT = "--rounds=12\n\n--no-throughput"
STUDENT = "timm:test_efficientnet"
LOW = re.compile(r"size_mb \| ≤ 0\.01 MB \| [\d.]+ MB: \S+ times the limit \| \*\*fail\*\*")

PULL_REQUEST: dict[str, Any] = {
    "event_name": "pull_request", "ref": "refs/pull/5/merge",
    "event": {
        "action": "synchronize",
        "pull_request": {"number": 5, "labels": [{"name": "bug"}], "head": {"repo": {"full_name": "o/r"}}},
    },
}  # fmt: skip
LABELLED = copy.deepcopy(PULL_REQUEST)
LABELLED["event"]["pull_request"]["labels"].append({"name": "distill"})
BY_HAND: dict[str, Any] = {"event_name": "workflow_dispatch", "ref": "refs/heads/main", "event": {}}

MERGE_REQUEST = {
    "CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "5",
    "CI_MERGE_REQUEST_LABELS": "bug,distilled", "CI_COMMIT_REF_SLUG": "a-branch",
}  # fmt: skip
SCHEDULE = {"CI_PIPELINE_SOURCE": "schedule", "CI_COMMIT_BRANCH": "main", "CI_COMMIT_REF_SLUG": "main"}
ALWAYS = {
    "CI_DEFAULT_BRANCH": "main", "CI_PROJECT_ID": "3", "CI_JOB_URL": "https://forge.example/job",
    "CI_SERVER_URL": "https://forge.example", "GITLAB_TOKEN": CANARY, "HF_TOKEN": CANARY,
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    def make(folder: Path) -> None:
        code = call(
            "teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", "--data", "digits", "--epochs", 2,
            "--out", folder / "run", *TRAINING, "--set", "head_epochs=0", "--set", "optimizer.lr=0.01",
            "--set", "views.hflip=false",
        )  # fmt: skip
        assert code == 0

    return f"run:{made_once(tmp_path_factory, 'digits-teacher', make) / 'run'}"


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[..., Path]:
    """`checkout(size_mb=1)`: a fresh copy of the user's repository, with its budget."""
    made = list[Path]()

    def make(size_mb: float = 20) -> Path:
        folder = tmp_path / f"checkout-{len(made)}"
        made.append(folder)
        folder.mkdir()
        (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        budget = [f"budget.size_mb={size_mb}", "budget.min_retention=0.5"]
        write_new_profile("profile", folder, this_machine(), {"onnxruntime": ("fp32",)}, budget)
        return folder

    return make


def hides_secrets(recorded: Path, storage: Path, *jobs: Job) -> bool:
    files = [path for folder in (recorded, storage) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    said = [*(path.read_bytes() for path in files), *(f"{job.log}{job.summary}".encode() for job in jobs)]
    return not any(CANARY.encode() in text for text in said)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq, as the runners have it")
def test_github_goes_the_whole_way(tmp_path: Path, checkout: Callable[..., Path], teacher: str) -> None:
    recorded = programs(tmp_path / "recorded")
    github = GitHub(recorded, tmp_path / "storage")
    inputs = {
        "teacher": teacher, "data": "digits", "student": STUDENT, "distill-arguments": DISTILL,
        "export-arguments": EXPORT,
    }  # fmt: skip
    by_hand = github.run(WORKFLOW, checkout(), BY_HAND, inputs)
    assert by_hand.code == 0, by_hand.log
    assert {name for name, outcome in by_hand.steps.items() if outcome != "success"} == {
        "Comment on the pull request", "Data from the cache", "Fetch the data",
    }  # fmt: skip
    assert (recorded / "installed").read_text(encoding="utf-8") == f"{ROOT}[all]\n"
    assert by_hand.summary.startswith("## kdc: PASS")
    assert "nothing has passed on main yet" in by_hand.log
    assert sorted(path.name for path in (by_hand.artefacts / "kdc-report").iterdir()) == [
        "junit.xml", "report.html", "report.json", "report.md",
    ]  # fmt: skip
    assert (by_hand.artefacts / "kdc-bundle" / "bundle" / "bundle.json").is_file()
    assert [key.split("/")[0] for key in github.caches.keys] == ["kdc-student", "kdc-cache", "kdc-released"]
    assert len(comments_of(recorded)) == 1

    changed = checkout()
    asked = github.run(WORKFLOW, changed, PULL_REQUEST, inputs)
    assert asked.code == 0, asked.log
    assert asked.steps["Distill"] == "skipped"
    assert asked.steps["This is what passed last"] == "skipped"
    assert (changed / "kdc-work" / "bundle" / "baseline").is_dir(), "held against what passed last"
    human, comment = comments_of(recorded)
    assert comment.startswith("<!-- kdc: kdc -->\n## kdc: PASS")
    assert "(https://forge.example/o/r/actions/runs/2)" in comment

    too_large = checkout(size_mb=0.01)
    too_low = github.run(WORKFLOW, too_large, LABELLED, inputs)
    assert too_low.code == 1, too_low.log
    assert too_low.steps["Distill"] == "success"
    students = [(folder / "kdc-work" / "run" / "student.safetensors").read_bytes() for folder in (changed, too_large)]
    assert students[0] == students[1], "the same settings, from the teacher's kept answers"
    assert too_low.steps["Export, measure, gate"] == "failure"
    assert LOW.search("\n".join(too_low.summary.splitlines()[:25])), too_low.summary
    assert comments_of(recorded)[0] == human
    (comment,) = comments_of(recorded)[1:]
    assert comment.startswith("<!-- kdc: kdc -->\n## kdc: FAIL")
    assert (too_low.artefacts / "kdc-report" / "report.html").is_file()
    assert "<failure" in (too_low.artefacts / "kdc-report" / "junit.xml").read_text(encoding="utf-8")
    kinds = [key.split("/")[0] for key in github.caches.keys]
    assert kinds == ["kdc-student", "kdc-cache", "kdc-released", "kdc-student", "kdc-cache"], "what fails is no release"

    other = github.run(WORKFLOW, checkout(), PULL_REQUEST, {**inputs, "student": "timm:test_resnet"})
    assert other.code == 2
    assert "::error::no student of these settings is cached" in other.log
    assert other.summary.startswith("## kdc: no verdict")
    assert [text.splitlines()[1] for text in comments_of(recorded)[1:]] == ["## kdc: no verdict"]
    assert hides_secrets(recorded, tmp_path / "storage", by_hand, asked, too_low, other)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq, as the image has it")
def test_gitlab_goes_the_whole_way(tmp_path: Path, checkout: Callable[..., Path], teacher: str) -> None:
    recorded = programs(tmp_path / "recorded")
    gitlab = GitLab(recorded, tmp_path / "storage")
    variables = {
        "KDC_TEACHER": teacher, "KDC_DATA": "digits", "KDC_STUDENT": STUDENT, "KDC_DISTILL_ARGUMENTS": DISTILL,
        "KDC_EXPORT_ARGUMENTS": EXPORT,
    }  # fmt: skip
    scheduled = gitlab.run(GITLAB, checkout, {**ALWAYS, **SCHEDULE}, variables)
    assert {name: job.code for name, job in scheduled.items()} == {"kdc-distill": 0, "kdc-export": 0}, scheduled
    assert "nothing has passed on the default branch yet" in scheduled["kdc-export"].log
    assert gitlab.caches.keys == ["kdc-cache", "kdc-student-main", "kdc-released"]
    assert (scheduled["kdc-export"].artefacts / "kdc-work" / "bundle" / "junit.xml").is_file()
    assert len(comments_of(recorded)) == 1

    asked = gitlab.run(GITLAB, checkout, {**ALWAYS, **MERGE_REQUEST}, variables)
    assert {name: job.code for name, job in asked.items()} == {"kdc-export": 0}, asked
    assert (asked["kdc-export"].artefacts / "kdc-work" / "bundle" / "baseline").is_dir()
    human, comment = comments_of(recorded)
    assert comment.startswith("<!-- kdc: kdc-export -->\n## kdc: PASS")

    too_low = gitlab.run(GITLAB, lambda: checkout(size_mb=0.01), {**ALWAYS, **MERGE_REQUEST}, variables)
    assert {name: job.code for name, job in too_low.items()} == {"kdc-export": 1}, too_low
    assert comments_of(recorded)[0] == human
    (comment,) = comments_of(recorded)[1:]
    assert comment.startswith("<!-- kdc: kdc-export -->\n## kdc: FAIL")
    assert LOW.search("\n".join(comment.splitlines()[:26])), comment
    junit = too_low["kdc-export"].artefacts / "kdc-work" / "bundle" / "junit.xml"
    assert "<failure" in junit.read_text(encoding="utf-8")
    assert gitlab.caches.keys == ["kdc-cache", "kdc-student-main", "kdc-released"]

    other = gitlab.run(GITLAB, checkout, {**ALWAYS, **MERGE_REQUEST}, {**variables, "KDC_STUDENT": "timm:test_resnet"})
    assert other["kdc-export"].code == 2
    assert "no student of these settings is cached" in other["kdc-export"].log
    assert [text.splitlines()[1] for text in comments_of(recorded)[1:]] == ["## kdc: no verdict"]
    jobs = [job for pipeline in (scheduled, asked, too_low, other) for job in pipeline.values()]
    assert hides_secrets(recorded, tmp_path / "storage", *jobs)


def steps(file: Path) -> list[dict[str, Any]]:
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    if file == WORKFLOW:
        return list(read["jobs"]["student"]["steps"])
    return list(read["runs"]["steps"])


def distilling(platform: str) -> str:
    if platform == "github":
        (found,) = [step["run"] for step in steps(ACTION) if step.get("id") == "distill"]
    else:
        (found,) = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))["kdc-distill"]["script"]
    return str(found)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["github", "gitlab"])
@pytest.mark.parametrize(
    ("when", "there", "codes", "calls", "ended"),
    [
        ("missing", [], [0], ["--overwrite"], 0),
        ("missing", ["run.json", "student.json"], [], [], 0),
        ("always", ["run.json", "student.json"], [0], ["--overwrite"], 0),
        ("missing", ["run.json"], [0], ["--resume"], 0),
        ("missing", ["run.json"], [2, 0], ["--resume", "--overwrite"], 0),
        ("always", ["run.json"], [130], ["--resume"], 130),
        ("missing", [], [4], ["--overwrite"], 4),
    ],
)
def test_what_was_stopped_goes_on(
    tmp_path: Path, platform: str, when: str, there: list[str], codes: list[int], calls: list[str], ended: int
) -> None:
    """The step alone, with a program in place of kdc that ends as `codes` say."""
    (tmp_path / "kdc-work" / "run").mkdir(parents=True)
    for name in there:
        (tmp_path / "kdc-work" / "run" / name).touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes), encoding="utf-8")
    program = tmp_path / "bin" / "kdc"
    program.write_text(
        '#!/bin/bash\nprintf "%s\\n" "$*" >> calls\ncode=$(head -n 1 codes); sed -i 1d codes; exit "$code"\n',
        encoding="utf-8",
    )
    program.chmod(0o755)
    values = {
        "TEACHER": "a b", "DATA": "d", "STUDENT": "", "RECIPE": "r", "PROFILE": "p", "DISTILL": when,
        "ARGUMENTS": " --set x=$(touch hit) \n\n--qat", "GITHUB_OUTPUT": "output",
    }  # fmt: skip
    if platform == "gitlab":
        values = {f"KDC_{name}".replace("KDC_ARG", "KDC_DISTILL_ARG"): value for name, value in values.items()}
        values |= {"settings": "s", "made": "true" if "student.json" in there else ""}
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    done = bash(distilling(platform), tmp_path, {**values, "PATH": path})
    assert done.returncode == ended, done.stdout
    made = (tmp_path / "calls").read_text(encoding="utf-8").splitlines() if calls else []
    before = "distill --teacher a b --data d --profile p --out kdc-work/run --set x=$(touch hit) --qat --recipe r"
    assert made == [f"{before} {last}" for last in calls]
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize("file", [WORKFLOW, ACTION], ids=lambda file: file.name)
def test_what_others_write_never_becomes_shell(file: Path) -> None:
    """A branch, a label or an input that is put into a script by its text would be run."""
    runs = [step["run"] for step in steps(file) if "run" in step]
    assert runs
    assert not [run for run in runs if "${{" in run]
    assert not [run for run in runs if re.search(r"\beval\b|\bset -x|\benv\b$", run, re.M)]


def test_the_workflow_may_do_no_more_than_it_must() -> None:
    read = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    assert read["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert set(read[True]) == {"pull_request", "push", "schedule", "workflow_dispatch"}
    used = [step["uses"] for file in (WORKFLOW, ACTION) for step in steps(file) if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w/-]+@v\d|\./kdc/examples/ci/github", name) for name in used), used
    assert all(step["shell"] == "bash" for step in steps(ACTION) if "run" in step)


def test_a_label_is_the_whole_label() -> None:
    rules = [rule["if"] for rule in yaml.safe_load(GITLAB.read_text(encoding="utf-8"))["kdc-distill"]["rules"]]
    (pattern,) = re.findall(r"=~ /(.*)/", rules[1])
    assert [bool(re.search(pattern, labels)) for labels in ("distill", "bug,distill", "distilled", "undistill")] == [
        True, True, False, False,
    ]  # fmt: skip


def test_the_image_holds_what_an_installation_needs() -> None:
    """What test_packaging makes the wheel from, and an extra that there is."""
    text = (CI / "Containerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"(?m)^COPY (.+) \S+$", text) for word in line.split()]
    assert copied == ["pyproject.toml", "README.md", "LICENSE", "compressor", "profiles", "targets"]
    assert all((ROOT / name).exists() for name in copied)
    (extra,) = re.findall(r"(?m)^ARG EXTRAS=(\w+)$", text)
    assert re.search(rf"(?m)^{extra} = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
