"""A launcher's variables are checked before anybody waits for processes that never come."""

import pytest

from compressor.distill.host.resources import size_in_bytes
from compressor.errors import KdcError
from compressor.processes.launcher import NEEDED, NUMBERS, check_launcher, world_size

WHOLE = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*NUMBERS, *NEEDED}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE is 4, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"),
        ({**WHOLE, "MASTER_PORT": ""}, "but MASTER_PORT is not set"),
        ({"RANK": "abc"}, "RANK is 'abc', which is no number from 0 up"),
        ({"RANK": "3"}, "RANK is 3, which is not below WORLD_SIZE, which is not set"),
        ({**WHOLE, "RANK": "4"}, "RANK is 4, which is not below WORLD_SIZE, 4"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0', which is no number from 1 up"),
        ({**WHOLE, "MASTER_PORT": "9" * 30}, "MASTER_PORT is '9999"),
        ({"LOCAL_WORLD_SIZE": "1.5"}, "LOCAL_WORLD_SIZE is '1.5'"),
    ],
)
def test_what_contradicts_itself(given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KdcError) as caught:
        check_launcher()
    assert message in caught.value.message
    assert "accelerate launch" in caught.value.hint


def test_what_launchers_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert world_size() == 1
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    assert world_size() == 4
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert world_size() == 1


@pytest.mark.parametrize("text", ["-5GB", "nan", "1e400", "inf", "9" * 5_000, "-1"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(KdcError, match="is no size"):
        size_in_bytes(text, "--decode-cache")
