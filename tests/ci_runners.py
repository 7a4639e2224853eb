"""As much of GitHub's and GitLab's runners as examples/ci needs.

What the files say is run as it stands there, step by step, with caches and artefacts in folders; gh and glab are a
program that records what it is asked, and keeps the comments.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.forked import python

__all__ = ["CANARY", "GitHub", "GitLab", "Job", "bash", "comments_of", "programs"]

ROOT = Path(__file__).resolve().parent.parent

PLATFORM_CLI = """
import json, os, sys
from pathlib import Path

state, arguments = Path(os.environ["RECORDED"]), sys.argv[1:]
with (state / "calls.jsonl").open("a") as calls:
    calls.write(json.dumps([Path(sys.argv[0]).name, *arguments]) + "\\n")
assert os.environ.get("GH_TOKEN") or os.environ.get("GITLAB_TOKEN"), "it would ask who this is"
assert arguments.pop(0) == "api"
method, where, body = "GET", None, None
while arguments:
    word = arguments.pop(0)
    if word == "--method":
        method = arguments.pop(0)
    elif word in ("-F", "--field"):
        key, _, value = arguments.pop(0).partition("=")
        assert (key, value[0]) == ("body", "@")
        body = Path(value[1:]).read_text()
    elif word != "--paginate":
        assert where is None
        where = word
comments = json.loads((state / "comments.json").read_text())
if method == "GET":
    assert where.endswith("?per_page=100"), where
    print(json.dumps(comments[:1]) + json.dumps(comments[1:]))  # page after page
elif method == "POST":
    comments.append({"id": 100 + len(comments), "body": body, "user": {"type": "Bot"}})
    print(json.dumps(comments[-1]))
else:
    (comment,) = [each for each in comments if str(each["id"]) == where.rsplit("/", 1)[1]]
    comment["body"] = body
    print(json.dumps(comment))
(state / "comments.json").write_text(json.dumps(comments))
"""

CANARY = "canary-0123456789"
"""Every secret."""

HUMAN = {"id": 7, "body": "<!-- mine --> what <!-- kdc: kdc --> says", "user": {"type": "User"}}


def programs(folder: Path) -> Path:
    """A folder for PATH: kdc of this checkout; pip, gh and glab, which record what they are asked."""
    bins = folder / "bin"
    bins.mkdir(parents=True)
    (folder / "comments.json").write_text(json.dumps([HUMAN]), encoding="utf-8")
    kdc = f'export PYTHONPATH={shlex.quote(str(ROOT))}\nexec {shlex.join(python())} -m compressor "$@"'
    pip = 'if [ "$1 $2 $3" = "-m pip install" ]; then printf "%s\\n" "$4" >> "$RECORDED/installed"; exit 0; fi\nexit 9'
    for name, lines in {"kdc": kdc, "python": pip}.items():
        (bins / name).write_text(f"#!/bin/bash\n{lines}\n", encoding="utf-8")
    for name in ("gh", "glab"):
        (bins / name).write_text(f"#!{sys.executable}\n{PLATFORM_CLI}", encoding="utf-8")
    for path in bins.iterdir():
        path.chmod(0o755)
    return folder


def comments_of(folder: Path) -> list[str]:
    """What stands on the pull request, the comment of a human first."""
    return [note["body"] for note in json.loads((folder / "comments.json").read_text(encoding="utf-8"))]


def bash(script: str, cwd: Path, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """As the runners of both start it."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


@dataclass
class Job:
    """What a job did: outcome of each step by its name, the exit code that ended it, its log, summary and artefacts."""

    steps: dict[str, str] = field(default_factory=dict)
    code: int = 0
    log: str = ""
    summary: str = ""
    artefacts: Path = Path()


@dataclass
class Caches:
    """Folders by key, in the order in which they were saved."""

    folder: Path
    keys: list[str] = field(default_factory=list)

    def save(self, key: str, paths: Sequence[str], workspace: Path, replace: bool = False) -> None:
        if key in self.keys and not replace:
            return
        present = [path for path in paths if (workspace / path).exists()]
        if not present:
            return
        self.keys = [*(each for each in self.keys if each != key), key]
        place = self._place(key)
        shutil.rmtree(place, ignore_errors=True)
        for path in present:
            _copy(workspace / path, place / path)

    def restore(self, key: str, prefixes: Sequence[str], workspace: Path) -> bool:
        """The newest that fits; whether it is the key itself."""
        fitting = [key] if key in self.keys else []
        for prefix in prefixes:
            fitting += [each for each in reversed(self.keys) if each.startswith(prefix)]
        if fitting:
            shutil.copytree(self._place(fitting[0]), workspace, dirs_exist_ok=True)
        return key in self.keys

    def _place(self, key: str) -> Path:
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:12]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


WORDS = re.compile(r"'[^']*'|[A-Za-z_][\w-]*(?:\.(?:[\w-]+|\*))*(?![\w(.-])|&&|\|\||!=|!")
SAID = {"&&": " and ", "||": " or ", "!=": "!=", "!": " not ", "true": "True", "false": "False"}


