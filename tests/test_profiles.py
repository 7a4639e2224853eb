import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from compressor import __version__
from compressor.assets import asset_dir
from compressor.errors import EXIT_MISSING, EXIT_USAGE, KdcError
from compressor.profiles import (
    budget_text,
    list_profiles,
    load_profile,
    profile_names,
    write_new_profile,
)
from compressor.runtimes import RUNTIMES
from compressor.schema.measurement import Machine
from compressor.schema.profile import CLASS_LINES, Budget, Fact, Profile
from tests.kit import MACHINE

BOARDS = ("android-snapdragon-8gen3", "jetson-orin-nano", "raspberry-pi-5")
GPUS = ("rtx-ada", "rtx-ampere", "rtx-blackwell")
NAMES = tuple(sorted(path.stem for path in asset_dir("profiles").glob("*.yaml")))
AVAILABLE = {"onnxruntime": ["fp32"], "openvino": ["f32", "f16", "bf16"]}
DAY = date(2026, 1, 2)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def machine(**changes: Any) -> Machine:
    values = {
        "arch": "x86_64",
        "cpu": "Test CPU @ 2.0 GHz: fast",
        "isa": ("avx2", "fma"),
        "cores": 8,
        "usable_cores": 8,
        "memory_gb": 15.6,
    }
    return Machine.model_validate({**MACHINE.model_dump(), **values, **changes})


def failure(reference: str, *overrides: str) -> KdcError:
    with pytest.raises(KdcError) as caught:
        load_profile(reference, overrides)
    return caught.value


def facts(profile: Profile) -> Iterator[tuple[str, Fact[Any]]]:
    for key in type(profile.device).model_fields:
        value = getattr(profile.device, key)
        if isinstance(value, Fact):
            yield key, value


