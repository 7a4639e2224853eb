"""What drawings are made of: a scale with its ticks, and elements whose texts are escaped. Colours are the style's."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

__all__ = ["Scale", "circle", "drawing", "group", "limit_line", "line", "path", "rect", "text", "wide"]


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on the places from `start` to `end`; by their logarithms, where `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high = self._on(self.low), self._on(self.high)
        return self.start + (self.end - self.start) * (self._on(max(value, self.low / 10)) - low) / (high - low)

    def _on(self, value: float) -> float:
        return math.log(value) if self.log else value

    @property
    def ticks(self) -> list[float]:
        """Round values within, four to eight of them."""
        if self.log and self.high / self.low > 5:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for parts in ((1, 2, 5), (1, 3), (1,)):
                round_values = [part * 10.0**decade for decade in decades for part in parts]
                inside = [value for value in round_values if self.low <= value <= self.high]
                if len(inside) <= 8:
                    return inside
            return inside[:: -(-len(inside) // 8)]
        rough = (self.high - self.low) / 5
        step = 10.0 ** math.floor(math.log10(rough))
        step *= next(part for part in (1, 2, 5, 10) if part * step >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def wide(values: Iterable[float], start: float, end: float, *, log: bool = False, room: float = 0.06) -> Scale:
    """A scale that shows all of `values`, with some room on either side."""
    listed = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(listed), max(listed)) if listed else (1.0, 10.0)
    if log:
        spread = max(high / low, 1.2) ** room
        return Scale(low / spread, high * spread, start, end, log=True)
    spread = max((high - low) * room, abs(high) * 0.005, 1e-6)
    return Scale(low - spread, high + spread, start, end)


def drawing(width: float, height: float, title: str, parts: Iterable[Markup], name: str = "") -> Markup:
    """An svg that fills its place; `title`: what who cannot see it is told."""
    return Markup('<svg class="chart {}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
        name, width, height, title, Markup("").join(parts)
    )


def group(name: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<g class="{}">{}</g>').format(name, Markup("").join(parts))


def line(x1: float, y1: float, x2: float, y2: float, name: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(name, x1, y1, x2, y2)


def limit_line(scale: Scale, budget_line: str, across: tuple[float, float], *, upright: bool) -> Markup:
    """Where a limit of the budget lies, which the page's script moves along `scale`; hidden while there is none."""
    first, last = ("y1", "y2") if upright else ("x1", "x2")
    given = f'data-line="{budget_line}" data-low="{scale.low!r}" data-high="{scale.high!r}" data-log="{int(scale.log)}"'
    along = f'data-start="{scale.start:.1f}" data-end="{scale.end:.1f}" data-upright="{int(upright)}"'
    ends = f'{first}="{across[0]:.1f}" {last}="{across[1]:.1f}"'
    # budget_line is a name of ours, and everything else a number.
    return Markup(f'<line class="limit" visibility="hidden" {given} {along} {ends}/>')


def rect(x: float, y: float, width: float, height: float, name: str) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        name, x, y, max(0.0, width), height
    )


def circle(x: float, y: float, radius: float, name: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"/>').format(name, x, y, radius)


def path(points: Sequence[tuple[float, float]], name: str) -> Markup:
    places = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return Markup('<path class="{}" d="M{}"/>').format(name, places)


def text(x: float, y: float, content: str, name: str = "", anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        name, x, y, anchor, content
    )
