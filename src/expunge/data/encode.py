"""Records as token ids with targets: prompt and answer tokenized jointly, aligned once, spans projected.

Index `t` of every array refers to the prediction of `targets[t]`, which is `input_ids[t + 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from expunge.data import templates
from expunge.data.offsets import Boundary, Tokens, project, tokenize
from expunge.data.records import Record, Span, static_name
from expunge.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from expunge.recipe import Data

_N = TypeVar("_N", bound=np.generic)
_IGNORE = -100
"""As core.IGNORE; repeated so that encoding needs no torch."""

_LABELS = {"given": "unwanted", "not-general": "general"}
"""The label of the spans that a static score is made of. 'not-general' is 1 less their weight, on tokens with text."""
MARKS = ("gold", "given", "not-general")
"""The static scores that say which words are unwanted, the surest first."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One record as tokens. `input_ids`, `targets` (T,) int64; targets are -100 where nothing is scored, and at T-1.

    `offsets` (T, 2) int32: the characters of the answer (or text) that the token `targets[t]` stands for; an empty
    range for a space that the tokenizer put in; (-1, -1) where it is not answer text: prompt, end token, template.
    `static[NAME]` (T,) float32: projected spans, 0 where nothing is scored. `truncated`: scored tokens were cut off.
    `shares_token`: the answer's first or last token has characters of the template, other than white space, in it.
    """

    id: str
    input_ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    offsets: NDArray[np.int32]
    static: Mapping[str, NDArray[np.float32]]
    truncated: bool = False
    shares_token: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return int((self.targets != _IGNORE).sum())


def static_names(records: Iterable[Record]) -> tuple[str, ...]:
    """The static scores that the spans of these records give rise to, as `static_name` makes them, and 'gold'."""
    return tuple(sorted(_names(span for record in records for span in record.spans)))


def _names(spans: Iterable[Span]) -> set[str]:
    out = set()
    for span in spans:
        kinds = [kind for kind, label in _LABELS.items() if span.label == label]
        out |= {static_name(kind, span.source) for kind in kinds}
        out |= {"gold"} if span.source == "gold" else set(kinds)
    return out


def _belongs(name: str) -> Callable[[Span], bool]:
    """Which spans a static score is made of; DataError if there is no such score."""
    kind, _, source = name.partition("@")
    if name == "gold":
        return lambda span: span.source == "gold"
    if kind not in _LABELS:
        raise DataError(f"spans give no static score '{name}'. There are: gold, {', '.join(_LABELS)}.")
    return lambda span: span.label == _LABELS[kind] and (span.source == source if source else span.source != "gold")


@dataclass(frozen=True)
class Encoder:
    """Turns records into tokens; its fields decide every id.

    `template` as in the recipe: auto, chat, or a text with {prompt} and {answer}; {system}, {bos} and {eos} may stand
    in it too. Without them the tokenizer's begin token is put in front, and its end token behind unless the template
    writes a special token after the answer. With a `memo`, what was encoded once is found there.
    """

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    template: str = "auto"
    system_prompt: str | None = None
    date_string: str | None = None
    max_length: int = 512
    score_eos: bool = True
    boundary: Boundary = "any"
    memo: dict[tuple[Record, str | None, tuple[str, ...]], Encoded] | None = field(
        default=None, repr=False, compare=False
    )
    _rendering: templates.Template = field(init=False, repr=False, compare=False)
    _added: frozenset[int] = field(init=False, repr=False, compare=False)
    _special: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        unknown = {self.tokenizer.unk_token_id}  # stands for characters like any other token
        vocabulary = {i: token for i, token in self.tokenizer.added_tokens_decoder.items() if i not in unknown}
        special = {i for i, token in vocabulary.items() if token.special} | set(
            self.tokenizer.all_special_ids
        ) - unknown
        object.__setattr__(self, "_rendering", templates.choose(self.template, self.date_string, self.tokenizer))
        object.__setattr__(self, "_added", frozenset(vocabulary) | special)
        object.__setattr__(self, "_special", frozenset(special))

    @classmethod
    def from_recipe(cls, tokenizer: PreTrainedTokenizerBase, data: Data) -> Encoder:
        """The encoder that the `data` section of a recipe describes."""
        return cls(
            tokenizer=tokenizer,
            template=data.template,
            system_prompt=data.system_prompt,
            date_string=data.date_string,
            max_length=data.max_length,
            score_eos=data.score_eos,
            boundary=data.boundary,
        )

    @property
    def uses_chat_template(self) -> bool:
        """True if records are written by the tokenizer's chat template."""
        return isinstance(self._rendering, templates.ChatTemplate)

    def encode(self, record: Record, *, answer: str | None = None, static_names: Collection[str] = ()) -> Encoded:
        """The record as tokens. `answer` replaces its answer (or text), and then its spans do not apply.

        A token is scored if it stands for a character of the answer; the first special token behind the answer too if
        `score_eos`. An answer that `max_length` cuts off leaves no target. `static_names` are always in `static`.
        """
        if self.memo is None:
            return self._encoded(record, answer, static_names)
        key = record, answer, tuple(static_names)
        if key not in self.memo:
            self.memo[key] = self._encoded(record, answer, static_names)
        return self.memo[key]

    def _encoded(self, record: Record, answer: str | None, static_names: Collection[str]) -> Encoded:
        body = record.body if answer is None else answer
        spans = record.spans if answer is None else ()
        rendered = self._render(record, body)
        tokens = self._tokens(record, rendered)
        first, last = _extent(tokens, rendered.start, rendered.end)
        scored = np.zeros(len(tokens), np.bool_)
        scored[first : last + 1] = True
        if self.score_eos and first <= last:
            behind = self._end_token(tokens, last)
            scored[behind : behind + 1] = True
        start, end = self._in_answer(tokens, rendered, first, last)
        static = self._static(record, body, spans, start, end, scored, static_names)
        keep = min(len(tokens), self.max_length)
        return Encoded(
            id=record.id,
            input_ids=tokens.ids[:keep],
            targets=_shift(np.where(scored, tokens.ids, _IGNORE), keep, _IGNORE),
            offsets=_shift(np.stack([start, end], 1), keep, -1).astype(np.int32),
            static={name: _shift(score, keep, 0) for name, score in static.items()},
            truncated=bool(scored[keep:].any()),
            shares_token=first <= last and _reaches_out(tokens, rendered, first, last),
        )

    def prompt_ids(self, record: Record) -> list[int]:
        """The ids in front of the first scored token: what a model reads before it generates the answer.

        Cut from the joint tokenization, so that the model sees the very context it was trained on. Longer prompts than
        `max_length` lose their beginning (but for the begin token). DataError for a record without a prompt.
        """
        if record.text:
            raise DataError(f"record '{record.id}' is raw text: it has no prompt to generate from.")
        rendered = self._render(record, record.answer)
        tokens = self._tokens(record, rendered)
        first, last = _extent(tokens, rendered.start, rendered.end)
        if first > last:
            prefix = replace(rendered, text=rendered.text[: rendered.start].rstrip(" "), finish=False)
            tokens = self._tokens(record, prefix)
            first = len(tokens)
        ids: list[int] = tokens.ids[:first].tolist()
        if len(ids) > self.max_length:
            begin = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
            ids = begin + ids[len(ids) - self.max_length + len(begin) :]
        return ids

    def tokens(self, text: str) -> Tokens:
        """A bare text as tokens with their characters: no special tokens, nothing cut."""
        return tokenize(self.tokenizer, text, self._added, add_special_tokens=False)

    def whole(self, record: Record) -> Tokens:
        """All tokens of the record, special tokens included, nothing cut."""
        return self._tokens(record, self._render(record, record.body))

    def places(self, record: Record) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(T, 2) the characters of the prompt, and of the answer (or text), that each token of `encode` stands for.

        (-1, -1) where it stands for none. A prompt that the template changes has no places.
        """
        rendered = self._render(record, record.body)
        tokens = self._tokens(record, rendered)
        keep = min(len(tokens), self.max_length)
        own = np.stack(self._in_answer(tokens, rendered, *_extent(tokens, rendered.start, rendered.end)), 1)
        prompt = record.prompt.strip()
        start = rendered.text.rfind(prompt, 0, rendered.start) if prompt else -1
        end = start + len(prompt)
        inside = (tokens.start < end) & (tokens.end > start) & (start >= 0)
        inside &= ~(tokens.added & ((tokens.start < start) | (tokens.end > end)))
        move = record.prompt.find(prompt) - start
        ranges = np.stack([np.clip(tokens.start, start, end) + move, np.clip(tokens.end, start, end) + move], 1)
        return np.where(inside[:, None], ranges, -1)[:keep], own[:keep]

    def _render(self, record: Record, body: str) -> templates.Rendered:
        if record.text:
            return templates.raw(body, continues=record.continues)
        return self._rendering.render(record, body, self.tokenizer, self.system_prompt)

    def _tokens(self, record: Record, rendered: templates.Rendered) -> Tokens:
        """All tokens of a record, with its begin and end tokens."""
        try:
            tokens = tokenize(self.tokenizer, rendered.text, self._added, add_special_tokens=rendered.begin)
        except DataError as error:
            raise DataError(f"record '{record.id}': {error}") from None
        end_token = self.tokenizer.eos_token_id
        if not isinstance(end_token, int):
            return tokens
        if not rendered.finish:
            ends = rendered.begin and len(tokens) > 0 and tokens.ids[-1] == end_token
            return _slice(tokens, len(tokens) - 1) if ends and tokens.start[-1] == tokens.end[-1] else tokens
        _, last = _extent(tokens, rendered.start, rendered.end)
        return _append(tokens, end_token) if self._end_token(tokens, last) == len(tokens) else tokens

    def _end_token(self, tokens: Tokens, last: int) -> int:
        """The position of the first special token behind the answer; the number of tokens if there is none."""
        behind = (i for i in range(last + 1, len(tokens)) if int(tokens.ids[i]) in self._special)
        return next(behind, len(tokens))

    def _in_answer(
        self, tokens: Tokens, rendered: templates.Rendered, first: int, last: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The range of each token in the characters of the answer; (-1, -1) outside of it."""
        move = rendered.shift - rendered.start
        start = np.clip(tokens.start, rendered.start, rendered.end) + move
        end = np.clip(tokens.end, rendered.start, rendered.end) + move
        outside = np.ones(len(tokens), np.bool_)
        outside[first : last + 1] = False
        return np.where(outside, -1, start), np.where(outside, -1, end)

    def _static(
        self,
        record: Record,
        body: str,
        spans: Collection[Span],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        scored: NDArray[np.bool_],
        names: Collection[str],
    ) -> dict[str, NDArray[np.float32]]:
        mine = [span for span in spans if span.field == record.body_field]
        for span in mine:
            if not 0 <= span.start < span.end <= len(body):
                raise DataError(
                    f"record '{record.id}': span {span.start}:{span.end} is outside of its {span.field}, "
                    f"which has {len(body)} characters. Mend the span, or annotate the record again."
                )
        static = {}
        for name in sorted({*names, *_names(mine)}):
            weights = project(filter(_belongs(name), mine), body, start, end, self.boundary)
            if name.partition("@")[0] == "not-general":
                weights = np.where(start < end, np.maximum(0, 1 - weights), 0).astype(np.float32)
            static[name] = np.where(scored, weights, np.float32(0))
        return static


