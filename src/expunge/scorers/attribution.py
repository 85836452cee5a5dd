"""Scores that hide what the answer rests on, and see which tokens notice. Prepared from the model before training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import regex
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from expunge.context import Context, Integers, Passage, Preparation, Scores, looked_up
from expunge.core import IGNORE, NOTHING, Forward, Needs, State
from expunge.errors import MethodError
from expunge.registry import method

Range = tuple[int, int]
_NAME = regex.compile(r"\p{Lu}[\p{L}\p{M}\p{N}.'’-]*(?:\s+\p{Lu}[\p{L}\p{M}\p{N}.'’-]*)*")


@method("scorer", "masking")
@dataclass(frozen=True)
class Masking:
    """|log p - log p_hidden| of each token, in nats: how much it rests on what was hidden; `signed` keeps the sign.

    `hide='subject'` hides whom the question is about wherever that stands in the prompt, and from later tokens of the
    answer: the record's `subject` where the text has it, else the longest name in the prompt. `hide='question'` hides
    all words of the prompt, not the template. `hide='context'` leaves the last `window` tokens (at most 3 * window).
    Hidden tokens are not attended to, and all others keep their positions; `replace` puts a neutral text such as ___ in
    the subject's place in the prompt instead. A raw text has no question: there, context is hidden. Where nothing is
    found to hide the score is 0 throughout, which selectors count as flat.

    Costs at most 2 plain scoring passes (2.5 where context is hidden), once; with `refresh=k` again every k steps, from
    the policy. One of them serves other scores too that read the records as they are.

    Source: TokenUnlearn (arXiv 2605.00364), which does not say what is masked, or with what.
    Differs: the default is the subject, our choice; hiding the whole question is at chance (see docs/algebra.md).

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]] * 2, targets=[0, 1], static={"masking": [0.0, 2.5]})
    >>> Masking()(f, None).tolist()
    [[0.0, 2.5, 0.0]]
    """

    hide: Literal["subject", "question", "context"] = "subject"
    signed: bool = False
    replace: str = ""
    window: Annotated[int, Ge(1)] = 16
    refresh: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if self.replace and self.hide != "subject":
            raise MethodError(f"masking: replace takes the subject's place, but hide is {self.hide}")

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(reads=Needs(), passes=1.5 if self.hide == "context" else 1.0, refresh=self.refresh)

    def prepare(self, context: Context) -> list[Scores]:
        out = [np.zeros(len(passage.scored), np.float32) for passage in context.passages]
        pieces = {i: parts for i, p in enumerate(context.passages) if (parts := list(self._hidden(p, context)))}
        rows = [part for i, parts in pieces.items() for part in (context.passages[i], *parts)]
        read = iter(context.read(rows, Needs(), _logp))
        for i, parts in pieces.items():
            plain, without = next(read), np.concatenate([next(read) for _ in parts])
            change = plain[len(plain) - len(without) :] - without
            out[i][len(plain) - len(without) :] = change if self.signed else np.abs(change)
        return out

    def _hidden(self, passage: Passage, context: Context) -> Iterator[Passage]:
        """The passage without what is to be hidden, in pieces that hold its last targets in order; or none."""
        if self.hide == "context" or not passage.prompt:
            yield from windows(passage, self.window)
        elif self.hide == "question":
            hidden = touched(passage.asked, [(0, len(passage.prompt))])
            if hidden.any():
                yield replace(passage, hidden=hidden)
        else:
            asked, own = (touched(p, subject_in(t, passage)) for p, t in _fields(passage))
            if not (asked | own).any():
                return
            if not self.replace:
                yield replace(passage, hidden=asked | own)
            else:
                yield replaced(replace(passage, hidden=own), asked, context.ids(self.replace))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


def _logp(forward: Forward) -> Tensor:
    return forward.policy.logp


def _fields(passage: Passage) -> tuple[tuple[Integers, str], tuple[Integers, str]]:
    return (passage.asked, passage.prompt), (passage.own, passage.body)


def subject_in(text: str, passage: Passage) -> list[Range]:
    """Where the subject of a passage stands in `text`: whole words, in any case.

    Without a subject that its texts hold, it is the longest name in the prompt: a run of words with a capital letter
    that does not begin the prompt.
    """
    known = passage.subject and any(_places(passage.subject, t) for t in (passage.prompt, passage.body))
    names = [m[0] for m in _NAME.finditer(passage.prompt, passage.prompt.find(" ") + 1 or len(passage.prompt))]
    name = passage.subject if known else max(names, key=len, default="")
    name = name.rstrip(".'’-").removesuffix("'s").removesuffix("’s")
    return _places(name, text)


def _places(name: str, text: str) -> list[Range]:
    if not name:
        return []
    pattern = rf"(?<![\p{{L}}\p{{N}}]){regex.escape(name)}(?![\p{{L}}\p{{N}}])"
    return [m.span() for m in regex.finditer(pattern, text, regex.IGNORECASE)]


def touched(places: Integers, ranges: list[Range]) -> NDArray[np.bool_]:
    """(T,) True at tokens that stand for a character of one of the ranges."""
    out = np.zeros(len(places), np.bool_)
    for start, end in ranges:
        out |= (places[:, 0] < end) & (places[:, 1] > start) & (places[:, 0] < places[:, 1])
    return out


def windows(passage: Passage, window: int) -> Iterator[Passage]:
    """Pieces that predict 2 * window targets each, the first of them from `window` tokens (and the begin token).

    The first targets are left out where they are predicted from all that the passage has before them.
    """
    scored = passage.scored
    begin = 0 if not len(passage) or passage.own[0, 0] >= 0 else 1
    at = int(scored[0]) if len(scored) else len(passage)
    while at <= (scored[-1] if len(scored) else -1):
        end = at + 2 * window
        first = max(begin, at - window + 1)
        keep = np.r_[0:begin, first : min(end, len(passage))]
        targets = np.where((keep >= at) & (keep < end), passage.targets[keep], IGNORE)
        if (targets != IGNORE).any() and first > begin:
            yield _cut(passage, keep, targets)
        at = end


def replaced(passage: Passage, asked: NDArray[np.bool_], ids: list[int]) -> Passage:
    """The passage with `ids` in place of each run of the tokens `asked`; what such a run predicts, `ids` predict."""
    keep, fresh, targets = [], [], []
    for t, hit in enumerate(asked):
        if not hit:
            keep.append(t)
            fresh.append(int(passage.input_ids[t]))
            targets.append(int(passage.targets[t]))
        elif t + 1 == len(asked) or not asked[t + 1]:
            keep += [t] * len(ids)
            fresh += ids
            targets += [IGNORE] * (len(ids) - 1) + [int(passage.targets[t])]
    cut = _cut(passage, np.array(keep), np.array(targets))
    return replace(cut, input_ids=np.array(fresh))


def _cut(passage: Passage, keep: Integers, targets: Integers) -> Passage:
    return replace(
        passage,
        input_ids=passage.input_ids[keep],
        targets=targets,
        asked=passage.asked[keep],
        own=passage.own[keep],
        hidden=passage.hidden[keep],
    )
