"""What bench.py says while it works: events, one JSON object a line, for programs; or lines for people.

Standard library only; runs on Python 3.9 and later. README.md lists the events.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import AskerGoneError, BenchError
else:
    from bench_plan import AskerGoneError, BenchError

P90_SAMPLES = 64  # MLPerf LoadGen: a p90 at 99 % confidence


class Teller:
    """Says what is being done, on stdout: events, or with `as_json` off a line now and then."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def event(self, **fields: Any) -> None:
        if self.as_json:
            print(json.dumps(fields, allow_nan=False), flush=True)

    def step(self, doing: str, done: int, total: int, variant: str, every: int = 1) -> None:
        """One step of `total` is done; people are told of each `every`th."""
        self.event(progress=done, total=total, doing=doing, variant=variant)
        if not self.as_json and (done % every == 0 or done == total):
            print(f"{doing} {done}/{total}" + (f" {variant}" if every == 1 else ""), flush=True)

    def note(self, text: str) -> None:
        self.event(note=text)
        if not self.as_json:
            print(f"note: {text}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        self.event(warning=text)
        if not self.as_json:
            print(text, file=sys.stderr, flush=True)

    def look(self, rounds: int, late: bool) -> int:
        """Ask whether `rounds` rounds are enough; how many more there shall be, 0 for none. AskerGoneError at the end
        of stdin. `late`: the time for rounds is over, so that more of them would not run."""
        self.event(look=rounds, **({"late": True} if late else {}))
        line = read_line()
        words = line.split()
        if words == ["enough"]:
            return 0
        if len(words) == 2 and words[0] == "more" and words[1].isdecimal() and int(words[1]) > 0:
            return int(words[1])
        raise BenchError(f'a look is answered with "more N" or "enough", found {line.strip()[:60]!r}')


def read_line() -> str:
    """A line of stdin, and not a byte more: what follows may be for whoever started this process (device_agent.py)."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise AskerGoneError
        line += byte
    return line.decode("utf-8", "replace")


def table(measurement: dict[str, Any]) -> str:
    """Wall time a call of each contestant, for people. The report derives its figures again from the samples."""
    width = max(len(record["variant"]) for record in measurement["contestants"])
    if "new_tokens" in measurement:
        return answers_table(measurement, width)
    lines = [f"{'variant':{width}}  {'p50 ms':>9}  {'p90 ms':>9}  {'n':>5}  precision"]
    for record in measurement["contestants"]:
        name = record["variant"]
        wall = [ms for block in measurement["blocks"] if block["variant"] == name for ms in block["wall_ms"]]
        if record.get("error") or not wall:
            lines.append(f"{name:{width}}  not measured: {record.get('error', 'no rounds')}")
            continue
        few = f"{f'n < {P90_SAMPLES}':>9}"
        p90 = f"{statistics.quantiles(wall, n=10, method='inclusive')[8]:9.3f}" if len(wall) >= P90_SAMPLES else few
        precision = record["executed_precision"]
        lines.append(f"{name:{width}}  {statistics.median(wall):9.3f}  {p90}  {len(wall):>5}  {precision}")
    return "\n".join(lines)


def answers_table(measurement: dict[str, Any], width: int) -> str:
    """The same of language models: tokens a second, in the median over answers."""
    lines = [f"{'variant':{width}}  {'tokens/s':>9}  {'prompt tokens/s':>15}  {'n':>5}  weights"]
    for record in measurement["contestants"]:
        name = record["variant"]
        blocks = [block for block in measurement["blocks"] if block["variant"] == name]
        if record.get("error") or not blocks:
            lines.append(f"{name:{width}}  not measured: {record.get('error', 'no rounds')}")
            continue
        answers = statistics.median(1000 * len(block["token_ms"]) / sum(block["token_ms"]) for block in blocks)
        precision = record["executed_precision"]
        prompts = statistics.median(1000 * measurement["prompt_tokens"] / block["prompt_ms"] for block in blocks)
        lines.append(f"{name:{width}}  {answers:9.1f}  {prompts:15.1f}  {len(blocks):>5}  {precision}")
    return "\n".join(lines)
