"""Questions asked of an endpoint, several at a time, and again where that may help."""

import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from compressor.completions.answers import AgainError, AnswerError, RefusedError
from compressor.completions.client import Client
from compressor.errors import KdcError
from compressor.schema.completions import Completion, Question

__all__ = ["Patience", "Pool", "Unanswered"]

AGAIN = "--resume goes on with what is missing"


@dataclass(frozen=True)
class Patience:
    """How long to wait between tries, seconds: `first_s`, doubled each time up to `most_s`, of which a share between
    one half and all is drawn, so that those who wait do not come back together. `longest_s`: more is not waited,
    whatever the server asks for."""

    tries: int = 8
    first_s: float = 1.0
    most_s: float = 60.0
    longest_s: float = 900.0

    def wait_s(self, tried: int) -> float:
        """After so many tries, from 1."""
        return min(self.most_s, self.first_s * 2.0 ** (tried - 1)) * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Unanswered:
    """A question that has no answer that can be used, and why."""

    question: Question
    why: str


Result = Completion | Unanswered | KdcError


class Pool:
    """`results`: an answer to each question, as they come. `stop`: nothing more is asked; `left` waits for what is on
    its way, which may have been paid for already."""

    def __init__(self, client: Client, questions: Iterable[Question], concurrency: int, patience: Patience) -> None:
        self._client, self._patience = client, patience
        self._questions = iter(questions)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._not_before = 0.0
        self._answered = 0
        self._done: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        # Of a program that ends, threads that still wait for a server are no one's concern.
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]
        self._working = concurrency
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[Completion | Unanswered]:
        """Raises KdcError where the endpoint answers no question; what is on its way then is still in `left`."""
        for result in self._results():
            if isinstance(result, KdcError):
                raise result
            yield result

    def stop(self) -> None:
        """Ask nothing more."""
        self._stopped.set()

    def left(self) -> Iterator[Completion]:
        """The answers that were on their way when `stop` was called."""
        return (result for result in self._results() if isinstance(result, Completion))

    def _results(self) -> Iterator[Result]:
        while self._working:
            result = self._done.get()
            if result is None:
                self._working -= 1
            else:
                yield result

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                with self._lock:
                    question = next(self._questions, None)
                if question is None:
                    return
                self._ask(question)
        except Exception as error:  # a bug: whoever waits for results is to hear of it
            self._stopped.set()
            self._done.put(KdcError(f"unexpected: {type(error).__name__}", "this is a bug in kdc"))
        finally:
            self._done.put(None)

    def _ask(self, question: Question) -> None:
        tried, first, before = 0, self._answered, self._answered
        while True:
            self._stopped.wait(max(0.0, self._not_before - time.monotonic()))
            if self._stopped.is_set():
                return
            try:
                answer = self._client.complete(question)
            except AnswerError as error:
                self._done.put(Unanswered(question, error.why))
                return
            except RefusedError as error:
                self._end(error.why)
                return
            except AgainError as error:
                # An endpoint that answers others meanwhile has its reasons: only too many are asked at a time.
                tried = 1 if before != self._answered and not error.of_question else tried + 1
                before = self._answered
                if (
                    error.of_question
                    and tried >= (error.tries or self._patience.tries)
                    and (error.tries is not None or first != self._answered)
                ):
                    self._done.put(Unanswered(question, error.why))
                    return
                if not self._waits(error, tried):
                    return
            else:
                self._answered += 1
                self._done.put(answer)
                return

    def _waits(self, error: AgainError, tried: int) -> bool:
        """Wait for the next try; what a server asks for, everybody waits for. False where there is none."""
        if tried >= self._patience.tries:
            self._end(f"{error.why}; tried {tried} times")
            return False
        if error.after_s is not None and error.after_s > self._patience.longest_s:
            self._end(f"{error.why}; it asks to wait {error.after_s:,.0f} s")
            return False
        wait_s = self._patience.wait_s(tried)
        if error.after_s is not None:
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + error.after_s)
            wait_s *= 0.1  # beside that, so that those who wait do not come back together
        self._stopped.wait(wait_s)
        return True

    def _end(self, why: str) -> None:
        """No more questions; said once."""
        with self._lock:
            first = not self._stopped.is_set()
            self._stopped.set()
        if first:
            self._done.put(KdcError(f"--teacher api: {why}", AGAIN))
