"""Charts as inline SVG text: small multiples of lines, strips of values with intervals, and a scatter with both.

No `style` attribute anywhere: the page's security policy forbids it, and classes let one drawing serve light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from expunge.report import words

SERIES_COLOURS = 8
MAX_POINTS = 240
MANY_LINES = 6
"""Lines with all their points; more lines share as many."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340, 184, 46, 10, 8, 34


@dataclass(frozen=True)
class Series:
    """One line: y may hold None, where the line breaks. `style` is its place in the palette."""

    name: str
    style: int
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """A drawn chart: its SVG, and the data that the script reads out under the pointer."""

    key: str
    title: str
    note: str
    svg: Markup
    data: dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """A value with its interval and how it is drawn: `css` is target, oracle, or s0 to s7."""

    name: str
    css: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Scale:
    """Map from data to pixels with round ticks: linear, or with `log` equal steps for equal factors (low > 0)."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, rounded to a tenth.

        >>> Scale(1, 100, 0, 200)(10), Scale(1, 100, 0, 200, log=True)(10)
        (18.2, 100.0)
        """
        low, high, at = map(math.log, (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return round(self.start + (at - low) / (high - low) * (self.stop - self.start), 1)

    def ticks(self, count: int = 4) -> list[float]:
        """Round numbers within the domain, about `count` of them; 1, 2 and 5 times powers of ten if `log`.

        >>> Scale(1e-5, 1e-2, 0, 200, log=True).ticks(4), Scale(0.5, 4, 0, 200, log=True).ticks(4)
        ([1e-05, 0.0001, 0.001, 0.01], [0.5, 1.0, 2.0])
        """
        if self.log:
            return self._log_ticks(count)
        step = _nice((self.high - self.low) / max(1, count))
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _log_ticks(self, count: int) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found: list[float] = []
        for factors in ((1,), (1, 2, 5)):
            every = [float(f"{factor}e{power}") for power in powers for factor in factors]
            found = [v for v in every if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
            if len(found) >= min(count, 3):
                break
        return found[:: max(1, -(-len(found) // (count + 1)))]


def lines(
    key: str,
    title: str,
    series: Sequence[Series],
    x_name: str,
    note: str = "",
    within: tuple[float, float] | None = None,
    log: bool = False,
) -> Chart | None:
    """A small line chart; None if no series has a finite value. `within` is the y domain if all values fit into it.

    `log`: equal factors of x, all above 0, lie equally far apart.
    """
    points = max(24, MAX_POINTS * MANY_LINES // max(MANY_LINES, len(series)))
    series = [thinned for one in series if (thinned := _thin(one, points)).x]
    if not series:
        return None
    places = [v for one in series for v in one.x]
    x = _domain([0.0, *places] if not log and 0 < min(places) < 0.1 * max(places) else places, pad=0)
    values = [v for one in series for v in one.y if v is not None]
    fits = within is not None and within[0] <= min(values) and max(values) <= within[1]
    y = _domain(within if fits and within else values, pad=0.02 if fits else 0.06)
    across, up = Scale(*x, LEFT, WIDTH - RIGHT, log), Scale(*y, HEIGHT - BOTTOM, TOP)
    parts = [_axes(across, up, x_name)]
    for one in series:
        path = _path(one, across, up)
        parts.append(f'<path class="line s{one.style % SERIES_COLOURS}" d="{path}"/>')
        if sum(v is not None for v in one.y) == 1:
            at = next(i for i, v in enumerate(one.y) if v is not None)
            parts.append(_dot(across(one.x[at]), up(one.y[at] or 0.0), f"s{one.style % SERIES_COLOURS}", 3))
    parts.append(f'<line class="rule" x1="0" x2="0" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    data = {
        "x": x_name,
        "domain": list(x),
        "log": log,
        "plot": [LEFT, WIDTH - RIGHT],
        "series": [
            {"name": one.name, "style": one.style % SERIES_COLOURS, "x": list(one.x), "y": list(one.y)}
            for one in series
        ],
    }
    svg = _svg(WIDTH, HEIGHT, f"{title}. {'; '.join(map(_spoken, series))}", parts, "chart-lines")
    return Chart(key, title, note, svg, data)


def strip(mark: Mark, domain: tuple[float, float], band: Mark | None) -> Markup:
    """One row of a comparison: the value as a dot, its interval as a bar, and the oracle's as a band to land in."""
    width, height, edge = 220, 26, 7
    across, middle = Scale(*domain, edge, width - edge), height / 2
    parts = [_line("axis", edge, width - edge, middle, middle)]
    if domain[0] < 0 < domain[1]:
        parts.append(_line("zero", across(0), across(0), edge, height - edge))
    if band is not None:
        low, high = map(across, _ends(band))
        parts.append(f'<rect class="band" x="{low - 1:.1f}" y="0" width="{high - low + 2:.1f}" height="{height}"/>')
    low, high = map(across, _ends(mark))
    if high > low:
        parts.append(_line(f"whisker {mark.css}", low, high, middle, middle))
    parts.append(_dot(across(mark.value), middle, mark.css, 5.5))
    return _svg(width, height, "", parts, "strip")


def strip_domain(marks: Sequence[Mark]) -> tuple[float, float]:
    """A domain shared by the rows: 0 to 1 where all lies within, else a little more than the marks need."""
    ends = [end for mark in marks for end in (*_ends(mark), mark.value)]
    if min(ends) >= 0 and max(ends) <= 1:
        return (0.0, 1.0)
    return _domain([*ends, 0.0], pad=0.05)


def bars(title: str, marks: Sequence[Mark]) -> Markup:
    """A bar a model from zero, with its interval; slanted names below."""
    width, height, left, bottom = WIDTH, 210, 46, 62
    ends = [end for mark in marks for end in (*_ends(mark), mark.value)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    up = Scale(*((0.0, 1.0) if low == 0 and high <= 1 else _domain([low, high], pad=0.04)), height - bottom, TOP)
    slot = (width - RIGHT - left) / len(marks)
    parts = [_line("grid", left, width - RIGHT, up(tick), up(tick)) for tick in up.ticks(4)]
    parts += [_text("tick", left - 6, up(tick) + 3.5, "end", _tick(tick)) for tick in up.ticks(4)]
    for place, mark in enumerate(marks):
        middle, thick = left + (place + 0.5) * slot, min(34.0, 0.64 * slot)
        top, foot = sorted((up(mark.value), up(0.0)))
        parts.append(
            f'<rect class="bar {mark.css}" x="{middle - thick / 2:.1f}" y="{top:.1f}" width="{thick:.1f}" '
            f'height="{max(0.5, foot - top):.1f}"/>'
        )
        below, above = map(up, _ends(mark))
        parts += [_line("error", middle, middle, below, above)] if below != above else []
        shown = mark.name if len(mark.name) <= 14 else mark.name[:13] + "…"
        parts.append(
            f'<g transform="translate({middle + 4:.1f} {height - bottom + 14}) rotate(-35)">'
            f"{_text('tick', 0, 0, 'end', shown)}</g>"
        )
    parts.append(_line("axis", left, width - RIGHT, up(0.0), up(0.0)))
    spoken = "; ".join(f"{mark.name}: {_tick(mark.value)}" for mark in marks)
    return _svg(width, height, f"{title}. {spoken}", parts, "bars")


def scatter(
    title: str,
    x_name: str,
    y_name: str,
    marks: Sequence[tuple[Mark, Mark]],
    front: Sequence[str] = (),
    chosen: Collection[str] = (),
) -> Markup:
    """Models as points with both intervals, names beside them. Each pair is the same model on x and on y.

    A line joins those named in `front`, and those in `chosen` are drawn larger.
    """
    width, height, left, bottom = 520, 340, 56, 44
    x = _domain([end for one, _ in marks for end in (*_ends(one), one.value)], pad=0.08)
    y = _domain([end for _, one in marks for end in (*_ends(one), one.value)], pad=0.08)
    across, up = Scale(*x, left, width - 16), Scale(*y, height - bottom, 14)
    parts = []
    for tick in up.ticks(5):
        parts.append(_line("grid", left, width - 16, up(tick), up(tick)))
        parts.append(_text("tick", left - 8, up(tick) + 4, "end", _tick(tick)))
    for tick in across.ticks(6):
        parts.append(_text("tick", across(tick), height - bottom + 18, "middle", _tick(tick)))
    parts.append(_line("axis", left, width - 16, height - bottom, height - bottom))
    parts.append(_text("label", width - 16, height - 6, "end", f"{x_name} →"))
    parts.append(_text("label", 0, 10, "start", f"↑ {y_name}"))
    taken: list[tuple[float, float]] = []
    ends = sorted((across(one.value), up(other.value)) for one, other in marks if one.name in front)
    if len(ends) > 1:
        parts.append(f'<path class="front" d="M{"L".join(f"{a} {b}" for a, b in ends)}"/>')
    for one, other in marks:
        x_at, y_at = across(one.value), up(other.value)
        (left_end, right_end), (low_end, high_end) = map(across, _ends(one)), map(up, _ends(other))
        parts.append(_line(f"whisker {one.css}", left_end, right_end, y_at, y_at))
        parts.append(_line(f"whisker {one.css}", x_at, x_at, low_end, high_end))
        parts.append(_dot(x_at, y_at, one.css, 10 if one.name in chosen else 6))
        parts.append(_name(one.name, x_at, y_at, width, taken))
    spoken = "; ".join(f"{one.name}: {_tick(one.value)}, {_tick(other.value)}" for one, other in marks)
    return _svg(width, height, f"{title}. {spoken}", parts, "scatter")


def _name(name: str, x: float, y: float, width: int, taken: list[tuple[float, float]]) -> str:
    """The label of a point, right of it unless that leaves the chart; moved, or left out, where it covers others."""
    shown = name if len(name) <= 24 else name[:23] + "…"
    right = x + 12 + 7 * len(shown) < width
    for place in (y - 9, y + 5, y + 19, y - 23):
        if all(abs(place - other) >= 14 or abs(x - at) >= 90 for at, other in taken):
            taken.append((x, place))
            return _text("name", x + (9 if right else -9), place, "start" if right else "end", shown)
    return ""


def _axes(across: Scale, up: Scale, x_name: str) -> str:
    parts = []
    for tick in up.ticks(4):
        parts.append(_line("grid", LEFT, WIDTH - RIGHT, up(tick), up(tick)))
        parts.append(_text("tick", LEFT - 6, up(tick) + 3.5, "end", _tick(tick)))
    for tick in across.ticks(5):
        parts.append(_text("tick", across(tick), HEIGHT - 18, "middle", _tick(tick)))
    parts.append(_text("tick", WIDTH - RIGHT, HEIGHT - 3, "end", x_name))
    return "".join(parts)


def _path(one: Series, across: Scale, up: Scale) -> str:
    parts, pen = [], "M"
    for x, y in zip(one.x, one.y, strict=True):
        if y is None:
            pen = "M"
            continue
        parts.append(f"{pen}{across(x)} {up(y)}")
        pen = "L"
    return "".join(parts)


def _thin(one: Series, most: int) -> Series:
    """At most so many points: the lowest and the highest of each stretch, so that no spike is lost."""
    points = [(x, y) for x, y in zip(one.x, one.y, strict=True) if math.isfinite(x)]
    if all(y is None for _, y in points):
        return Series(one.name, one.style, (), ())
    if len(points) > most:
        kept, stretches = {0, len(points) - 1}, most // 2 - 1
        for i in range(stretches):
            span = range(i * len(points) // stretches, (i + 1) * len(points) // stretches)
            there = [(y, j) for j in span if (y := points[j][1]) is not None]
            kept |= {min(there)[1], max(there)[1]} if there else {span[0]}
        points = [points[j] for j in sorted(kept)]
    rounded = [(float(f"{x:.6g}"), None if y is None else float(f"{y:.5g}")) for x, y in points]
    return Series(one.name, one.style, [x for x, _ in rounded], [y for _, y in rounded])


def _domain(values: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(1.0, abs(high)):
        spread = abs(high) * 0.5 or 0.5
        return low - spread, high + spread
    return low - pad * (high - low), high + pad * (high - low)


def _ends(mark: Mark) -> tuple[float, float]:
    return (mark.value if mark.low is None else mark.low, mark.value if mark.high is None else mark.high)


def _nice(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.9)


def _tick(value: float) -> str:
    text = f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", "−") if text not in ("0", "-0") else "0"


def _spoken(one: Series) -> str:
    there = [y for y in one.y if y is not None]
    return f"{one.name} from {_tick(there[0])} to {_tick(there[-1])}"


def _dot(x: float, y: float, css: str, size: float) -> str:
    """Shape as well as colour tells models apart: a square is the target, a diamond the oracle, a circle a run."""
    h, r = size * 0.85, size * 1.25
    shapes = {
        "target": ((x - h, y - h), (x + h, y - h), (x + h, y + h), (x - h, y + h)),
        "oracle": ((x, y - r), (x + r, y), (x, y + r), (x - r, y)),
    }
    if css in shapes:
        corners = "L".join(f"{a:.1f} {b:.1f}" for a, b in shapes[css])
        return f'<path class="dot {css}" d="M{corners}Z"/>'
    return f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>'


def _line(css: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(css: str, x: float, y: float, anchor: str, text: str) -> str:
    return (
        f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words.visible(text, 120))}</text>'
    )


def _svg(width: int, height: int, label: str, parts: Sequence[str], css: str) -> Markup:
    """The drawing with what a screen reader says instead; parts are built from numbers and escaped text alone."""
    spoken = f'role="img" aria-label="{escape(words.visible(label))}"' if label else 'aria-hidden="true"'
    return Markup(f'<svg class="{css}" viewBox="0 0 {width} {height}" {spoken}>{"".join(parts)}</svg>')  # nosec B704