def _lookup(contexts: Any, path: Sequence[str]) -> Any:
    for at, part in enumerate(path):
        if part == "*":
            return [_lookup(each, path[at + 1 :]) for each in contexts or []]
        contexts = contexts.get(part, "") if isinstance(contexts, Mapping) else ""
    return contexts


def _evaluate(expression: str, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """GitHub's expressions are Python's, but for the operators and the names."""

    def spelled(match: re.Match[str]) -> str:
        word = match[0]
        if word.startswith("'"):
            return repr(word[1:-1])
        return SAID[word] if word in SAID else repr(_lookup(contexts, word.split(".")))

    return eval(WORDS.sub(spelled, expression).strip(), {"__builtins__": {}}, dict(functions))


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


@dataclass
class GitHub:
    """A repository's runs: `recorded` is the folder that `programs` made, `storage` holds caches and artefacts."""

    recorded: Path
    storage: Path
    run_id: int = 0

    def __post_init__(self) -> None:
        self.caches = Caches(self.storage / "cached")

    def run(self, workflow: Path, workspace: Path, github: Mapping[str, Any], changed: Mapping[str, str]) -> Job:
        """Its only job, with what a user writes into the action's inputs `changed`."""
        self.run_id += 1
        self._status, self._job = "success", Job(artefacts=self.storage / f"artefacts-{self.run_id}")
        self._workspace, self._changed, self._late = workspace, changed, list[tuple[str, list[str]]]()
        self._exported: dict[str, str] = {}
        (workspace / "kdc").symlink_to(ROOT)
        (job,) = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()
        contexts = {
            "github": {"run_id": self.run_id, "run_attempt": 1, "repository": "o/r", "token": CANARY, **github},
            "secrets": {"HF_TOKEN": CANARY},
        }
        if not self._holds(job["if"], contexts):
            return self._job
        environment = {name: self._filled(value, contexts) for name, value in job["env"].items()}
        self._steps(job["steps"], contexts, environment, github)
        for key, paths in self._late if self._status == "success" else ():
            self.caches.save(key, paths, workspace)
        return self._job

    def _functions(self) -> dict[str, Callable[..., Any]]:
        def hash_files(pattern: str) -> str:
            found = sorted(path for path in self._workspace.glob(pattern) if path.is_file())
            return hashlib.sha256(b"".join(path.read_bytes() for path in found)).hexdigest() if found else ""

        return {
            "always": lambda: True, "success": lambda: self._status == "success", "hashFiles": hash_files,
            "contains": lambda where, what: bool(where) and what in where,
        }  # fmt: skip

    def _holds(self, condition: str, contexts: Mapping[str, Any]) -> bool:
        return bool(_evaluate(condition, contexts, self._functions()))

    def _filled(self, value: Any, contexts: Mapping[str, Any]) -> str:
        found = re.compile(r"\$\{\{(.*?)\}\}")
        return found.sub(lambda match: _text(_evaluate(match[1], contexts, self._functions())), _text(value))

    def _steps(
        self, steps: list[dict[str, Any]], contexts: dict[str, Any], environment: dict[str, str], github: Any
    ) -> None:
        done: dict[str, Any] = {}
        contexts = {**contexts, "steps": done}
        for step in steps:
            name = step.get("name") or step.get("uses") or step["run"]
            condition = str(step.get("if", "success()"))
            if "always()" not in condition:
                condition = f"success() && ({condition})"
            outputs: dict[str, str] = {}
            outcome = "skipped"
            if self._holds(condition, contexts):
                outcome = self._one(step, contexts, environment, github, outputs)
            self._job.steps[name] = outcome
            done[step.get("id", name)] = {"outputs": outputs, "outcome": outcome}
            if outcome == "failure":
                self._status = "failure"

    def _one(
        self, step: dict[str, Any], contexts: dict[str, Any], environment: dict[str, str], github: Any, outputs: Any
    ) -> str:
        environment = environment | {key: self._filled(value, contexts) for key, value in step.get("env", {}).items()}
        if "run" in step:
            return self._shell(step["run"], environment, github, outputs)
        given = {key: self._filled(value, contexts) for key, value in step.get("with", {}).items()}
        uses = step["uses"]
        if uses.startswith("./"):
            action = yaml.safe_load((self._workspace / uses / "action.yml").read_text(encoding="utf-8"))
            unknown = given.keys() - action["inputs"].keys()
            assert not unknown, unknown
            given |= self._changed
            inputs = {name: given.get(name, row.get("default", "")) for name, row in action["inputs"].items()}
            environment = {**environment, "GITHUB_ACTION_PATH": str(self._workspace / uses)}
            self._steps(action["runs"]["steps"], {**contexts, "inputs": inputs}, environment, github)
            return self._status
        self._used(uses.split("@")[0], given, outputs)
        return "success"

    def _shell(self, script: str, environment: dict[str, str], github: Any, outputs: dict[str, str]) -> str:
        files = {name: self.recorded / name for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("", encoding="utf-8")
        ended = bash(script, self._workspace, {
            "PATH": f"{self.recorded / 'bin'}:{os.environ['PATH']}", "RECORDED": str(self.recorded),
            "GITHUB_SERVER_URL": "https://forge.example", "GITHUB_REPOSITORY": "o/r",
            "GITHUB_RUN_ID": str(self.run_id), **{name: str(file) for name, file in files.items()},
            **environment, **self._exported,
        })  # fmt: skip
        self._job.log += ended.stdout
        self._job.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        for kept, name in ((outputs, "GITHUB_OUTPUT"), (self._exported, "GITHUB_ENV")):
            for line in files[name].read_text(encoding="utf-8").splitlines():
                key, _, value = line.partition("=")
                kept[key] = value
        if ended.returncode and self._status == "success":
            self._job.code = ended.returncode
        return "failure" if ended.returncode else "success"

    def _used(self, action: str, given: Mapping[str, str], outputs: dict[str, str]) -> None:
        paths = given.get("path", "").split()
        if action in ("actions/cache", "actions/cache/restore"):
            hit = self.caches.restore(given["key"], given.get("restore-keys", "").split(), self._workspace)
            outputs["cache-hit"] = _text(hit)
            if action == "actions/cache" and not hit:
                self._late.append((given["key"], paths))
        elif action == "actions/cache/save":
            self.caches.save(given["key"], paths, self._workspace)
        elif action == "actions/upload-artifact":
            for path in paths:
                assert not re.search(r"(^|/)\.", path), "hidden files are left out"
                if (self._workspace / path).exists():
                    _copy(self._workspace / path, self._job.artefacts / given["name"] / Path(path).name)
        else:
            assert action in ("actions/checkout", "actions/setup-python"), action


@dataclass
class GitLab:
    """A project's pipelines, as `GitHub`."""

    recorded: Path
    storage: Path
    pipelines: int = 0

    def __post_init__(self) -> None:
        self.caches = Caches(self.storage / "cached")

    def run(
        self, file: Path, workspaces: Callable[[], Path], predefined: Mapping[str, str], changed: Mapping[str, str]
    ) -> dict[str, Job]:
        """Its jobs by name, those whose rules hold, each in a folder of its own; the later need the earlier to pass."""
        self.pipelines += 1
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
        given = {name: str(value) for name, value in read.pop("variables").items()}
        base, jobs = read.pop(".kdc"), dict[str, Job]()
        for name, own in read.items():
            assert own["extends"] == ".kdc"
            variables = {**given, **predefined, **changed, "CI_JOB_NAME": name}
            rule = next((rule for rule in own["rules"] if self._holds(rule["if"], variables)), None)
            if rule is None or any(job.code for job in jobs.values()):
                continue
            variables |= base["variables"] | own.get("variables", {}) | rule.get("variables", {}) | changed
            jobs[name] = self._job({**base, **own}, workspaces(), variables, list(jobs.values()))
        return jobs

    def _holds(self, condition: str, variables: Mapping[str, str]) -> bool:
        matches = re.sub(r"(\$\w+) =~ /((?:[^/])*)/", r"search(r'\2', \1)", condition)
        spelled = re.sub(r"\$(\w+)", lambda match: repr(variables.get(match[1], "")), matches)
        spelled = spelled.replace("&&", " and ").replace("||", " or ")
        return bool(eval(spelled, {"__builtins__": {}}, {"search": re.search}))

    def _job(self, job: dict[str, Any], workspace: Path, variables: dict[str, str], needed: list[Job]) -> Job:
        (workspace / "kdc").symlink_to(ROOT)
        variables = {**variables, "CI_PROJECT_DIR": str(workspace)}
        filled = {name: self._filled(value, variables) for name, value in variables.items()}
        for cache in job["cache"]:
            keys = [self._filled(key, filled) for key in (cache["key"], *cache.get("fallback_keys", ()))]
            present = next((key for key in keys if key in self.caches.keys), keys[0])
            self.caches.restore(present, (), workspace)
        for earlier in needed:
            if earlier.artefacts.exists():
                shutil.copytree(earlier.artefacts, workspace, dirs_exist_ok=True)
        environment = {
            **filled, "PATH": f"{self.recorded / 'bin'}:{os.environ['PATH']}", "RECORDED": str(self.recorded)
        }  # fmt: skip
        ended = bash("\n".join((*job["before_script"], *job["script"])), workspace, environment)
        after = bash("\n".join(job.get("after_script", ())), workspace, environment)
        done = Job(code=ended.returncode, log=ended.stdout + after.stdout)
        done.artefacts = self.storage / f"artefacts-{self.pipelines}-{filled['CI_JOB_NAME']}"
        if ended.returncode == 0 or job["artifacts"].get("when") == "always":
            for path in job["artifacts"]["paths"]:
                if (workspace / path).exists():
                    _copy(workspace / path, done.artefacts / path)
        for cache in job["cache"]:
            wanted = self._filled(cache.get("policy", "pull-push"), filled) == "pull-push"
            if wanted and (ended.returncode == 0 or cache.get("when") == "always"):
                self.caches.save(self._filled(cache["key"], filled), cache["paths"], workspace, replace=True)
        return done

    def _filled(self, value: Any, variables: Mapping[str, str]) -> str:
        return re.sub(r"\$(\w+)", lambda match: variables.get(match[1], ""), str(value))
