"""bench.py as kdc uses it: events, looks, a session that goes on after its connection was lost."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import Bench, Environment, Session, StartBench, assembled, gone
    from tests.targets.tiny_bundle import stub, write_bundle
else:
    from harness import assembled, gone
    from tiny_bundle import stub, write_bundle

from compressor.schema.base import parse
from compressor.schema.measurement import Measurement

A, B = stub("a"), stub("b")
LATENCY = ("--no-predict", "--no-throughput")


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["round"]["number"] for event in events if "round" in event]


def orders(events: list[dict[str, Any]]) -> list[list[str]]:
    return [[block["variant"] for block in event["blocks"]] for event in events if "round" in event]


def test_every_event_is_one_of_those_in_the_readme(bench: "Bench", bundle: Path, tmp_path: Path) -> None:
    write_bundle(bundle, (A, stub("dying", "block!!"), stub("weak", "throughput!")), threads=64)
    (tmp_path / "out").mkdir()
    done = bench("bundle", "--json", "--rounds", "2", "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    known = [{"progress", "total", "doing", "variant"}, {"note"}, {"warning"}, {"state"}, {"round", "blocks"}]
    assert all(set(event) in known for event in events)
    assert [event["note"] for event in events if "note" in event] == [
        "64 threads asked for, more than the cores that may be used"
    ]
    assert [event["warning"] for event in events if "warning" in event] == [
        "dying: its process died (signal 6) during block: too big",
        "weak: no throughput: no throughput",
    ]
    doing = [event["doing"] for event in events if "doing" in event]
    assert list(dict.fromkeys(doing)) == ["loading", "latency", "throughput", "accuracy"]
    for event in events:
        if "doing" in event:
            assert 1 <= event["progress"] <= event["total"]
    last = {event["doing"]: event["progress"] == event["total"] for event in events if "doing" in event}
    assert last == dict.fromkeys(doing, True)


def test_there_is_a_state_after_loading_and_one_at_the_end(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A, stub("weak", "throughput!")))
    events = [json.loads(line) for line in bench("bundle", "--json", "--rounds", "2").stdout.splitlines()]
    kinds = ["state" if "state" in event else "round" for event in events if {"state", "round"} & set(event)]
    assert kinds == ["state", "round", "round", "state"]
    first = next(event["state"] for event in events if "state" in event)
    loaded = parse(Measurement, {**first, "rounds": [], "blocks": []}, "the first state")
    assert loaded.machine_after == loaded.machine_before
    assert [len(one.starts) for one in loaded.contestants] == [3, 3, 3]
    assert (loaded.device, loaded.connections, loaded.looks, loaded.lost, loaded.waited_s) == ("local", 1, 1, None, 0)
    assert "state" in events[-1]
    a, again, weak = assembled(events).contestants
    assert [(way.streams, way.threads, len(way.windows)) for way in a.throughput] == [(1, 1, 6)]
    assert (weak.error, weak.throughput, weak.logits) == (None, (), "weak.npy")
    assert (again.throughput, again.logits) == ((), None)


def test_a_round_tells_what_else_went_on(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A,))
    events = [json.loads(line) for line in bench("bundle", "--json", "--rounds", "3", *LATENCY).stdout.splitlines()]
    rounds = assembled(events).rounds
    assert [one.number for one in rounds] == [0, 1, 2]
    for one in rounds:
        assert one.wall_s > 0
        assert all(seconds is not None and seconds >= 0 for seconds in (one.own_cpu_s, one.busy_cpu_s, one.steal_s))


def test_with_out_the_bundle_is_left_alone(bench: "Bench", bundle: Path, tmp_path: Path) -> None:
    write_bundle(bundle, (A, B))
    before = sorted(path.name for path in bundle.iterdir())
    out = tmp_path / "out"
    out.mkdir()
    done = bench("bundle", "--json", "--rounds", "1", "--out", "out", "--no-throughput")
    assert sorted(path.name for path in bundle.iterdir()) == before
    assert sorted(path.name for path in out.iterdir()) == ["a.npy", "b.npy"]
    result = assembled([json.loads(line) for line in done.stdout.splitlines()])
    assert [one.logits for one in result.contestants] == ["a.npy", None, "b.npy"]
    assert result.contestants[0].logits_sha256 == hashlib.sha256((out / "a.npy").read_bytes()).hexdigest()


def test_a_look_decides_how_long_it_goes_on(begin: "StartBench", bundle: Path) -> None:
    write_bundle(bundle, (A, B))
    session = begin("bundle", "--ask", "--rounds", "2", "--no-throughput")
    assert session.until("look") == 2
    assert session.events[-1] == {"look": 2}
    session.say("more 3")
    assert session.until("look") == 5
    session.say("enough")
    assert session.end() == (0, "")
    result = assembled(session.events)
    assert [one.number for one in result.rounds] == [0, 1, 2, 3, 4]
    assert len(result.blocks) == 15
    assert (bundle / "measurements" / "a.npy").read_bytes() == b"logits"


def test_when_the_time_is_over_the_look_says_so(begin: "StartBench", bundle: Path) -> None:
    write_bundle(bundle, (A,))
    session = begin("bundle", "--ask", "--rounds", "100", "--seconds", "0", *LATENCY)
    session.until("look")
    assert session.events[-1] == {"look": 11, "late": True}
    session.say("more 5")  # there is no time for them
    session.until("look")
    assert session.events[-1] == {"look": 11, "late": True}
    session.say("enough")
    assert session.end() == (0, "")
    assert len(assembled(session.events).rounds) == 11


@pytest.mark.parametrize("answer", ["more", "more -1", "more 0", "yes", ""])
def test_another_answer_is_an_error(begin: "StartBench", bundle: Path, answer: str) -> None:
    write_bundle(bundle, (A,))
    session = begin("bundle", "--ask", "--rounds", "1", *LATENCY)
    session.until("look")
    session.say(answer)
    code, errors = session.end()
    assert (code, errors.count("\n")) == (2, 1)
    assert '"more N" or "enough"' in errors


def test_it_reads_no_more_of_stdin_than_its_answers(begin: "StartBench", bundle: Path) -> None:
    """On a device the pipe is shared with device_agent.py, which reads on when bench.py has ended."""
    write_bundle(bundle, (A,))
    session = begin("bundle", "--ask", "--rounds", "1", *LATENCY)
    assert session.process.stdin is not None
    rest = os.dup(session.process.stdin.fileno())
    session.until("look")
    session.say('enough\n{"op": "close"}')
    session.until("state")
    assert session.process.wait(60) == 0
    ours = os.open(f"/proc/self/fd/{rest}", os.O_RDONLY | os.O_NONBLOCK)  # the other end of the pipe, which we have too
    assert os.read(ours, 100) == b'{"op": "close"}\n'
    os.close(rest)
    os.close(ours)


def ended(session: "Session") -> None:
    """It ended because nobody listens any more, and none of its runners is left."""
    runners = session.runners()
    assert len(runners) == 2
    for pipe in (session.process.stdin, session.process.stdout):
        assert pipe is not None
        pipe.close()
    assert session.process.stderr is not None
    assert (session.process.stderr.read(), session.process.wait(60)) == ("", 130)
    assert all(gone(pid, 0) for pid in runners)


def test_it_ends_when_the_asker_is_gone(begin: "StartBench", bundle: Path) -> None:
    write_bundle(bundle, (A,))
    session = begin("bundle", "--ask", "--rounds", "1")
    session.until("look")
    ended(session)
    assert not list((bundle / "measurements").iterdir())


def test_it_ends_when_the_reader_is_gone(begin: "StartBench", bundle: Path) -> None:
    write_bundle(bundle, (A,))
    session = begin("bundle", "--rounds", "1000000")
    session.until("round")
    ended(session)
    assert not list((bundle / "measurements").iterdir())


def test_the_end_of_stdin_ends_a_session_that_asks(
    scripts: Path, bare: "Environment", bundle: Path, tmp_path: Path
) -> None:
    """Its stdout still open: what it wrote until then is all there."""
    write_bundle(bundle, (A,))
    command = [sys.executable, str(scripts / "bench.py"), "bundle", "--json", "--ask", "--rounds", "1"]
    done = subprocess.run(
        command, cwd=tmp_path, env=bare(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert json.loads(done.stdout.splitlines()[-1]) == {"look": 1}


def test_a_session_that_was_cut_off_goes_on_in_the_same_order(begin: "StartBench", bundle: Path) -> None:
    write_bundle(bundle, (A, B, stub("c")))

    def run(rounds: str, first: str) -> list[dict[str, Any]]:
        session = begin("bundle", "--ask", "--rounds", rounds, "--first-round", first, "--seed", "3", *LATENCY)
        session.until("look")
        session.say("enough")
        assert session.end() == (0, "")
        return session.events

    whole, begun, rest = run("7", "0"), run("4", "0"), run("3", "4")
    assert numbers(begun) + numbers(rest) == numbers(whole) == list(range(7))
    assert orders(begun) + orders(rest) == orders(whole)
    assert len({tuple(order) for order in orders(whole)}) > 1
    state = [event["state"] for event in rest if "state" in event][-1]
    merged = [event for event in begun if "state" not in event] + [event for event in rest if "round" in event]
    assert len(assembled([*merged, {"state": state}]).rounds) == 7


def test_a_session_can_go_on_with_what_is_left_to_do(begin: "StartBench", bundle: Path, tmp_path: Path) -> None:
    write_bundle(bundle, (A,))
    (tmp_path / "out").mkdir()
    session = begin("bundle", "--ask", "--rounds", "0", "--first-round", "30", "--out", "out", "--no-throughput")
    assert session.end() == (0, "")
    assert not [event for event in session.events if {"look", "round"} & set(event)]
    result = assembled(session.events)
    assert (result.rounds, result.blocks) == ((), ())
    assert result.contestants[0].logits == "a.npy"
    assert (tmp_path / "out" / "a.npy").exists()
