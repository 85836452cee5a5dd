"""Token weights as colour: a sentence in the terminal, and an SVG picture of one sentence before and after."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from markupsafe import escape
from rich.text import Text

from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.report import collect, sentences, words
from expunge.report.sentences import Sentence

FULL = 3.0
"""A weight so many times the sentence's mean gets the full colour, here and in the report."""
_PALE, _HOT = (255, 236, 230), (201, 58, 31)
_WIDTH, _MARGIN, _LABEL, _SIZE, _LEADING = 880, 28, 118, 21, 40
_GLYPHS = dict(
    zip(
        map(chr, range(32, 127)),
        (
            278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, *(556,) * 10, 278, 278, 584,
            584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778,
            722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278,
            556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334,
            260, 334, 584,
        ),
        strict=True,
    )
)  # fmt: skip
"""Widths in thousandths of the type size. Each word is then set to exactly this width, whatever font is at hand."""


@dataclass(frozen=True)
class Row:
    """One line of the picture: what it shows, and for each token its text, its heat in [0, 1], and if it is gold."""

    label: str
    note: str
    tokens: tuple[str, ...]
    heat: tuple[float, ...]
    gold: tuple[bool, ...]


def relative(weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Heat in [0, 1] from weights >= 0: 1 at three times their mean, so that uniform weights are a third.

    >>> relative([1.0, 1.0]).round(2).tolist(), relative([6.0, 0.0]).round(2).tolist()
    ([0.33, 0.33], [0.67, 0.0])
    """
    values = np.nan_to_num(np.asarray(weights, dtype=np.float64), nan=0.0)
    mean = float(values.mean()) if values.size else 0.0
    return np.clip(values / (FULL * mean), 0.0, 1.0) if mean > 0 else np.zeros_like(values)


def sentence(
    tokens: Sequence[str], weights: npt.ArrayLike, gold: Sequence[bool] | None = None, marks: bool = False
) -> Text:
    """The tokens as terminal text, the more red the more weight; gold tokens underlined.

    With `marks`, tokens above the mean weight stand in ‹ ›: for a terminal or a file without colour.
    """
    return shaded(tokens, relative(weights).tolist(), gold, marks)


def shaded(
    tokens: Sequence[str], heats: Sequence[float], gold: Sequence[bool] | None = None, marks: bool = False
) -> Text:
    """The same from heats in [0, 1], such as probabilities."""
    text = Text()
    for place, (token, heat) in enumerate(zip(tokens, heats, strict=True)):
        shown = words.token(token)
        bare = shown.lstrip(" ")
        text.append(shown[: len(shown) - len(bare)])
        strong = marks and heat > 1 / FULL + 1e-9
        underline = " underline" if gold is not None and gold[place] else ""
        text.append(f"‹{bare}›" if strong else bare, style=f"{_terminal(heat)}{underline}".strip())
    return text


def before_after(run: str | Path, out: str | Path, record: str | None = None) -> Path:
    """The SVG file `out`: one record of a run, its probabilities before, the weights, its probabilities after.

    Without `record`, the one whose gold tokens were forgotten most among those that fit. It shows forget text.
    RunFolderError if the run has no tokens, or not this record.
    """
    folder = runfolder.open(run)
    found = sentences.read(folder)
    if not found:
        raise RunFolderError(f"run '{run}' recorded no tokens ({runfolder.TOKENS_TABLE}). Run it again.")
    if record is not None and record not in found:
        raise RunFolderError(f"run '{run}' recorded no tokens of '{record}'. There are: {', '.join([*found][:8])}.")
    chosen = found[record] if record is not None else max(found.values(), key=_worth)
    [view] = collect.views([folder.path])
    known = sentences.known(view.own, frozenset({chosen.id})).get(chosen.id)
    text, prompt = chosen.text or (known.text if known else ""), chosen.prompt or (known.prompt if known else "")
    return picture(rows(chosen, text, view.method or view.name), out, prompt)


def rows(chosen: Sentence, text: str = "", method: str = "") -> list[Row]:
    """Before, weights, after: the three lines of the picture."""
    kept = [i for i, start in enumerate(chosen.start) if start >= 0] or [*range(len(chosen.tokens))]
    shown = sentences.pieces(chosen.tokens, chosen.start, chosen.end, text)
    tokens, gold = tuple(words.token(shown[i]) for i in kept), tuple(chosen.gold[i] for i in kept)

    def line(label: str, note: str, heat: npt.NDArray[np.floating]) -> Row:
        return Row(label, note, tokens, tuple(float(np.clip(np.nan_to_num(heat[i]), 0, 1)) for i in kept), gold)

    before, after = np.exp(chosen.first.logp), np.exp(chosen.last.logp)
    return [
        line("before", "what the model knows", before),
        line("weights", f"where {method} pushes" if method else "where it pushes", relative(chosen.first.weight)),
        line("after", "what is left", after),
    ]


def picture(lines: Sequence[Row], out: str | Path, prompt: str = "") -> Path:
    """The SVG file `out` with one shaded sentence a row; it needs no font, no script, and follows light and dark."""
    top, parts = _MARGIN + 6.0, []
    if prompt:
        parts.append(f'<text class="q" x="{_MARGIN}" y="{top + 14}">{escape(words.visible(prompt, 90))}</text>')
        top += 44
    for row in lines:
        drawn, height = _row(row, top)
        parts.append(drawn)
        top += height + 16
    top += 4
    parts.append(_legend(top))
    target = Path(out).expanduser().resolve()
    with runfolder.replacing(target) as stream:
        stream.write(_document("".join(parts), top + 30, lines).encode("utf-8", "replace"))
    return target


def _worth(one: Sentence) -> float:
    """How much its gold tokens were forgotten; a short sentence goes before a long one that was forgotten alike."""
    fits = 8 <= len(one.tokens) <= 36 and np.isfinite(one.forgotten)
    return one.forgotten - len(one.tokens) / 200 if fits else -2.0


def _row(row: Row, top: float) -> tuple[str, float]:
    boxes, x, y = [], float(_MARGIN + _LABEL), top
    runs: list[list[float]] = []
    for place, (token, heat, gold) in enumerate(zip(row.tokens, row.heat, row.gold, strict=True)):
        bare = token.lstrip(" ")
        width, gap = _width(bare), _width(token) - _width(bare)
        if gap and x + gap + _word_width(row.tokens[place:]) > _WIDTH - _MARGIN:
            x, y, gap = float(_MARGIN + _LABEL), y + _LEADING, 0.0
        inner = gold and place > 0 and row.gold[place - 1] and gap > 0
        boxes.append(_box(x if inner else x + gap, y, width + (gap if inner else 0), heat))
        boxes.append(_word(bare, x + gap, y, width, heat))
        if gold and runs and runs[-1][1] == y and abs(runs[-1][2] - x) < 0.1:
            runs[-1][2] = x + gap + width
        elif gold:
            runs.append([x + gap, y, x + gap + width])
        if gold and not (place + 1 < len(row.gold) and row.gold[place + 1]):
            x += 5  # room for the right side of the outline
        x += gap + width
    outlines = "".join(
        f'<rect class="gold" x="{a - 3:.1f}" y="{line - 2:.1f}" width="{b - a + 6:.1f}" height="33" rx="4"/>'
        for a, line, b in runs
    )
    label = f'<text class="l" x="{_MARGIN}" y="{top + 15}">{escape(row.label)}</text>'
    note = f'<text class="n" x="{_MARGIN}" y="{top + 30}">{escape(row.note)}</text>'
    return label + note + "".join(boxes) + outlines, y - top + _LEADING


def _box(x: float, y: float, width: float, heat: float) -> str:
    return f'<rect class="h" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="29" rx="2" opacity="{heat:.2f}"/>'


def _word(text: str, x: float, y: float, width: float, heat: float) -> str:
    css = "w on" if heat >= 0.8 else "w"
    fit = f'textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text class="{css}" x="{x:.1f}" y="{y + 21:.1f}" {fit}>{escape(text)}</text>' if text else ""


def _word_width(tokens: Sequence[str]) -> float:
    """The width of the first token and of all that follow it without a space, outlines included."""
    last = next((i for i, token in enumerate(tokens) if i and token.startswith(" ")), len(tokens))
    return _width("".join(tokens[:last]).lstrip(" ")) + 10


def _width(text: str) -> float:
    wide = (1000 if unicodedata.east_asian_width(c) in "WF" else _GLYPHS.get(c, 556) for c in text)
    return sum(wide) * _SIZE / 1000


def _legend(top: float) -> str:
    x = _MARGIN + _LABEL
    return (
        f'<rect x="{x}" y="{top + 2}" width="90" height="11" rx="2" fill="url(#ramp)"/>'
        f'<text class="n" x="{x + 100}" y="{top + 12}">probability, or weight, from 0 up</text>'
        f'<rect class="gold" x="{x + 330}" y="{top}" width="26" height="15" rx="4"/>'
        f'<text class="n" x="{x + 366}" y="{top + 12}">the fact to be forgotten</text>'
    )


def _document(body: str, height: float, lines: Sequence[Row]) -> str:
    spoken = "; ".join(f"{row.label}: {row.note}" for row in lines)
    style = (
        "text{font-family:Helvetica,Arial,'Liberation Sans',sans-serif}.bg{fill:#fff;stroke:#e3dfd8}.w{font-size:21px;"
        "fill:#1d1c1a}.on{fill:#fff}.h{fill:#c93a1f}.gold{fill:none;stroke:#1d1c1a;stroke-width:2}.q{font-size:18px;"
        "font-style:italic;fill:#68645d}.l{font-size:15px;font-weight:700;fill:#1d1c1a}.n{font-size:11px;fill:#68645d}"
        ".r{stop-color:#c93a1f}@media(prefers-color-scheme:dark){.bg{fill:#1e1d1a;stroke:#36332e}.w,.l{fill:#ebe8e2}"
        ".on{fill:#1a0f0b}.h{fill:#ff7657}.gold{stroke:#ebe8e2}.q,.n{fill:#a09a90}.r{stop-color:#ff7657}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(spoken)}"><title>{escape(spoken)}</title><style>{style}</style>'
        '<defs><linearGradient id="ramp"><stop class="r" offset="0" stop-opacity="0"/><stop class="r" offset="1"/>'
        "</linearGradient></defs>"
        f'<rect class="bg" x=".5" y=".5" width="{_WIDTH - 1}" height="{height - 1:.0f}" rx="12"/>{body}</svg>\n'
    )


def _terminal(heat: float) -> str:
    """A rich style that reads on light and on dark terminals: its own ground and its own ink."""
    if heat < 0.04:
        return ""
    ground = [round(a + (b - a) * heat) for a, b in zip(_PALE, _HOT, strict=True)]
    return f"{'white' if heat > 0.75 else 'black'} on rgb({ground[0]},{ground[1]},{ground[2]})"
