"""The page's figures as files for a paper: SVG, and PNG and PDF where CairoSVG is installed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from expunge import runfolder
from expunge.report import shell, words
from expunge.report.charts import SERIES_COLOURS, Chart

DOTS_PER_UNIT = 4.0
"""Pixels of a PNG for each unit of the drawing: 300 dpi where it is printed 11 cm wide."""
_DRAWN = ("line", "whisker", "dot", "bar", "front", "error", "tick", "label", "scatter", "grid", "axis", "zero", "rule")
_FONT = "text { font-family: Helvetica, Arial, sans-serif; }"
_RULE = re.compile(r"([^{}@;]+)\{([^{}]*)\}")
_VIEW = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_HEAD, _LEGEND = 24, 18


@dataclass(frozen=True)
class Drawing:
    """One figure: the name of its file, its title, what is drawn, and (name, CSS class) of its lines."""

    name: str
    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()


def can_convert() -> bool:
    """True if PNG and PDF can be written: CairoSVG is there, and the Cairo library that it needs."""
    try:
        import cairosvg  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def write(context: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """The files in `folder` of all figures of a page (see `page.context`), light, in every format there is."""
    root = Path(folder).expanduser().resolve()
    style, convert = css(), can_convert()
    files = []
    for drawing in drawings(context):
        text = standalone(drawing, style)
        files.append(_written(root / f"{drawing.name}.svg", text.encode("utf-8", "replace")))
        files += [
            _written(root / f"{drawing.name}.{kind}", _converted(text, kind)) for kind in ("png", "pdf") if convert
        ]
    return files


def drawings(context: Mapping[str, Any]) -> list[Drawing]:
    """Everything that the page draws as charts, with legends where there is more than one line."""
    found = []
    if context["tradeoff"] is not None:
        found.append(Drawing("tradeoff", "Forgetting against keeping", context["tradeoff"]))
    found += [Drawing(f"bars-{_slug(title)}", title, svg) for title, _, svg in context["bars"]]
    for chart in [*context["charts"], *context["drifts"], *context["weights"], *context["swept"]]:
        found.append(_of_chart(chart, _slug(chart.key)))
    for place, (_, charts) in enumerate(context["studies"]):
        found += [_of_chart(chart, f"study{place + 1}-{_slug(chart.key)}") for chart, _ in charts]
    return found


def standalone(drawing: Drawing, style: str) -> str:
    """The figure as an SVG file of its own: title above, legend below, colours and type inside it."""
    found = _VIEW.search(drawing.svg)
    width, height = (float(found[1]), float(found[2])) if found else (340.0, 184.0)
    inside = str(drawing.svg)[drawing.svg.index(">") + 1 : drawing.svg.rindex("</svg>")]
    parts = [f'<g class="scatter">{inside}</g>' if 'class="scatter"' in drawing.svg[:40] else inside]
    for place, (name, mark) in enumerate(drawing.legend):
        y = height + 14 + place * _LEGEND
        parts.append(f'<path class="line {mark}" d="M10 {y}H38"/>')
        parts.append(f'<text class="tick" x="44" y="{y + 3.5}">{escape(words.visible(name, 60))}</text>')
    total = _HEAD + height + _LEGEND * len(drawing.legend) + (8 if drawing.legend else 0)
    title = escape(words.visible(drawing.title, 90))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {total:g}" width="{width:g}" '
        f'height="{total:g}"><title>{title}</title><style>{style}</style>'
        f'<text class="title" x="6" y="15">{title}</text>'
        f'<g transform="translate(0 {_HEAD})">{"".join(parts)}</g></svg>\n'
    )


def css() -> str:
    """The page's own rules for what is drawn, on white, with the colours in place of the variables."""
    sheet = shell.asset("page.css")
    root = next(body for selector, body in _RULE.findall(sheet) if selector.strip() == ":root")
    colours = dict(re.findall(r"(--\w+):\s*([^;]+);", root)) | {"--paper": "#ffffff", "--card": "#ffffff"}
    kept = [_FONT, ".title { font-size: 13px; font-weight: 600; fill: var(--ink); } .band { fill: #ededed; }"]
    for selector, body in _RULE.findall(sheet):
        if re.match(rf"\.({'|'.join(_DRAWN)})\b", selector.strip()):
            kept.append(f"{selector.strip()} {{ {_plain(body) if '.name' in selector else body.strip()} }}")
    text = re.sub(r"var\((--\w+)\)", lambda found: colours.get(found[1], "#000000"), "\n".join(kept))
    return f"text {{ fill: {colours['--soft']}; }}\n{text}"


def _plain(body: str) -> str:
    """Without the halo of a label: not every renderer draws it behind the letters."""
    return "; ".join(part.strip() for part in body.split(";") if part.strip().startswith(("font", "fill")))


def _of_chart(chart: Chart, name: str) -> Drawing:
    lines = tuple((str(one["name"]), f"s{one['style'] % SERIES_COLOURS}") for one in chart.data["series"])
    return Drawing(name, chart.title, chart.svg, lines if len(lines) > 1 else ())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80] or "figure"


def _converted(text: str, kind: str) -> bytes:
    import cairosvg

    convert = cairosvg.svg2png if kind == "png" else cairosvg.svg2pdf
    settings = {"scale": DOTS_PER_UNIT, "background_color": "white"} if kind == "png" else {}
    made: bytes = convert(bytestring=text.encode(), **settings)
    return made


def _written(file: Path, content: bytes) -> Path:
    with runfolder.replacing(file) as stream:
        stream.write(content)
    return file
