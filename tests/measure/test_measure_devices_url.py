import pytest

from compressor.errors import EXIT_USAGE, KdcError
from compressor.measure.devices import DeviceUrl, parse_device


@pytest.mark.parametrize(
    ("url", "device"),
    [
        ("local", DeviceUrl("local")),
        ("ssh://pi", DeviceUrl("ssh", host="pi")),
        ("ssh://pi/", DeviceUrl("ssh", host="pi")),
        ("ssh://me_2@pi-5.local:2222", DeviceUrl("ssh", "me_2", "pi-5.local", 2222)),
        ("ssh://pi/mnt/usb disk", DeviceUrl("ssh", host="pi", folder="/mnt/usb disk")),
        ("ssh://pi/a%20'%22%3F%23%25$(x)%F0%9F%8D%93", DeviceUrl("ssh", host="pi", folder="/a '\"?#%$(x)🍓")),
        ("ssh://pi/~/kdc", DeviceUrl("ssh", host="pi", folder="~/kdc")),
        ("ssh://pi/~", DeviceUrl("ssh", host="pi", folder="~")),
        ("ssh://pi/~other/kdc", DeviceUrl("ssh", host="pi", folder="/~other/kdc")),
        ("ssh://pi:22/a@b:c", DeviceUrl("ssh", host="pi", port=22, folder="/a@b:c")),
        ("ssh://[fe80::1%25eth0]:65535/x", DeviceUrl("ssh", host="fe80::1%eth0", port=65535, folder="/x")),
        ("ssh://me@[::1]", DeviceUrl("ssh", "me", "::1")),
        ("adb:R58M123", DeviceUrl("adb", serial="R58M123")),
        ("adb:192.168.1.7:5555/sdcard/x", DeviceUrl("adb", serial="192.168.1.7:5555", folder="/sdcard/x")),
    ],
)
def test_a_device(url: str, device: DeviceUrl) -> None:
    assert parse_device(url) == device


def refusal(url: str) -> KdcError:
    with pytest.raises(KdcError) as caught:
        parse_device(url)
    assert caught.value.exit_code == EXIT_USAGE
    assert "permitted: " in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is no device that kdc knows"),
        ("ssh://", "names no host"),
        ("ssh:///folder", "names no host"),
        ("ssh://me@", "names no host"),
        ("ssh://@pi", "has the user ''"),
        ("ssh://-oProxyCommand=x", "has the host '-oProxyCommand=x'"),
        ("ssh://-oProxyCommand=touch%20x@pi", "has the user"),
        ("ssh://-lroot", "has the host '-lroot'"),
        ("ssh://pi;reboot", "has the host 'pi;reboot'"),
        ("ssh://$(x)@pi", "has the user '$(x)'"),
        ("ssh://pi five", "has the host 'pi five'"),
        ("ssh://pï", "has the host 'pï'"),
        ("ssh://pi%2f", "has the host 'pi%2f'"),
        ("ssh://pi\n", "holds control characters"),
        ("ssh://pi/\x1b[2J", "holds control characters"),
        ("ssh://pi:", "has the port ''"),
        ("ssh://pi:0", "has the port '0'"),
        ("ssh://pi:65536", "has the port '65536'"),
        ("ssh://pi:22x", "has the port '22x'"),
        ("ssh://pi:²²", "has the port '²²'"),
        ("ssh://pi:-1", "has the port '-1'"),
        ("ssh://[pi]", "has no IPv6 address in its brackets: 'pi'"),
        ("ssh://[:1]", "has no IPv6 address in its brackets: ':1'"),
        ("ssh://[::1", "has no IPv6 address in its brackets: '::1'"),
        ("ssh://[::1]x", "has the host '[::1]x'"),
        ("ssh://[::1%25-e]", "has the host"),
        ("ssh://pi/x?y=1", "has a query or a fragment"),
        ("ssh://pi#x", "has a query or a fragment"),
        ("ssh://pi/%zz", "has a % that is not followed by two hexadecimal digits"),
        ("ssh://pi/%00", "has a folder whose name holds control characters"),
        ("ssh://pi/a%0Ab", "has a folder whose name holds control characters"),
        ("ssh://pi/a%E2%80%A8b", "has a folder whose name holds control characters or line ends"),
        ("ssh://pi/%ff", "has a folder whose name is not UTF-8"),
        ("adb:", "names no phone"),
        ("adb:-s", "has the serial '-s'"),
        ("adb:a b", "has the serial 'a b'"),
        ("adb:a:b", "has the serial 'a:b'"),
        ("http://pi", "is no device that kdc knows"),
        ("locale", "is no device that kdc knows; did you mean local"),
        ("shh://pi", "is no device that kdc knows; did you mean ssh"),
    ],
)
def test_what_is_refused(url: str, says: str) -> None:
    assert says in refusal(url).message


@pytest.mark.parametrize(
    "url",
    [
        "ssh://me:s3cret@pi", "ssh://me:s3cret@pi?x", "ssh://me:s3cr@s3cret@pi/x", "shh://:s3cret@pi",
        "ssh//me:s3cret@pi", "me:s3cret@pi", "ssh:me:s3cret@pi", "ssh:///me:s3cret@pi", "ssh://me%3As3cret@pi",
        "ssh://me:s3/s3cret@pi", "s:me:s3cret@pi",
    ],
)  # fmt: skip
def test_a_password_is_refused_and_not_repeated(url: str) -> None:
    error = refusal(url)
    assert "holds a password" in error.message
    assert "a key or an agent instead" in error.hint
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("url", "hint"),
    [("me@pi", "--device ssh://me@pi"), ("ssh:pi", "--device ssh://HOST"), ("adb://X", "--device adb:SERIAL")],
)
def test_nearly_right(url: str, hint: str) -> None:
    assert refusal(url).hint == hint


def test_the_name_in_sentences() -> None:
    assert [parse_device(url).name for url in ("local", "ssh://me@pi:1", "adb:X")] == ["this machine", "pi", "X"]
