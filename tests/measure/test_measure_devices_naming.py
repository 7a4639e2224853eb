"""Several `--device`: their names, which are those of folders, and what is refused."""

import re

import pytest

from compressor.errors import KdcError
from compressor.measure.devices import parse_devices
from compressor.measure.devices.naming import MOST


def names(*texts: str) -> list[str]:
    return [device.name for device in parse_devices(texts)]


def test_none_is_this_machine() -> None:
    (device,) = parse_devices(())
    assert (device.name, device.text, device.url.kind, device.chosen) == ("local", "local", "local", False)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("ssh://pi", "ssh://nano"), ["pi", "nano"]),
        (("local", "adb:R58M1234", "ssh://bob@pi:2222/mnt/disk"), ["local", "R58M1234", "pi"]),
        (
            ("ssh://pi", "ssh://bob@pi", "ssh://pi:2222", "ssh://pi/mnt/my disk"),
            ["pi", "bob-pi", "pi-2222", "pi-my-disk"],
        ),
        (("ssh://PI", "ssh://pi"), ["PI", "pi-2"]),
        (("ssh://a@pi/x", "ssh://a@pi/y/x"), ["a-pi-x", "a-pi-x-2"]),
        (("kitchen=ssh://pi", "ssh://pi/mnt"), ["kitchen", "pi-mnt"]),
        (("pi=ssh://10.0.0.9", "ssh://pi"), ["pi", "pi-2"]),
        (("ssh://pi", "pi=ssh://10.0.0.9"), ["pi-2", "pi"]),
        (("ssh://[fe80::1%25eth0]:22", "adb:192.168.1.5:5555"), ["fe80-1-eth0", "192.168.1.5-5555"]),
        (("ssh://pi/a=b",), ["pi"]),
        (("ssh://.hidden", "ssh://_x"), ["hidden", "x"]),
    ],
)
def test_names_tell_devices_apart_and_can_be_folders(texts: tuple[str, ...], expected: list[str]) -> None:
    assert names(*texts) == expected
    assert len({name.casefold() for name in expected}) == len(expected)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) for name in expected)


def test_a_url_keeps_its_own_equals_sign_and_a_name_is_no_part_of_it() -> None:
    (device,) = parse_devices(["ssh://pi/a=b"])
    assert (device.url.folder, device.chosen) == ("/a=b", False)
    (device,) = parse_devices(["desk=ssh://pi/a=b"])
    assert (device.name, device.text, device.url.folder, device.chosen) == ("desk", "ssh://pi/a=b", "/a=b", True)
    assert device.option == "desk=ssh://pi/a=b"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a b",
        "-o",
        ".hidden",
        "a/b",
        "x" * 65,
        "été",
        "a\u202eb",
        "a\nb",
        "a:b",
        "<script>",
        "a|b",
    ],
)
def test_a_name_that_could_be_anything_else_is_refused(name: str) -> None:
    with pytest.raises(KdcError) as caught:
        names(f"{name}=ssh://pi")
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith("--device ")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("ssh://pi", "ssh://pi"), "ssh://pi is named twice"),
        (("local", "local"), "local is named twice"),
        (("a=ssh://pi", "b=ssh://pi"), "ssh://pi is named twice"),
        (("a=ssh://pi", "A=ssh://nano"), "two --device are called A"),
        (("ssh://pi", "shh://nano"), "is no device that kdc knows"),
        (("ssh://pi", "ssh://bob:secret@nano"), "holds a password"),
        (("ssh://pi", "x=ssh://-oProxyCommand=touch"), "has the host"),
        (("ssh://pi", "x="), "is no device that kdc knows"),
        (tuple(f"ssh://pi{number}" for number in range(MOST + 1)), f"names {MOST + 1} devices"),
    ],
)
def test_what_is_no_set_of_devices_is_refused(texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(KdcError, match=re.escape(said)) as caught:
        parse_devices(texts)
    assert caught.value.exit_code == 2
    assert "secret" not in str(caught.value)
