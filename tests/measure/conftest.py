"""A device behind a real sshd on this machine, and a client that knows it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.measure.sshd import Board, install_runners, run_sshd, wrap


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    with run_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def ssh_client(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH looks for ~ in the user database, not in $HOME, so the configuration comes by a wrapper."""
    wrap(tmp_path / "bin", "ssh", f'exec "{shutil.which("ssh")}" -F "{board.config}" "$@"', monkeypatch)


@pytest.fixture
def speaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kdc's own bench.py is the one of sshd.py, which speaks and measures nothing."""
    install_runners(tmp_path / "installed", monkeypatch)