def copy_of(built_in: str, path: Path, **changes: Any) -> Path:
    values = yaml.safe_load((asset_dir("profiles") / f"{built_in}.yaml").read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return path


def test_the_built_in_profiles() -> None:
    assert profile_names() == NAMES
    assert {*BOARDS, *GPUS, "x86-avx2", "x86-avx512-vnni"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_built_in(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.batch == 1
    assert profile.threads <= profile.device.cores.value
    assert profile.opset == (17 if profile.device.kind == "jetson" else 18)
    assert profile.budget.min_retention is not None
    for target in profile.targets:
        assert set(target.precisions) <= set(RUNTIMES[target.runtime].precisions)
        assert not RUNTIMES[target.runtime].on_gpu or profile.device.kind in ("jetson", "gpu")
        assert "bf16" not in target.precisions or {"avx512_bf16", "amx_bf16"} & set(profile.device.isa.value)
    assert set(profile.fingerprint.isa) <= set(profile.device.isa.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_has_a_source(name: str) -> None:
    found = dict(facts(load_profile(name)))
    assert {"cpu", "isa", "cores"} <= set(found)
    for key, fact in found.items():
        assert re.match(r"https://|measured: |derived: ", fact.source), key


@pytest.mark.parametrize("name", BOARDS)
def test_boards_have_a_whole_budget_and_tell_themselves(name: str) -> None:
    profile = load_profile(name)
    budget = profile.budget
    assert budget.p50_ms is not None
    assert budget.p90_ms is not None
    assert budget.p50_ms < budget.p90_ms
    assert budget.size_mb is not None
    assert profile.fingerprint.arch == "aarch64"
    assert profile.fingerprint.cpu is not None
    assert profile.fingerprint.cores == profile.device.cores.value


def test_fingerprints() -> None:
    pi, jetson = load_profile("raspberry-pi-5").fingerprint, load_profile("jetson-orin-nano").fingerprint
    assert (pi.cpu, pi.cores) == ("Cortex-A76", 4)
    assert (jetson.cpu, jetson.cores) == ("Cortex-A78AE", 6)
    assert "avx512_vnni" in load_profile("x86-avx512-vnni").fingerprint.isa
    assert "avx512f" not in load_profile("x86-avx2").fingerprint.isa


def test_values_of_one() -> None:
    profile = load_profile("jetson-orin-nano")
    assert profile.device.dense_int8_tops is not None
    assert profile.device.dense_int8_tops.value == 33  # 67 counts sparsity
    assert profile.device.bandwidth_gbs is not None
    assert profile.device.bandwidth_gbs.value == 102
    assert profile.device.sm is not None
    assert profile.device.sm.value == 87
    assert [(target.runtime, target.precisions) for target in profile.targets] == [
        ("onnxruntime", ("fp32",)),
        ("tensorrt", ("fp32", "fp16", "int8")),
    ]


@pytest.mark.parametrize(("name", "sm"), [("rtx-ada", 89), ("rtx-ampere", 86), ("rtx-blackwell", 120)])
def test_gpus_tell_themselves(name: str, sm: int) -> None:
    profile = load_profile(name)
    assert profile.device.sm is not None
    assert profile.device.sm.value == sm
    cards = {
        "rtx-ada": ("NVIDIA GeForce RTX 4090", "NVIDIA RTX 6000 Ada Generation", "NVIDIA RTX 5000 Ada Generation"),
        "rtx-ampere": ("NVIDIA GeForce RTX 3060", "NVIDIA RTX A6000"),
        "rtx-blackwell": ("NVIDIA GeForce RTX 5090", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"),
    }
    for profiled, names in cards.items():
        for card in (*names, "Quadro RTX 4000", "Quadro RTX 5000", "NVIDIA A100-SXM4-80GB"):
            matches = any(part in card for part in profile.fingerprint.gpu)
            assert matches == (profiled == name and card in names), card


def test_overrides() -> None:
    profile = load_profile("x86-avx2", ["budget.p90_ms=12", "targets.1.precisions=[f32]", "budget.size_mb=null"])
    assert profile.budget == Budget(p50_ms=20, p90_ms=12, min_retention=0.9)
    assert profile.targets[1].precisions == ("f32",)


def test_list() -> None:
    rows = {row.name: row for row in list_profiles()}
    assert tuple(rows) == NAMES
    row = rows["x86-avx2"]
    assert (row.kind, row.cpu) == ("x86", "any x86-64 CPU with AVX2")
    assert row.runtimes == ("onnxruntime (fp32, int8)", "openvino (f32, f16, int8)")
    assert row.budget == "p50 <= 20 ms, p90 <= 33 ms, size <= 25 MB, retention >= 0.9"


def test_budget_text() -> None:
    assert budget_text(Budget()) == "none"
    memory = {"peak_rss_mb": 4, "model_rss_mb": 2.5}
    whole = Budget(p50_ms=1.5, p90_ms=2, size_mb=3, **memory, min_retention=0.95, min_accuracy=0.8)
    assert budget_text(whole) == (
        "p50 <= 1.5 ms, p90 <= 2 ms, size <= 3 MB, memory <= 4 MB, memory of the model <= 2.5 MB, retention >= 0.95, "
        "accuracy >= 0.8"
    )
    held = Budget(max_slowdown=1.1, max_growth=1.2, max_accuracy_loss=0.01, max_negative_flips=0.02)
    assert budget_text(held) == "slowdown <= 1.1, growth <= 1.2, accuracy loss <= 0.01, negative flips <= 0.02"
    beside = Budget(min_speedup=2, min_balanced_accuracy=0.7)
    assert budget_text(beside) == "speed-up >= 2, balanced accuracy >= 0.7"


def test_by_path_and_by_name_in_this_folder(tmp_path: Path) -> None:
    copy_of("x86-avx2", tmp_path / "mine.yaml", name="mine")
    assert load_profile("mine").name == "mine"
    assert load_profile("./mine.yaml") == load_profile("mine") == load_profile("mine.yaml")
    (tmp_path / "sub").mkdir()
    copy_of("x86-avx2", tmp_path / "sub" / "other.yml", name="x")
    assert load_profile("sub/other.yml").name == "x"


def test_ambiguous(tmp_path: Path) -> None:
    copy_of("x86-avx2", tmp_path / "x86-avx2.yaml", threads=1)
    error = failure("x86-avx2")
    assert error.exit_code == EXIT_USAGE
    assert error.message == (
        "profile x86-avx2 is ambiguous: it is built in, and x86-avx2.yaml lies in the current directory"
    )
    assert error.hint.startswith("for the file write ./x86-avx2.yaml; for the built-in one ")
    assert load_profile("./x86-avx2.yaml").threads == 1
    assert load_profile(str(asset_dir("profiles") / "x86-avx2.yaml")).threads == 2


def test_not_ambiguous_in_the_folder_of_the_built_in_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(asset_dir("profiles"))
    assert load_profile("x86-avx2").name == "x86-avx2"


def test_unknown() -> None:
    error = failure("rasberry-pi-5")
    assert error.exit_code == EXIT_USAGE
    assert error.message == (f"unknown profile rasberry-pi-5; did you mean raspberry-pi-5?; known: {', '.join(NAMES)}")
    assert "kdc profiles new NAME" in error.hint
    assert "did you mean" not in failure("zzz").message
    assert failure("no/such.yaml").message == "no/such.yaml does not exist"
    assert failure("x86-avx2.yaml").hint == "the built-in profile is named without ending: x86-avx2"


def test_a_misspelt_profile_of_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kitchen.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KdcError, match=r"unknown profile kichen; did you mean kitchen\?"):
        load_profile("kichen")


def test_a_file_that_says_another_name(tmp_path: Path) -> None:
    copy_of("x86-avx2", tmp_path / "mine.yaml")
    error = failure("mine")
    assert error.message == "profile mine: the file mine.yaml says name: x86-avx2"
    assert error.hint == "write name: mine in it, or give its path: ./mine.yaml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("budget.p90=20", "unknown key budget.p90; did you mean budget.p90_ms?"),
        ("bugdet.p90_ms=20", "unknown key bugdet; did you mean budget?"),
        ("budget.p90_ms=-1", "budget.p90_ms: should be greater than 0, found -1"),
        ("threads=0", "threads: should be greater than or equal to 1, found 0"),
        ("opset=9", "opset: should be greater than or equal to 17, found 9"),
        ("device.kind=phone", "device.kind: should be 'mobile-cpu', 'jetson', 'x86' or 'gpu', found 'phone'"),
        ("device.cores=4", "device.cores: should be a valid dictionary or instance of Fact[int], found 4"),
        ("device.cpu.source=null", "device.cpu.source: should be a valid string, found None"),
        ("schema=2", "schema: should be 1, found 2"),
        ("name=My Box", "name: string should match pattern '^[a-z0-9][a-z0-9._-]*$', found 'My Box'"),
        ("targets=[]", "targets: tuple should have at least 1 item after validation, not 0, found []"),
        ("targets.2={runtime: onnxruntime}", "--set targets.2: targets has 2 entries, so there is no 2"),
        (
            "targets.1.runtime=onnxruntime",
            "names the same runtime twice in targets; list all its precisions in one row",
        ),
        (
            "targets.0.precisions=[int4]",
            "unknown precision int4 of runtime onnxruntime; permitted: fp32, fp16, int8",
        ),
        (
            "targets.0.precisions=[f32]",
            "unknown precision f32 of runtime onnxruntime; did you mean fp32?; permitted: fp32",
        ),
        ("targets.1.precisions=[fp8]", "unknown precision fp8 of runtime openvino; permitted: f32, f16, bf16, int8"),
        ("targets.1.precisions=[f32, f32]", "names a precision of openvino twice: f32, f32"),
        (
            "targets.1.runtime=openvin",
            "unknown runtime openvin; did you mean openvino?; known: onnxruntime, openvino",
        ),
    ],
)
def test_errors(override: str, message: str) -> None:
    error = failure("x86-avx2", override)
    assert error.exit_code == EXIT_USAGE
    assert error.message.replace("profile x86-avx2: ", "", 1).startswith(message)
    assert error.message.startswith("profile x86-avx2: ")


def test_a_runtime_without_runner() -> None:
    error = failure("x86-avx2", "targets.1.runtime=ncnn")
    assert error.exit_code == EXIT_MISSING
    assert error.message == (
        "profile x86-avx2 asks for runtime ncnn, which this version of kdc cannot build for "
        f"(it has: {', '.join(RUNTIMES)})"
    )


def test_new_round_trips(tmp_path: Path) -> None:
    path = write_new_profile("box", tmp_path, machine(), AVAILABLE, day=DAY)
    assert path == tmp_path / "box.yaml"
    profile = load_profile("box")
    assert profile.device.model_dump(exclude_none=True) == {
        "kind": "x86",
        "cpu": {"value": "Test CPU @ 2.0 GHz: fast", "source": "measured: read from this machine"},
        "isa": {"value": ("avx2", "fma"), "source": "measured: read from this machine"},
        "cores": {"value": 8, "source": "measured: read from this machine"},
        "memory_gb": {"value": 15.6, "source": "measured: read from this machine"},
    }
    assert [(target.runtime, target.precisions) for target in profile.targets] == [
        ("onnxruntime", ("fp32",)),
        ("openvino", ("f32", "f16", "bf16")),
    ]
    assert (profile.threads, profile.batch, profile.input_size, profile.opset) == (4, 1, 224, 18)
    assert profile.budget == Budget(min_retention=0.9)
    assert profile.fingerprint.model_dump() == {
        "arch": "x86_64",
        "cpu": "Test CPU @ 2.0 GHz: fast",
        "isa": ("avx2", "fma"),
        "cores": 8,
        "gpu": (),
    }


def test_new_has_comments(tmp_path: Path) -> None:
    text = write_new_profile("box", tmp_path, machine(), AVAILABLE, day=DAY).read_text(encoding="utf-8")
    assert text.startswith(
        f"# A profile measured on this machine: Test CPU @ 2.0 GHz: fast. Written by kdc {__version__} on 2026-01-02.\n"
    )
    against = ("max_accuracy_loss", "max_negative_flips", "max_growth", "max_slowdown")
    keeps = ("min_accuracy", "min_balanced_accuracy", *CLASS_LINES)
    for line in ("p50_ms", "p90_ms", "size_mb", "peak_rss_mb", "model_rss_mb", *keeps, *against):
        assert f"\n  # {line}: " in text
    # What a comment invites to add is right once its "# " is gone.
    (tmp_path / "box.yaml").write_text(re.sub(r"^  # (?=\w+: \d)", "  ", text, flags=re.M), encoding="utf-8")
    assert load_profile("box").budget == Budget(
        min_retention=0.9, p50_ms=20, p90_ms=33, size_mb=20, peak_rss_mb=300, model_rss_mb=100, min_accuracy=0.9,
        min_balanced_retention=0.7, min_class_retention=0.5, min_class_recall=0.1, min_balanced_accuracy=0.85,
        max_accuracy_loss=0.01, max_negative_flips=0.02, max_growth=1.1, max_slowdown=1.1,
    )  # fmt: skip


def test_new_with_overrides(tmp_path: Path) -> None:
    overrides = ["budget.p90_ms=20", "notes=the one under my desk", "threads=1"]
    text = write_new_profile("box", tmp_path, machine(), AVAILABLE, overrides, DAY).read_text(encoding="utf-8")
    assert "# p90_ms" not in text
    profile = load_profile("box")
    assert (profile.budget.p90_ms, profile.notes, profile.threads) == (20, "the one under my desk", 1)
    write_new_profile("bare", tmp_path, machine(), AVAILABLE, ["budget.min_retention=null"], DAY)
    assert load_profile("bare").budget == Budget()
    write_new_profile("off", tmp_path, machine(), AVAILABLE, ["budget.min_class_retention=null"], DAY)
    lines = load_profile("off").budget.class_lines(against_teacher=True)
    assert lines == {"min_balanced_retention": 0.7}, "null is written, else the default would come back"


@pytest.mark.parametrize(
    ("given", "with_teacher", "alone"),
    [
        ({}, {"min_balanced_retention": 0.7, "min_class_retention": 0.5}, {"min_class_recall": 0.1}),
        (
            {"min_retention": 0.6},
            {"min_balanced_retention": 0.6, "min_class_retention": 0.5},
            {"min_class_recall": 0.1},
        ),
        (
            {"min_retention": 0.4},
            {"min_balanced_retention": 0.4, "min_class_retention": 0.4},
            {"min_class_recall": 0.1},
        ),
        (dict.fromkeys(CLASS_LINES), {}, {}),
        (
            {"min_class_retention": 0.8, "min_balanced_retention": None, "min_class_recall": 0.3},
            {"min_class_retention": 0.8, "min_class_recall": 0.3},
            {"min_class_retention": 0.8, "min_class_recall": 0.3},
        ),
    ],
)
def test_the_lines_on_classes_have_defaults(
    given: dict[str, Any], with_teacher: dict[str, float], alone: dict[str, float]
) -> None:
    """They survive being written into a bundle and read again, null too."""
    for budget in (Budget(**given), Budget.model_validate_json(Budget(**given).model_dump_json())):
        assert budget.class_lines(against_teacher=True) == with_teacher
        assert budget.class_lines(against_teacher=False) == alone


@pytest.mark.parametrize("name", NAMES)
def test_built_in_profiles_see_a_lost_class(name: str) -> None:
    lines = load_profile(name).budget.class_lines(against_teacher=True)
    assert lines == {"min_balanced_retention": 0.7, "min_class_retention": 0.5}


@pytest.mark.parametrize(
    ("changes", "kind", "threads", "opset"),
    [
        ({"usable_cores": 2}, "x86", 2, 18),
        ({"arch": "AMD64"}, "x86", 4, 18),
        ({"arch": "aarch64", "cpu": "Cortex-A76 (Raspberry Pi 5 Model B Rev 1.0)"}, "mobile-cpu", 4, 18),
        ({"arch": "aarch64", "cpu": "Cortex-A78AE (NVIDIA Jetson Orin Nano Developer Kit)"}, "jetson", 4, 17),
    ],
)
def test_new_kinds(tmp_path: Path, changes: dict[str, Any], kind: str, threads: int, opset: int) -> None:
    write_new_profile("box", tmp_path, machine(**changes), AVAILABLE, day=DAY)
    profile = load_profile("box")
    assert (profile.device.kind, profile.threads, profile.opset) == (kind, threads, opset)


def test_new_on_a_machine_that_says_little(tmp_path: Path) -> None:
    write_new_profile("box", tmp_path, machine(cpu="unknown"), {"onnxruntime": ["fp32"], "openvino": []}, day=DAY)
    profile = load_profile("box")
    assert profile.fingerprint.cpu is None
    assert [target.runtime for target in profile.targets] == ["onnxruntime"]
    with pytest.raises(KdcError, match="fingerprint: needs cpu, isa or gpu") as caught:
        write_new_profile("none", tmp_path, machine(cpu="unknown", isa=()), AVAILABLE, day=DAY)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("My Box", "'My Box' is no name for a profile", "kdc profiles new my-box"),
        ("box.yaml", "'box.yaml' is no name for a profile", "kdc profiles new box"),
        ("../box", "'../box' is no name for a profile", "kdc profiles new box"),
        ("", "'' is no name for a profile", "kdc profiles new my-device"),
        ("box\n", "'box\\n' is no name for a profile", "kdc profiles new box"),
        ("x86-avx2", "profile x86-avx2 is built in", "choose another name, e.g. kdc profiles new my-x86-avx2"),
        ("taken", "taken.yaml exists already", "--overwrite to replace it, or choose another name"),
    ],
)
def test_new_refuses(tmp_path: Path, name: str, message: str, hint: str) -> None:
    (tmp_path / "taken.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(KdcError) as caught:
        write_new_profile(name, tmp_path, machine(), AVAILABLE, day=DAY)
    assert caught.value.exit_code == EXIT_USAGE
    assert message in caught.value.message
    assert caught.value.hint == hint
    assert [path.name for path in tmp_path.iterdir()] == ["taken.yaml"]
    assert (tmp_path / "taken.yaml").read_text(encoding="utf-8") == "mine"


def test_new_overwrites_its_own_alone(tmp_path: Path) -> None:
    path = write_new_profile("box", tmp_path, machine(), AVAILABLE, ["budget.p50_ms=5"], DAY)
    before = path.read_bytes()
    with pytest.raises(KdcError, match="no runtime works on this machine"):
        write_new_profile("box", tmp_path, machine(), {"openvino": []}, overwrite=True)
    with pytest.raises(KdcError, match=r"unknown key budget\.p51_ms"):
        write_new_profile("box", tmp_path, machine(), AVAILABLE, ["budget.p51_ms=5"], overwrite=True)
    assert path.read_bytes() == before, "nothing is lost until the new one is written"
    write_new_profile("box", tmp_path, machine(), AVAILABLE, ["budget.p50_ms=7"], DAY, overwrite=True)
    assert path.read_bytes() == before.replace(b"p50_ms: 5", b"p50_ms: 7") != before
    path.write_text("name: box\ndevice: {}\ntargets: []\nschema: 9\n", encoding="utf-8")
    write_new_profile("box", tmp_path, machine(), AVAILABLE, ["budget.p50_ms=5"], DAY, overwrite=True)
    assert path.read_bytes() == before, "one of another kdc, too, is a profile"
    assert [file.name for file in tmp_path.iterdir()] == ["box.yaml"]


@pytest.mark.parametrize(
    "content", ["losses: [{name: kd}]\n", "name: other\ndevice: {}\ntargets: []\n", "[", "mine", ""]
)
def test_new_overwrites_nothing_else(tmp_path: Path, content: str) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(KdcError, match=r"box\.yaml is no file of a profile named box, so it is left alone"):
        write_new_profile("box", tmp_path, machine(), AVAILABLE, overwrite=True)
    assert path.read_text(encoding="utf-8") == content
    path.rename(tmp_path / "theirs.yaml")
    path.symlink_to("theirs.yaml")
    with pytest.raises(KdcError, match="so it is left alone"):
        write_new_profile("box", tmp_path, machine(), AVAILABLE, overwrite=True)


def test_new_refuses_conflicts_and_nothing_to_run(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="--set name=other contradicts the name given"):
        write_new_profile("box", tmp_path, machine(), AVAILABLE, ["name=other"])
    with pytest.raises(KdcError, match="unknown precision int4 of runtime openvino"):
        write_new_profile("box", tmp_path, machine(), {"openvino": ["int4"]})
    with pytest.raises(KdcError, match="no runtime works on this machine") as caught:
        write_new_profile("box", tmp_path, machine(), {"openvino": []})
    assert caught.value.exit_code == EXIT_MISSING
    assert caught.value.hint == ", or ".join(
        dict.fromkeys(row.install for row in RUNTIMES.values() if not row.generates)
    )
    assert not list(tmp_path.iterdir())
