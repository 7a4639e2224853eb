"""A measuring session on a language model: answers in place of calls, and what a text costs in place of logits.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import LANGUAGE, LANGUAGE_SCHEMA, BenchError, Entry, Plan
    from targets.bench_rounds import attempt, run_rounds
    from targets.bench_runner import Contestant, Runner, RunnerError
    from targets.bench_session import Session, now, sha256
    from targets.bench_tell import Teller
    from targets.machine_info import machine
else:
    from bench_plan import LANGUAGE, LANGUAGE_SCHEMA, BenchError, Entry, Plan
    from bench_rounds import attempt, run_rounds
    from bench_runner import Contestant, Runner, RunnerError
    from bench_session import Session, now, sha256
    from bench_tell import Teller
    from machine_info import machine


class LanguageContestant(Contestant):
    """One artefact of a language model. `prompts`: ids, one of which is answered in a round."""

    def __init__(self, entry: Entry, plan: Plan, prompts: list[list[int]]) -> None:
        super().__init__(entry, plan)
        assert plan.language is not None
        self.prompts, self.language = prompts, plan.language

    def load(self, runner: Runner, streams: int = 1, threads: int | None = None) -> dict[str, Any]:
        asked = {"model": self.model, "precision": self.variant["precision"], "threads": threads or self.plan.threads}
        return {**runner.ask("load", **asked), "distinct": len(self.prompts)}

    def _begin(self, runner: Runner) -> tuple[dict[str, float], dict[str, Any]]:
        loaded = self.load(runner)
        first_ms = runner.ask("generate", prompt=self.prompts[0], tokens=1)["prompt_ms"]
        start_ms = (time.perf_counter() - runner.began) * 1000
        return {"start_ms": start_ms, "load_ms": loaded["load_ms"], "first_ms": first_ms}, loaded

    def block(self, number: int) -> dict[str, Any]:
        """One answer. All contestants answer the same prompt in a round."""
        prompt, tokens = self.prompts[number % len(self.prompts)], self.language["new_tokens"]
        told = self.ask("generate", prompt=prompt, tokens=tokens)
        if len(told["ids"]) != tokens or len(told["token_ms"]) != tokens - 1:
            raise RunnerError(f"asked for {tokens} tokens, it generated {len(told['ids'])}")
        return {"prompt_ms": told["prompt_ms"], "token_ms": told["token_ms"]}

    def score(self, blocks: str, out: Path) -> None:
        """Write the log-probabilities of a corpus to `out`, in a fresh process."""
        with closing(self.process()) as runner:
            self.load(runner)
            try:
                runner.ask("score", limit=None, path=blocks, out=os.fspath(out), batch=self.language["score_batch"])
            except RunnerError as error:
                if error.kind == "disk":
                    raise BenchError(f"cannot write the log-probabilities: {error}") from error
                raise


class LanguageSession(Session):
    """See Session; `state`: the noun LanguageMeasurement but for its rounds and blocks."""

    def __init__(self, plan: Plan, folder: Path, waited_s: float, teller: Teller) -> None:
        assert plan.language is not None
        self.language = plan.language
        self.prompts = read_prompts(plan.bundle / plan.language["prompts"], plan.language["prompt_tokens"])
        super().__init__(plan, folder, waited_s, teller)

    def contestant(self, entry: Entry) -> Contestant:
        return LanguageContestant(entry, self.plan, self.prompts)

    def warm_up(self, contestant: Contestant) -> None:
        contestant.block(0)

    def measure(self) -> dict[str, Any]:
        try:
            self.load()
            self.teller.event(state=self.state())
            latency = run_rounds(self.contestants, self.plan, self.teller)
            self.after = machine()  # while load, clock and temperature are still those of the answers
            self.read_memory()
        finally:
            for contestant in self.contestants:
                contestant.end()
        if self.plan.predict:
            self.score()
        state = self.state()
        self.teller.event(state=state)
        return {**state, **self.samples(latency)}

    def score(self) -> None:
        asked = [contestant for contestant in self.contestants if contestant.alive and contestant.copy_of is None]
        corpora = self.language["corpora"]
        for count, contestant in enumerate(asked):
            assert isinstance(contestant, LanguageContestant)
            with attempt(contestant, self.teller):
                for number, (split, blocks) in enumerate(corpora, 1):
                    out = self.folder / f"{contestant.name}.{split}.npy"
                    contestant.score(blocks, out)
                    contestant.record.update({split: out.name, f"{split}_sha256": sha256(out)})
                    done, total = count * len(corpora) + number, len(asked) * len(corpora)
                    self.teller.step("scoring", done, total, contestant.name)

    def state(self) -> dict[str, Any]:
        return {
            "schema": LANGUAGE_SCHEMA,
            "task": LANGUAGE,
            "started": self.started,
            "finished": now(),
            "device": "local",
            "waited_s": self.waited_s,
            "prompts": len(self.prompts),
            "prompt_tokens": self.language["prompt_tokens"],
            "new_tokens": self.language["new_tokens"],
            "seed": self.plan.seed,
            "machine_before": self.before,
            "machine_after": self.after,
            "contestants": [contestant.record for contestant in self.contestants],
        }


def read_prompts(path: Path, width: int) -> list[list[int]]:
    """A JSON array of prompts, each of `width` ids."""
    try:
        prompts = json.loads(path.read_text(encoding="utf-8"))
        whole = all(len(prompt) == width and all(type(token) is int for token in prompt) for prompt in prompts)
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BenchError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if not prompts or not whole:
        raise BenchError(f"{path} is damaged: it must hold prompts of {width} ids")
    return list(prompts)
