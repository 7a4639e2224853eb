"""An earlier bundle beside the new one: copied whole, named in the manifest, refused where they cannot be compared."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chain_bundle import write_chain_bundle
from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.measure.baseline import attach_baseline
from compressor.measure.machine import this_machine
from compressor.report import compared_with, read_baseline, read_unmeasured, release_of, seal, verify
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle
from compressor.schema.profile import Budget
from compressor.schema.release import Release
from tests.kit import attach


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles of chains, the old one of 4 convolutions and the new one of 5."""
    folder = tmp_path_factory.mktemp("chains")
    for name, blocks in (("old", 4), ("new", 5)):
        write_chain_bundle(folder / name, blocks, 1, Budget(), this_machine())
    return folder


@pytest.fixture
def old(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "old", tmp_path / "old"))


@pytest.fixture
def new(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "new", tmp_path / "new"))


def change(bundle: Path, edit: Callable[[Bundle], Bundle]) -> None:
    write_json(bundle / "bundle.json", edit(read_json(bundle / "bundle.json", Bundle)))


def test_the_baseline_is_copied_whole_and_the_bundle_can_be_sealed(old: Path, new: Path) -> None:
    attached = attach(new, old)
    (variant,) = [one for one in attached.variants if one.role == "baseline"]
    (student,) = [one for one in attached.variants if one.role == "student"]
    assert variant.name == f"baseline-{student.name}"
    assert file_sha256(new / variant.model) == file_sha256(old / student.model) != file_sha256(new / student.model)
    assert attached.baseline == read_json(old / "bundle.json", Bundle).student
    assert attached == read_json(new / "bundle.json", Bundle)
    shutil.rmtree(old)  # nothing of it is needed any more
    seal(new)
    verify(new)


def test_a_second_baseline_replaces_the_first(old: Path, new: Path) -> None:
    once = attach(new, old)
    assert attach(new, old) == once
    assert not list(new.glob(".*"))
    seal(new)
    verify(new)


def test_what_cannot_be_compared_is_refused_and_nothing_changes(old: Path, new: Path) -> None:
    before = (new / "bundle.json").read_bytes()

    def refused(words: str) -> None:
        with pytest.raises(KdcError, match=words) as caught:
            attach(new, old)
        assert caught.value.exit_code == 2
        assert (new / "bundle.json").read_bytes() == before
        assert not (new / "baseline").exists()

    manifest = read_json(old / "bundle.json", Bundle)
    other_classes = manifest.student.model_copy(update={"class_names": manifest.student.class_names[::-1]})
    change(old, lambda bundle: bundle.model_copy(update={"student": other_classes}))
    refused("other classes, or another order")
    change(
        old, lambda bundle: manifest.model_copy(update={"profile": manifest.profile.model_copy(update={"batch": 2})})
    )
    refused("batch 2, this bundle for batch 1|made for batch 2")
    other = manifest.variants[0].model_copy(update={"precision": "int8", "name": "onnxruntime-int8"})
    change(old, lambda bundle: manifest.model_copy(update={"variants": (other,), "reference": other.name}))
    refused("no variant of this bundle .onnxruntime-fp32.; it has: onnxruntime-int8")
    write_json(old / "bundle.json", manifest)
    shown(old, None)
    shown(new, None)
    before = (new / "bundle.json").read_bytes()
    np.save(old / "eval" / "labels.npy", np.zeros(manifest.eval.n, np.int64))
    refused("tested on other samples")


def shown(bundle: Path, contents: str | None) -> None:
    """As an earlier kdc made it, which said of all images together what they show, or nothing."""
    tested = {"contents": contents, "digests": None}
    change(bundle, lambda one: one.model_copy(update={"eval": one.eval.model_copy(update=tested)}))


def test_other_images_under_the_same_names_are_not_compared(old: Path, new: Path) -> None:
    shown(old, "a" * 64)
    shown(new, "b" * 64)
    with pytest.raises(KdcError, match="tested on other samples, and this bundle does not say what each"):
        attach(new, old)
    assert not (new / "baseline").exists()


def test_the_same_images_under_other_names_are(old: Path, new: Path) -> None:
    for bundle in (old, new):
        shown(bundle, None)
    ids = old / "eval" / "ids.txt"
    ids.write_text("".join(f"elsewhere/{line}\n" for line in ids.read_text().splitlines()))
    with pytest.raises(KdcError, match="tested on other samples, and this bundle does not say what each"):
        attach(new, old)
    for bundle in (old, new):
        shown(bundle, "a" * 64)
    assert attach(new, old).baseline is not None


def test_a_test_set_that_grew_races_and_is_compared_on_what_both_have(old: Path, new: Path) -> None:
    n = read_json(old / "bundle.json", Bundle).eval.n
    write_chain_bundle(new, 5, 1, Budget(), this_machine(), range(2, n + 10))
    attached = attach(new, old)
    assert (attached.baseline_n, attached.release) == (n, "baseline/release.json")
    assert any(variant.role == "baseline" for variant in attached.variants)
    shared = read_unmeasured(new).shared
    assert shared is not None
    assert shared.now.tolist() == list(range(n - 2))
    assert shared.before.tolist() == list(range(2, n))
    assert shared.text == f"{n - 2} test samples are in both: 10 are new, 2 are gone, and left out"
    seal(new)
    verify(new)
    write_chain_bundle(new, 5, 1, Budget(), this_machine(), range(1000, 1000 + n))
    with pytest.raises(KdcError, match="tested on other samples, of which none is in both"):
        attach(new, old)


def test_a_release_alone_is_kept_and_nothing_races(old: Path, new: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "release.json", release_of(old))
    baseline = read_baseline(tmp_path / "release.json", new)
    assert baseline.folder is None
    attached = attach_baseline(new, None, compared_with(new, baseline).release, same_test=True)
    assert attached.baseline is None
    assert not any(variant.role == "baseline" for variant in attached.variants)
    assert read_json(new / "baseline" / "release.json", Release) == release_of(old)
    seal(new)
    verify(new)
    with pytest.raises(KdcError, match=r"tiny.json does not exist"):
        read_baseline(tmp_path / "tiny.json")
    (tmp_path / "report.json").write_text('{"rows": [], "checks": [], "verdict": "pass"}')
    with pytest.raises(KdcError, match="is a report, which holds no predictions"):
        read_baseline(tmp_path / "report.json")


def test_a_bundle_is_no_baseline_of_itself(new: Path) -> None:
    seal(new)
    with pytest.raises(KdcError, match="is the bundle itself"):
        read_baseline(new, new)


def test_a_baseline_that_lacks_a_file_leaves_the_bundle_as_it_was(old: Path, new: Path) -> None:
    before = (new / "bundle.json").read_bytes()
    (old / "model.onnx").unlink()
    with pytest.raises(KdcError, match=r"copying .*old into .*new"):
        attach(new, old)
    assert (new / "bundle.json").read_bytes() == before
    assert not list(new.glob("*baseline*"))
    assert not list(new.glob(".*"))
