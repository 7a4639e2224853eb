"""Phones. There is none: the real adb is asked for one that does not exist, and everything else goes through a stand-in
called `adb` that runs the phone's command on this machine."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compressor.errors import EXIT_INCONCLUSIVE, EXIT_MISSING, EXIT_USAGE, KdcError
from compressor.measure.devices import DeviceUrl, LostConnection, adb, open_link
from compressor.measure.devices.remote import connected
from compressor.progress import Silent
from tests.measure.sshd import wrap, write_bundle

# Says of every file that it has 4 bytes with an impossible sha256; of the second one, it sends only a part.
LIAR = f"""#!{sys.executable}
import os, sys
os.write(1, b"kdc-agent 3.11.0\\n")
sys.stdin.readline()  # the source, which has no line end, and the first request
os.write(1, b'{{"ok": true, "bytes": 4, "sha256": "0"}}\\nabcd')
sys.stdin.readline()
os.write(1, b'{{"ok": true, "bytes": 4, "sha256": "0"}}\\nab')
print("pulled out", file=sys.stderr)
sys.exit(5)
"""


def refusal(url: DeviceUrl, bundle: Path, python: str = sys.executable) -> KdcError:
    wrong = pytest.raises(KdcError)
    with wrong as caught, open_link(url, bundle, write_bundle(bundle), python=python, progress=Silent()):
        pass
    return caught.value


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(
        tmp_path / "bin", "adb", 'test "$1 $2 $3 $4 $#" = "-s PHONE shell -T 5" || exit 9\nexec sh -c "$5"', monkeypatch
    )


@pytest.mark.usefixtures("stand_in", "speaking")
def test_a_whole_session(tmp_path: Path) -> None:
    url = DeviceUrl("adb", serial="PHONE", folder=str(tmp_path / "it's a card"))
    manifest = write_bundle(tmp_path / "bundle")
    with open_link(url, tmp_path / "bundle", manifest, python=sys.executable, progress=Silent()) as link:
        assert link.kind == "adb"
        for event in link.bench(["--ask"]):
            if "look" in event:
                link.say("enough")
        link.fetch("student.npy", tmp_path / "student.npy", 2_000_000)
    assert (tmp_path / "student.npy").stat().st_size == 256 * 4000
    assert list((tmp_path / "it's a card").iterdir()) == []


@pytest.mark.usefixtures("stand_in")
def test_no_python_on_the_phone(tmp_path: Path) -> None:
    error = refusal(DeviceUrl("adb", serial="PHONE"), tmp_path / "bundle", "/nowhere/python3")
    assert error.exit_code == EXIT_MISSING
    assert error.message.startswith("PHONE has no /nowhere/python3: ")
    assert "Termux" in error.hint
    assert "--device-python" in error.hint


@pytest.mark.usefixtures("stand_in")
def test_what_arrives_damaged_or_cut_short_is_not_kept(tmp_path: Path) -> None:
    """Over USB there is nothing that checks but the sha256."""
    liar = tmp_path / "liar"
    liar.write_text(LIAR)
    liar.chmod(0o755)
    with connected(DeviceUrl("adb", serial="PHONE"), str(liar)) as agent:
        with pytest.raises(KdcError, match=r"^student.npy arrived damaged from PHONE \(measure again\)$") as caught:
            agent.get("out/student.npy", tmp_path / "student.npy", 2_000_000)
        assert caught.value.exit_code == EXIT_INCONCLUSIVE
        with pytest.raises(LostConnection, match=r"^the connection to PHONE was lost \(exit code 5: pulled out\) "):
            agent.get("out/student.npy", tmp_path / "student.npy", 2_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "liar"]


def test_no_adb_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    error = refusal(DeviceUrl("adb", serial="PHONE"), tmp_path / "bundle")
    assert (error.exit_code, error.hint) == (EXIT_MISSING, "apt install adb")


@pytest.fixture
def real_adb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With a server of its own, which ends with the test."""
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed: apt install adb")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))
    yield
    subprocess.run(["adb", "kill-server"], check=True, capture_output=True, env=dict(os.environ))


@pytest.mark.usefixtures("real_adb")
def test_the_real_adb_knows_no_such_phone(tmp_path: Path) -> None:
    error = refusal(DeviceUrl("adb", serial="PHONE"), tmp_path / "bundle")
    assert error.exit_code == EXIT_USAGE
    assert error.message == "adb knows no device PHONE"
    assert error.hint == "see which there are: adb devices"


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        ("error: device 'PHONE' not found", EXIT_USAGE, "adb knows no device PHONE"),
        ("adb: no devices/emulators found", EXIT_USAGE, "adb knows no device PHONE"),
        (
            "error: device unauthorized.\nThis adb server's key is not set",
            EXIT_USAGE,
            "has not permitted this computer",
        ),
        ("error: device offline", EXIT_INCONCLUSIVE, "cannot be reached: nothing was measured (error: device offline)"),
        ("error: closed", EXIT_INCONCLUSIVE, "cannot be reached"),
        ("error: something new", EXIT_USAGE, "python3 did not start on PHONE (exit code 1): error: something new"),
    ],
)
def test_what_adb_says(said: str, code: int, message: str) -> None:
    error = adb.explain(DeviceUrl("adb", serial="PHONE"), "python3", 1, said)
    assert error.exit_code == code
    assert message in error.message
    assert error.hint
