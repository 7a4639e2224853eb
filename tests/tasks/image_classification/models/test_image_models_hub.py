"""The hub out of reach: an error within seconds that names what else there is, never a silent random start."""

import importlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from huggingface_hub import constants

from compressor import hub
from compressor.errors import KdcError
from compressor.models import load_model
from compressor.tasks.image_classification.models.students import create_student

NAMES = ["cat", "dog"]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No connection to the hub can be made, and nothing lies in the cache."""
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 15
    assert not constants.HF_HUB_OFFLINE, "the setting is put back"


@pytest.mark.usefixtures("no_hub")
def test_a_pretrained_student_names_the_two_other_starts(tmp_path: Path) -> None:
    with pytest.raises(
        KdcError, match="the student's pretrained weights: timm:mobilenetv3_small_050 cannot be loaded"
    ) as e:
        create_student("timm:mobilenetv3_small_050", "pretrained", NAMES, 32, None)
    assert "--student-init random" in e.value.hint
    assert "--student-init PATH" in e.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_timm_teacher_names_the_local_spellings() -> None:
    with pytest.raises(KdcError, match="timm:mobilenetv3_small_050 cannot be loaded from the hub: ") as caught:
        load_model("timm:mobilenetv3_small_050")
    assert "timm:local-dir:PATH" in caught.value.hint
    assert "timm:NAME@CHECKPOINT" in caught.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_hugging_face_teacher_names_the_local_spelling() -> None:
    with pytest.raises(KdcError, match="hf:nobody/nothing cannot be loaded from the hub: ") as caught:
        load_model("hf:nobody/nothing")
    assert "hf:PATH" in caught.value.hint


@pytest.mark.usefixtures("no_hub")
def test_a_local_folder_needs_no_hub(vit_folder: Callable[..., Path]) -> None:
    assert load_model(f"hf:{vit_folder(NAMES)}").class_names is not None


@pytest.mark.usefixtures("no_hub")
def test_one_line_says_who_was_not_reached_and_why() -> None:
    """huggingface_hub by itself tries each of two files six times, for 46 seconds, and says so each time."""
    with pytest.raises(KdcError) as caught:
        load_model("timm:mobilenetv3_small_050")
    said = caught.value.message
    assert "\n" not in said
    assert f"{constants.ENDPOINT} cannot be reached (" in said
    assert "refused" in said
    assert said.endswith("and no copy of it is kept here")


def test_what_the_user_set_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for offline, reason, inside in [(True, "gone", True), (False, None, False), (False, "gone", True)]:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(hub, "_unreachable", lambda endpoint, answer=reason: answer)
        with hub.offline_if_unreachable() as unreachable:
            assert constants.HF_HUB_OFFLINE is inside
            assert unreachable == (None if offline else reason)
        assert constants.HF_HUB_OFFLINE is offline


@pytest.mark.parametrize("waits", [0.0, 0.6], ids=["at once", "later than a connection may take"])
def test_a_hub_that_answers_is_not_given_up_however_slow(monkeypatch: pytest.MonkeyPatch, waits: float) -> None:
    monkeypatch.setattr(hub, "CONNECT_S", 0.3)
    with answering(waits) as address:
        assert hub._unreachable(address) is None


def test_what_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the proxies of the hub's own client: behind one, names need not resolve here."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert hub._unreachable("https://kdc-test.invalid")
    reset_client()
    with answering(0.0) as proxy, monkeypatch.context() as patch:
        patch.setenv("http_proxy", proxy)
        assert hub._unreachable("http://kdc-test.invalid") is None
        reset_client()


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def answering(waits: float) -> Iterator[str]:
    """The address of a server that answers every request, after so many seconds."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            with suppress(OSError):
                while True:
                    asked, _ = server.accept()
                    with asked, suppress(OSError):
                        asked.recv(65536)
                        time.sleep(waits)
                        asked.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def reset_client() -> None:
    """The hub's client reads the proxies when it is made."""
    http = importlib.import_module("huggingface_hub.utils._http")
    (http.close_session if hasattr(http, "close_session") else http.reset_sessions)()
