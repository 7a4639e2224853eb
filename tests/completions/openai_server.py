"""A small endpoint as OpenAI's, for tests: a real HTTP server, as a thread or as a program that can be killed.

    python openai_server.py PORT LOG [FAULT …]

What it answers to is written into LOG, a JSON object a line: the prompt, and "answer", or the fault that it met with.
The first request for each prompt meets with the next one of the faults, in turn; "none" is none.
"""

import json
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "sk-test-0123456789abcdef-SECRET"
SLOW_S = 30.0


class Server(ThreadingHTTPServer):
    """`log`: what was asked, in its order."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int = 0, faults: tuple[str, ...] = (), log: Path | None = None, key: str = KEY) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.faults, self.key, self.path = faults, key, log
        self.log: list[dict[str, Any]] = []
        self.seen: dict[str, str] = {}
        self.lock = threading.Lock()
        self.gone = threading.Event()
        self.delay_s, self.limit = 0.0, "max_tokens"
        self.named: str | None = None
        self.most = self.now = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def fault_of(self, prompt: str) -> str:
        """That of a prompt's first request."""
        with self.lock:
            if prompt in self.seen:
                return "none"
            fault = self.faults[len(self.seen) % len(self.faults)] if self.faults else "none"
            self.seen[prompt] = fault
            return fault

    def write(self, **what: Any) -> None:
        with self.lock:
            self.log.append(what)
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(what) + "\n")

    def answered(self) -> list[str]:
        """The prompts that got an answer."""
        return [row["prompt"] for row in self.log if row["what"] == "answer"]


class Handler(BaseHTTPRequestHandler):
    server: Server
    held = False
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.write(what="GET", prompt="", headers=dict(self.headers))
        self.send(200, {"choices": []})

    def do_POST(self) -> None:
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path.endswith("/chat/completions")
        prompt = asked["messages"][0]["content"] if chat else asked["prompt"]
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
        self.held = True
        try:
            fault = server.fault_of(prompt)
            if self.headers.get("Authorization") != f"Bearer {server.key}":
                fault = "401"
            if server.delay_s:
                time.sleep(server.delay_s)
            if server.limit not in asked:
                self.unsupported("parameter", "'max_tokens' is not supported. Use 'max_completion_tokens' instead")
            elif fault == "none":
                self.answer(asked, prompt, chat)
            else:
                server.write(what=fault, prompt=prompt)
                self.fail(fault)
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Count this request as answered: before it is answered, since whoever asked may ask again at once."""
        if self.held:
            self.held = False
            with self.server.lock:
                self.server.now -= 1

    def answer(self, asked: dict[str, Any], prompt: str, chat: bool) -> None:
        text = f"answer to {prompt} [{asked.get('seed')}]"
        words = text.split(" ")
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            rows = [{"token": word, "logprob": -0.5, "bytes": list(word.encode())} for word in words]
            logprobs: Any = {"content": rows}
        else:
            choice["text"] = text
            logprobs = {"tokens": words, "token_logprobs": [-0.5] * len(words)}
        if asked.get("logprobs"):
            choice["logprobs"] = logprobs
        said = {"what": "answer", "prompt": prompt, "path": self.path, "asked": asked}
        if self.server.path is None:
            self.server.write(**said)
        self.send(200, {"model": self.server.named or f"{asked['model']}-2026", "choices": [choice]})
        if self.server.path is not None:  # it may be killed between: what was not sent was not answered
            self.server.write(**said)

    def unsupported(self, kind: str, why: str) -> None:
        self.send(400, {"error": {"message": f"Unsupported {kind}: {why}.", "code": f"unsupported_{kind}"}})

    def fail(self, fault: str) -> None:
        kinds = {
            "429": (429, {"Retry-After": "0.2"}, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}),
            "500": (500, {}, {"error": {"message": "it broke"}}),
            "503": (503, {"Retry-After": "0.1"}, "<html>busy</html>"),
            "400": (400, {}, {"error": {"message": "the prompt is too long"}}),
            "401": (401, {}, {"error": {"message": f"Incorrect API key: {self.headers.get('Authorization')}"}}),
            "quota": (429, {"Retry-After": "0.1"}, {"error": {"message": "no", "code": "insufficient_quota"}}),
            "later": (429, {"Retry-After": "86400"}, {"error": {"message": "tomorrow"}}),
            "redirect": (307, {"Location": "/elsewhere"}, {}),
            "200-429": (200, {}, {"error": {"message": "slow down", "code": 429}}),
            "200-400": (200, {}, {"error": {"message": "the prompt is too long", "code": 400}}),
            "200-error": (200, {}, {"error": {"message": "the provider failed"}}),
            "no-choice": (200, {}, {"choices": []}),
            "echo": (200, {}, {"choices": [{"message": {"content": f"it is {self.headers.get('Authorization')}"}}]}),
            "refusal": (200, {}, {"choices": [{"message": {"content": None, "refusal": "I would rather not"}}]}),
        }
        if fault == "temperature":
            self.unsupported("value", "'temperature' does not support 0.0 with this model. Only 1 is supported")
        elif fault in kinds:
            self.send(kinds[fault][0], kinds[fault][2], kinds[fault][1])
        elif fault == "malformed":
            self.send(200, '{"choices": [{"mess')
        elif fault == "drop":  # a reset, before any answer
            self.let_go()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault == "half":  # fewer bytes than it says
            self.let_go()
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')
            self.close_connection = True
        elif fault == "huge":
            self.send(200, {"choices": [{"message": {"content": "x" * 17_000_000}}]})
        elif fault == "slow":
            self.server.gone.wait(SLOW_S)
            self.close_connection = True
        elif fault == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not self.server.gone.wait(0.2):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
        else:
            raise AssertionError(fault)

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.let_go()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:  # whoever asked has had enough
            self.close_connection = True


if __name__ == "__main__":
    with Server(int(sys.argv[1]), tuple(sys.argv[3:]), Path(sys.argv[2])) as program:
        program.delay_s = 0.05
        program.serve_forever()