def _extent(tokens: Tokens, start: int, end: int) -> tuple[int, int]:
    """First and last token that stand for characters `start:end`; (0, -1) if none does.

    Tokens without characters beside them (a space that the tokenizer put in) are included. A special token that
    swallows white space of both template and answer belongs to the template.
    """
    covers = (tokens.start < end) & (tokens.end > start)
    covers &= ~(tokens.added & ((tokens.start < start) | (tokens.end > end)))
    positions = np.flatnonzero(covers)
    if not len(positions):
        return 0, -1
    first, last = int(positions[0]), int(positions[-1])
    idle = (tokens.start == tokens.end) & ~tokens.added
    while first > 0 and idle[first - 1]:
        first -= 1
    while last + 1 < len(tokens) and idle[last + 1]:
        last += 1
    return first, last


def _reaches_out(tokens: Tokens, rendered: templates.Rendered, first: int, last: int) -> bool:
    """True if the answer's tokens stand for characters around it too, other than white space."""
    before = tokens.text[int(tokens.start[first : last + 1].min()) : rendered.start]
    behind = tokens.text[rendered.end : int(tokens.end[first : last + 1].max())]
    return bool(before.strip() or behind.strip())


def _shift(values: NDArray[_N], keep: int, fill: int) -> NDArray[_N]:
    """`values[1:keep]` and one `fill` behind: from tokens to the predictions of tokens."""
    out = np.full_like(values[:keep], fill)
    out[: keep - 1] = values[1:keep]
    return out


def _slice(tokens: Tokens, stop: int) -> Tokens:
    return replace(
        tokens, ids=tokens.ids[:stop], start=tokens.start[:stop], end=tokens.end[:stop], added=tokens.added[:stop]
    )


def _append(tokens: Tokens, token: int) -> Tokens:
    length = len(tokens.text)
    return replace(
        tokens,
        ids=np.append(tokens.ids, token),
        start=np.append(tokens.start, length),
        end=np.append(tokens.end, length),
        added=np.append(tokens.added, True),
    )
