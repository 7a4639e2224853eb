"""Which devices are the same machine: what ssh's own configuration and the addresses say. Nothing is connected to."""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from compressor.measure.devices import machines, parse_device, same_machines
from tests.measure.sshd import wrap

CONFIG = """
case "$*" in
  *" -- alias") echo "hostname board.example"; echo "port 22";;
  *" -- inner") echo "hostname localhost"; echo "port 22"; echo "proxyjump gate";;
  *" -- inner2") echo "hostname localhost"; echo "port 23"; echo "proxyjump gate";;
  *" -- same-inner") echo "hostname localhost"; echo "port 22"; echo "proxyjump gate";;
  *" -- broken") exit 255;;
  *) for last; do :; done; echo "hostname $last"; echo "proxyjump none";;
esac
"""
KNOWN = {
    "board.example": "192.0.2.1",
    "board2.example": "192.0.2.1",
    "other.example": "192.0.2.2",
    "192.0.2.1": "192.0.2.1",
    "localhost": "127.0.0.1",
    "myself.example": "127.0.0.1",
}


IS_HERE = machines._is_here


@pytest.fixture(autouse=True)
def _names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name server is asked."""
    wrap(tmp_path / "bin", "ssh", CONFIG, monkeypatch)

    def known(host: str, *_: object, **__: object) -> list[Any]:
        if host not in KNOWN:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (KNOWN[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", known)
    monkeypatch.setattr(machines, "_is_here", lambda family, address: address[0] == "127.0.0.1")


def groups(*urls: str) -> list[list[str]]:
    return [[urls[number] for number in row] for row in same_machines([parse_device(url) for url in urls])]


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        (("ssh://board.example", "ssh://other.example"), [[], ["ssh://board.example"], ["ssh://other.example"]]),
        (("ssh://alias", "ssh://board.example"), [[], ["ssh://alias", "ssh://board.example"]]),
        (("ssh://board.example", "ssh://board2.example"), [[], ["ssh://board.example", "ssh://board2.example"]]),
        (("ssh://nowhere", "ssh://root@nowhere:22/x"), [[], ["ssh://nowhere", "ssh://root@nowhere:22/x"]]),
        (("ssh://NOWHERE", "ssh://nowhere"), [[], ["ssh://NOWHERE", "ssh://nowhere"]]),
        (("ssh://nowhere", "ssh://nowhere2"), [[], ["ssh://nowhere"], ["ssh://nowhere2"]]),
        (("local", "ssh://localhost"), [["local", "ssh://localhost"]]),
        (("ssh://myself.example", "ssh://other.example"), [["ssh://myself.example"], ["ssh://other.example"]]),
        (("ssh://inner", "local"), [["local"], ["ssh://inner"]]),
        (("ssh://inner", "ssh://inner2"), [[], ["ssh://inner"], ["ssh://inner2"]]),
        (("ssh://inner", "ssh://same-inner"), [[], ["ssh://inner", "ssh://same-inner"]]),
        (("ssh://broken", "ssh://broken:23"), [[], ["ssh://broken", "ssh://broken:23"]]),
        (("adb:R58M", "adb:R58N"), [[], ["adb:R58M"], ["adb:R58N"]]),
        (("adb:emulator-5554", "local"), [["adb:emulator-5554", "local"]]),
        (("adb:192.0.2.1:5555", "ssh://alias"), [[], ["adb:192.0.2.1:5555", "ssh://alias"]]),
    ],
)
def test_devices_that_are_one_machine_stand_in_one_row(urls: Sequence[str], expected: list[list[str]]) -> None:
    assert groups(*urls) == expected


def test_without_ssh_the_name_alone_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert groups("ssh://alias", "ssh://board.example", "ssh://alias:23") == [
        [],
        ["ssh://alias", "ssh://alias:23"],
        ["ssh://board.example"],
    ]


def test_an_address_is_here_that_can_be_bound_to() -> None:
    assert IS_HERE(socket.AF_INET, ("127.0.0.1", 0))
    assert not IS_HERE(socket.AF_INET, ("255.255.255.255", 0)) or not IS_HERE(socket.AF_INET, ("203.0.113.77", 0))
