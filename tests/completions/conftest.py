"""An endpoint on this machine, and prompts for it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.completions.openai_server import KEY, Server

Serve = Callable[..., Server]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts an endpoint whose key is in the environment; `faults`: what the first requests for each prompt meet."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ExitStack() as stack:

        def start(*faults: str, port: int = 0) -> Server:
            server = stack.enter_context(Server(port, faults))
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
            stack.callback(server.gone.set)
            return server

        yield start


@pytest.fixture
def prompts(tmp_path: Path) -> Callable[[int], str]:
    """Writes so many prompts; returns their reference."""

    def write(count: int) -> str:
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps({"prompt": f"question {number}"}) + "\n" for number in range(count)))
        return f"jsonl:{path}"

    return write
