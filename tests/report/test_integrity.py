import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.files.bundle_folder import REMADE, claim
from compressor.report import build_report, check, finish, refresh, seal, verify
from compressor.report.integrity import inside, verify_made
from compressor.schema.base import Noun, read_json
from compressor.schema.student import Request, Student
from tests.kit import score_of

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def sealed(make_bundle: Make) -> Path:
    small = {"repeat": 100}
    bundle = make_bundle({"ort-fp32": {"wrong": 10, **small}, "teacher": {"role": "teacher", "p50": 6.0, **small}})
    finish(bundle)
    return bundle


def files_of(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())


def test_a_sealed_bundle_verifies_and_sha256sum_agrees(sealed: Path) -> None:
    verify(sealed)
    listed = [line.partition("  ")[2] for line in (sealed / "SHA256SUMS").read_text().splitlines()]
    assert listed == sorted(listed)
    assert {"bundle.json", "best/manifest.json"} <= set(listed)
    listed = [line[66:] for line in (sealed / "SHA256SUMS").read_text().splitlines()]
    assert listed == sorted(
        path.relative_to(sealed).as_posix() for path in files_of(sealed) if path.name != "SHA256SUMS"
    )
    if tool := shutil.which("sha256sum"):
        ran = subprocess.run([tool, "--strict", "-c", "SHA256SUMS"], cwd=sealed, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr


def test_sealing_twice_gives_the_same_bytes(sealed: Path) -> None:
    before = {path: path.read_bytes() for path in files_of(sealed)}
    refresh(sealed)
    assert {path: path.read_bytes() for path in files_of(sealed)} == before


def test_a_flipped_byte_in_any_file_is_named(sealed: Path) -> None:
    for path in files_of(sealed):
        content = path.read_bytes()
        for position in {0, len(content) // 2, len(content) - 1}:
            flipped = bytearray(content)
            flipped[position] ^= 1
            path.write_bytes(flipped)
            with pytest.raises(KdcError) as caught:
                verify(sealed)
            assert path.relative_to(sealed).as_posix() in caught.value.message, (path, position)
            assert caught.value.exit_code == 2
            assert caught.value.hint
        path.write_bytes(content)
    verify(sealed)


@pytest.mark.parametrize("look", [verify, verify_made])
@pytest.mark.parametrize(
    ("path", "damage", "said"),
    [
        ("ort-fp32/model.onnx", lambda old: old * 2, r"has 1600 bytes, but bundle\.json says 800"),
        ("ort-fp32/model.onnx", lambda old: b"?" + old[1:], r"was changed after it was made \(sha256 differs from SHA"),
        ("eval/labels.npy", lambda old: old[:-9], r"was changed after it was made \(sha256 differs from SHA"),
        ("eval/labels.npy", None, "is missing, though SHA256SUMS lists it"),
    ],
)
def test_one_damaged_file_is_told_once(
    sealed: Path, look: Callable[[Path], None], path: str, damage: Callable[[bytes], bytes] | None, said: str
) -> None:
    content = (sealed / path).read_bytes()
    if damage is None:
        (sealed / path).unlink()
    else:
        (sealed / path).write_bytes(damage(content))
    with pytest.raises(KdcError) as caught:
        look(sealed)
    assert re.fullmatch(rf"{re.escape(str(sealed / path))} {said}.*", caught.value.message)
    assert caught.value.message.count(path) == 1


def test_two_damaged_files_are_both_told(sealed: Path) -> None:
    for path in ("ort-fp32/model.onnx", "eval/labels.npy"):
        (sealed / path).write_bytes(b"?")
    with pytest.raises(KdcError) as caught:
        verify(sealed)
    assert [caught.value.message.count(path) for path in ("model.onnx", "labels.npy")] == [1, 1]


def test_every_byte_of_the_sums_counts(sealed: Path) -> None:
    sums = sealed / "SHA256SUMS"
    content = sums.read_bytes()
    for position in range(0, len(content), 29):
        for bit in (1, 0x20, 0x80):
            flipped = bytearray(content)
            flipped[position] ^= bit
            sums.write_bytes(flipped)
            with pytest.raises(KdcError, match="SHA256SUMS"):
                verify(sealed)


def test_the_message_says_what_was_changed(sealed: Path) -> None:
    (sealed / "ort-fp32" / "model.onnx").write_bytes(b"other")
    (sealed / "eval" / "ids.txt").unlink()
    (sealed / "extra.txt").write_text("x")
    with pytest.raises(KdcError) as caught:
        verify(sealed)
    message = caught.value.message
    assert f"{sealed}/ort-fp32/model.onnx was changed after it was made (sha256 differs from SHA256SUMS)" in message
    assert f"{sealed}/eval/ids.txt is missing, though SHA256SUMS lists it" in message
    assert f"{sealed}/extra.txt is not listed in SHA256SUMS" in message
    assert "kdc export" in caught.value.hint


def test_a_bundle_of_another_kdc_is_made_anew_by_the_command_that_is_named(sealed: Path, edit_json: Edit) -> None:
    """kdc before it counted by class: its bundles are sound, and say less than is asked now."""
    score = score_of(200, 190, 190).model_dump(mode="json")
    del score["by_class"]
    edit_json(sealed / "bundle.json", lambda bundle: bundle["variants"][0].update(score=score))
    seal(sealed)
    for gate in (verify, verify_made, check, refresh, build_report):
        with pytest.raises(KdcError, match=r"bundle\.json: key variants\.0\.score\.by_class is missing") as caught:
            gate(sealed)
        assert f"kdc export RUN --profile NAME --out {sealed} --overwrite" in caught.value.hint
    claim(sealed, overwrite=True)


def test_a_measurement_of_another_kdc_is_made_anew_too(sealed: Path, edit_json: Edit) -> None:
    edit_json(sealed / "measurements" / "measurement.json", lambda session: session.pop("seed"))
    seal(sealed)
    with pytest.raises(KdcError, match=r"measurement\.json: key seed is missing") as caught:
        check(sealed)
    assert caught.value.hint.endswith(f"kdc measure {sealed}")
    verify_made(sealed)


@pytest.mark.parametrize(("name", "noun"), [("run.json", Request), ("student.json", Student)])
def test_a_run_of_another_kdc_is_trained_anew(tmp_path: Path, name: str, noun: type[Noun]) -> None:
    (tmp_path / name).write_text('{"schema": 1}')
    with pytest.raises(KdcError, match=rf"{name}: key \w+ is missing") as caught:
        read_json(tmp_path / name, noun)
    assert caught.value.hint.endswith(f"--out {tmp_path} --overwrite")


LITTER = (".DS_Store", "best/Thumbs.db", "eval/desktop.ini", "measurements/._x", "runners/.gitattributes")


@pytest.mark.parametrize("gate", [verify, verify_made, refresh, lambda sealed: verify(sealed, REMADE)])
def test_what_a_file_manager_left_is_named_with_the_command_that_removes_it(
    sealed: Path, gate: Callable[[Path], object]
) -> None:
    for path in LITTER:
        (sealed / path).write_bytes(b"Mac OS X")
    with pytest.raises(KdcError) as caught:
        gate(sealed)
    named = [f"{sealed}/{path} was left there by a file manager or git: it is no part of the bundle" for path in LITTER]
    assert sorted(caught.value.message.split("; ")) == sorted(named)
    assert caught.value.hint.startswith("rm -r ")
    subprocess.run(caught.value.hint, shell=True, check=True)
    verify(sealed)
    assert not any((sealed / path).exists() for path in LITTER)


def test_what_was_left_hides_nothing_else(sealed: Path) -> None:
    (sealed / ".DS_Store").touch()
    (sealed / "eval" / "ids.txt").unlink()
    (sealed / "notes.txt").touch()
    (sealed / ".git").mkdir()
    (sealed / ".git" / "config").touch()
    (sealed / ".git" / "HEAD").touch()
    with pytest.raises(KdcError) as caught:
        verify(sealed)
    assert caught.value.message.count("/.git") == 1, "a repository is one thing"
    for part in ("eval/ids.txt is missing", "notes.txt is not listed", "/.git was left", "/.DS_Store was left"):
        assert part in caught.value.message
    again, remove, history = caught.value.hint.split("; ")
    assert "kdc export" in again
    assert remove == f"and rm -r {sealed}/.DS_Store"
    assert history.startswith(f"move {sealed}/.git away")


def test_what_is_sealed_is_no_litter(sealed: Path) -> None:
    (sealed / ".gitkeep").touch()
    seal(sealed)
    verify(sealed)
    verify_made(sealed)


def test_a_changed_file_that_was_sealed_again_still_differs_from_the_manifests(sealed: Path) -> None:
    (sealed / "ort-fp32" / "model.onnx").write_bytes(b"other")
    np.save(sealed / "measurements" / "ort-fp32.npy", np.ones((200, 3), np.float32))
    seal(sealed)
    with pytest.raises(KdcError) as caught:
        verify(sealed)
    assert "ort-fp32/model.onnx was changed after it was made (sha256 differs from bundle.json)" in caught.value.message
    assert "measurements/ort-fp32.npy was changed after it was measured" in caught.value.message


@pytest.mark.parametrize("line", ["", "abc  file", f"{'0' * 64} *bundle.json", f"{'A' * 64}  bundle.json"])
def test_a_malformed_line_is_named(sealed: Path, line: str) -> None:
    with (sealed / "SHA256SUMS").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(KdcError, match=r"SHA256SUMS was changed: line \d+ is malformed"):
        verify(sealed)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", "C:/x", "a\\b", "./bundle.json", "a//b"])
def test_paths_that_leave_the_bundle_are_refused(sealed: Path, edit_json: Edit, path: str) -> None:
    (sealed.parent / "outside").write_text("secret")
    sums = (sealed / "SHA256SUMS").read_text()
    (sealed / "SHA256SUMS").write_text(sums + f"{'0' * 64}  {path}\n")
    with pytest.raises(KdcError, match="refused"):
        verify(sealed)

    for change in (
        lambda bundle: bundle["support"][0].update(path=path),
        lambda bundle: bundle["eval"].update(labels=path),
        lambda bundle: bundle["variants"][0].update(reference_logits=path),
    ):
        keep = (sealed / "bundle.json").read_bytes()
        edit_json(sealed / "bundle.json", change)
        seal(sealed)
        with pytest.raises(KdcError, match="refused"):
            verify(sealed)
        (sealed / "bundle.json").write_bytes(keep)

    edit_json(sealed / "measurements/measurement.json", lambda found: found["contestants"][0].update(logits=path))
    seal(sealed)
    with pytest.raises(KdcError, match="refused"):
        verify(sealed)
    with pytest.raises(KdcError, match="refused"):
        build_report(sealed)


def test_links_and_special_files_are_refused(sealed: Path) -> None:
    target = sealed.parent / "outside.npy"
    shutil.copy(sealed / "eval" / "labels.npy", target)
    (sealed / "eval" / "labels.npy").unlink()
    (sealed / "eval" / "labels.npy").symlink_to(target)
    for act in (verify, seal, build_report):
        with pytest.raises(KdcError, match=r"labels\.npy.* symbolic link"):
            act(sealed)
    (sealed / "eval" / "labels.npy").unlink()
    shutil.copy(target, sealed / "eval" / "labels.npy")
    verify(sealed)

    (sealed / "loop").symlink_to(sealed, target_is_directory=True)
    with pytest.raises(KdcError, match="loop is a symbolic link"):
        verify(sealed)
    (sealed / "loop").unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(sealed / "pipe")
        with pytest.raises(KdcError, match="pipe is no regular file"):
            verify(sealed)


def test_names_that_the_sums_cannot_hold_are_refused(sealed: Path) -> None:
    (sealed / "two\nlines").write_text("")
    with pytest.raises(KdcError, match="cannot be listed in SHA256SUMS"):
        seal(sealed)


def test_a_file_that_the_manifest_uses_but_does_not_list(sealed: Path, edit_json: Edit) -> None:
    edit_json(sealed / "bundle.json", lambda bundle: bundle["support"].pop())
    seal(sealed)
    with pytest.raises(KdcError, match=r"uses eval/ids\.txt, but lists it nowhere"):
        verify(sealed)


def test_sizes_in_the_manifest_must_be_true(sealed: Path, edit_json: Edit) -> None:
    edit_json(sealed / "bundle.json", lambda bundle: bundle["variants"][0]["files"][0].update(bytes=1))
    seal(sealed)
    with pytest.raises(KdcError, match=r"model\.onnx has 800 bytes, but bundle\.json says 1"):
        verify(sealed)


def test_no_bundle_and_no_sums(tmp_path: Path, make_bundle: Make) -> None:
    with pytest.raises(KdcError, match="is no bundle"):
        verify(tmp_path)
    with pytest.raises(KdcError, match=r"the bundle .*nowhere does not exist"):
        verify(tmp_path / "nowhere")
    (tmp_path / "student.json").touch()
    with pytest.raises(KdcError, match="is no bundle") as caught:
        verify(tmp_path)
    assert caught.value.hint == f"`kdc export {tmp_path} --profile NAME --out DIR` makes one"
    with pytest.raises(KdcError, match="SHA256SUMS is missing"):
        verify(make_bundle())


def test_new_measurements_are_taken_by_refresh_and_by_nothing_else(sealed: Path, edit_json: Edit) -> None:
    logits = sealed / "measurements" / "ort-fp32.npy"
    changed = np.load(logits)
    changed[:100] = changed[:100, ::-1]
    np.save(logits, changed)
    edit_json(
        sealed / "measurements/measurement.json",
        lambda found: found["contestants"][0].update(logits_sha256=file_sha256(logits)),
    )
    (sealed / "measurements" / "extra.log").write_text("new")
    (sealed / "report.md").write_text("stale")
    with pytest.raises(KdcError, match=r"measurements/ort-fp32\.npy was changed"):
        check(sealed)
    verify(sealed, may_change=REMADE)
    report = refresh(sealed)
    assert check(sealed) == report
    assert report.verdict == "fail"

    (sealed / "ort-fp32" / "model.onnx").write_bytes(b"other")
    with pytest.raises(KdcError, match=r"model\.onnx was changed"):
        refresh(sealed)


def test_refresh_refuses_logits_that_are_not_the_measured_ones(sealed: Path) -> None:
    np.save(sealed / "measurements" / "ort-fp32.npy", np.ones((200, 3), np.float32))
    with pytest.raises(KdcError, match="changed after it was measured"):
        refresh(sealed)


def test_inside_names_a_missing_file(sealed: Path) -> None:
    with pytest.raises(KdcError, match=r"nothing\.npy, which bundle\.json names, is missing"):
        inside(sealed, "eval/nothing.npy", "bundle.json")


@pytest.mark.parametrize(
    "path", ["report.md", "measurements/measurement.json", "measurements/new.npy", "best/labels.txt"]
)
def test_a_file_without_end_is_named_and_not_read(sealed: Path, path: str) -> None:
    """A hole of 1 TB: hashing it would take half an hour."""
    with (sealed / path).open("ab") as file:
        file.truncate(10**12)
    for act in (verify, check, refresh):
        with pytest.raises(KdcError, match=rf"{path}.*1000000000000 bytes, more than it can have"):
            act(sealed)


def test_more_samples_than_any_session_has(sealed: Path) -> None:
    """70 MB of them, sealed in: 32 million numbers, of which Python would make gigabytes."""
    path = sealed / "measurements" / "measurement.json"
    path.write_text('{"blocks": [' + "0," * 35_000_000 + "0]}", encoding="utf-8")
    seal(sealed)
    with pytest.raises(KdcError, match=r"measurement\.json has 70000015 bytes"):
        check(sealed)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("path", ["bundle.json", "SHA256SUMS", "report.json", "best/manifest.json", ".kdc-next"])
def test_a_pipe_is_no_file_of_a_bundle(sealed: Path, path: str) -> None:
    (sealed / path).unlink(missing_ok=True)
    os.mkfifo(sealed / path)
    if path == ".kdc-next":
        check(sealed)
        return
    for act in (check, refresh):
        with pytest.raises(KdcError, match=r"no bundle\.json|SHA256SUMS is missing|no regular file"):
            act(sealed)
