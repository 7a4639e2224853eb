"""kdc report --push, against a server that answers huggingface_hub as the hub does: what is sent, and what never is.

Small files go inline, large ones by LFS. By xet, which huggingface_hub prefers for large ones, nothing is sent here.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import compressor
from compressor import KdcError
from compressor.report import finish
from tests.kit import Ended

# huggingface_hub's own, of its LFS upload by httpx.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

Make = Callable[..., Path]
Kdc = Callable[..., Ended]
TOKEN = "hf_the_token_of_the_test"
LARGE = 100_000


class Hub(ThreadingHTTPServer):
    """What was asked of it, in order, and the files of its one repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str] = []
        self.files: dict[str, bytes] = {}
        self.created: dict[str, Any] = {}
        self.message = ""
        self.large: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def _send(self, values: Any, status: int = 200) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._send({})

    def do_GET(self) -> None:
        self.server.asked.append(f"GET {self.path.partition('?')[0]}")
        rows = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in self.server.files]
        self._send(rows if "/tree/" in self.path else {"id": "me/model", "siblings": []})

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"])).decode()
        place = self.path.partition("?")[0]
        hub.asked.append(f"POST {place}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid username or password."}, 401)
        if place == "/api/repos/create":
            hub.created = json.loads(body)
            return self._send({"url": f"{hub.url}/me/model"})
        if place.endswith("/objects/batch"):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{hub.url}/large/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            return self._send({"transfer": "basic", "objects": objects})
        if place.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] > LARGE else "regular"}
                for file in json.loads(body)["files"]
            ]
            return self._send({"files": [{**file, "shouldIgnore": False} for file in files]})
        if place.endswith("/commit/main"):
            self._commit([json.loads(line) for line in body.splitlines()])
            return self._send({"success": True, "commitOid": "1" * 40, "commitUrl": f"{hub.url}/me/model/commit/1"})
        return self._send({"warnings": [], "errors": []})  # /api/validate-yaml

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._send({})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.message = value["summary"]
            elif line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.large[value["oid"]]
            else:
                assert line["key"] == "deletedFile"
                del self.server.files[value["path"]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # before 0.31 there was none
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@contextmanager
def serving() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def sealed(make_bundle: Make) -> Path:
    bundle = make_bundle(budget={"p50_ms": 9})
    finish(bundle)
    return bundle


def test_card_report_and_what_ships_go_and_nothing_else(hub: Hub, sealed: Path, kdc: Kdc) -> None:
    hub.files = {"best/old.bin": b"of another variant", "notes.md": b"mine", "README.md": b"old"}
    ended = kdc("report", sealed, "--push", "hf:me/model", "--quiet")
    assert ended.code == 0, ended.err
    best = {path.relative_to(sealed).as_posix() for path in (sealed / "best").rglob("*") if path.is_file()}
    shown = {path.name for path in sealed.glob("report.*")}
    assert hub.large, "the model is large"
    assert set(hub.files) == {"notes.md", "README.md", *shown, *best}
    for path in set(hub.files) - {"notes.md"}:
        assert hub.files[path] == (sealed / path).read_bytes()
    assert not [path for path in hub.files if path.startswith(("eval/", "teacher/", "measurements/"))]
    assert hub.created["name"] == "model"
    assert hub.created["organization"] == "me"
    assert hub.created.get("visibility") == "private" or hub.created.get("private") is True
    assert hub.message.startswith("ort-fp32: pass on mini-pc, kdc ")
    assert TOKEN not in ended.out + ended.err


def test_where_it_went_is_said(hub: Hub, sealed: Path, kdc: Kdc) -> None:
    ended = kdc("report", sealed, "--push", "hf:me/model", "--json")
    assert json.loads(ended.out)["verdict"] == "pass"
    assert f"pushed to {hub.url}/me/model" in ended.err
    assert compressor.report(sealed, push="hf:me/model").pushed == f"{hub.url}/me/model"


def test_without_push_nothing_is_asked_of_the_hub(hub: Hub, sealed: Path, kdc: Kdc) -> None:
    for command in (("report", sealed), ("check", sealed), ("report", sealed, "--format", "md")):
        assert kdc(*command).code == 0
    assert hub.asked == []


def test_whoever_may_not_write_there_is_told_how(
    hub: Hub, sealed: Path, kdc: Kdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    ended = kdc("report", sealed, "--push", "hf:me/model")
    assert (ended.code, ended.out) == (2, "")
    assert "--push hf:me/model is refused (401)" in ended.err
    assert "HF_TOKEN" in ended.err
    assert "hf_wrong" not in ended.err
    assert hub.files == {}


def test_a_hub_that_is_not_there(sealed: Path, kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.hub._unreachable", lambda endpoint: "no network in this test")
    ended = kdc("report", sealed, "--push", "hf:me/model")
    assert ended.code == 2
    assert "the Hugging Face hub cannot be reached: no network in this test" in ended.err


@pytest.mark.parametrize("reference", ["me/model", "hf:model", "hf:me/model/x", "hf:../x", "hf:me/mo del", "hf:"])
def test_what_names_no_repository(reference: str, sealed: Path, kdc: Kdc) -> None:
    ended = kdc("report", sealed, "--push", reference)
    assert (ended.code, ended.out) == (2, "")
    assert "--push hf:OWNER/NAME" in ended.err


def test_a_bundle_that_ships_nothing_is_not_pushed(hub: Hub, make_bundle: Make) -> None:
    bundle = make_bundle(budget={"size_mb": 0.1})
    finish(bundle)
    with pytest.raises(KdcError, match="ships nothing"):
        compressor.report(bundle, push="hf:me/model")
    assert hub.asked == []


def test_nothing_is_sent_that_another_input_stops(hub: Hub, sealed: Path, kdc: Kdc, tmp_path: Path) -> None:
    """What is held against a baseline is not what the bundle says of itself; and a damaged history is read first."""
    both = kdc("report", sealed, "--push", "hf:somebody/student", "--baseline", sealed)
    assert both.code == 2
    assert "--push sends what the bundle itself says, and --baseline is not in it" in both.err
    damaged = tmp_path / "history.jsonl"
    damaged.write_text("{", encoding="utf-8")
    assert kdc("report", sealed, "--push", "hf:somebody/student", "--history", damaged).code == 2
    assert hub.files == {}
