"""The phrases in a chat model's reply: a tolerant reading, then a strict check."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from expunge.errors import ExpungeError

_LIST_KEYS = (
    "spans", "target_words", "phrases", "words", "targets", "unwanted", "unwanted_words", "entities", "items",
    "result", "results", "answer", "output",
)  # fmt: skip
_TEXT_KEYS = ("text", "phrase", "word", "span", "value", "target_word", "entity")
_COUNT_KEYS = ("occurrence", "occurrence_number", "n", "index")
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_LONGEST, _TRIES = 50_000, 64
"""Characters of a reply, and brackets in it, that are looked at; beyond is no answer to this question."""


class ReplyError(ExpungeError):
    """A reply holds no list of phrases; the message says what was found instead, without quoting it."""


class Phrase(BaseModel):
    """One phrase as the model wrote it; `occurrence` (from 1) where it named one of several."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    text: Annotated[str, StringConstraints(min_length=1, max_length=20_000)] = Field(
        validation_alias=AliasChoices(*_TEXT_KEYS)
    )
    occurrence: Annotated[int, Field(ge=1)] | None = Field(None, validation_alias=AliasChoices(*_COUNT_KEYS))

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"text": value.strip()} if isinstance(value, str) else value


class Reply(BaseModel):
    """All phrases of one reply, in its order."""

    model_config = ConfigDict(frozen=True)
    spans: tuple[Phrase, ...]


SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "spans": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"text": {"type": "string"}, "occurrence": {"type": ["integer", "null"]}},
                "required": ["text", "occurrence"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["spans"],
    "additionalProperties": False,
}
"""The shape that is asked of servers which can hold a model to one."""


def parse(reply: str) -> Reply:
    """The phrases in a reply: bare JSON, or JSON in a fence, in prose, with trailing commas, in Python's quotes.

    An object with one of the usual keys is preferred to a bare list, a later one to an earlier one (the answer comes
    last). Raises ReplyError if there is none.

    >>> [p.text for p in parse('Sure! ```json\\n{"target_words": ["florist", "Kuwait",]}\\n```').spans]
    ['florist', 'Kuwait']
    """
    text = _THOUGHT.sub("", reply[:_LONGEST]).strip().lstrip("\ufeff")
    if not text:
        raise ReplyError("the reply is empty")
    objects: list[Reply] = []
    lists: list[Reply] = []
    found = 0
    for value in _values(text):
        found += 1
        read = _read(value)
        if read is not None:
            (objects if isinstance(value, Mapping) else lists).append(read)
    if objects or lists:
        return (objects or lists)[-1]
    what = f"{found} JSON value(s), none of them a list of phrases" if found else "no JSON"
    raise ReplyError(f"the reply of {len(reply)} characters holds {what}")


def _read(value: Any) -> Reply | None:
    """The value as a reply, if it is a list of phrases or an object that holds one."""
    if isinstance(value, Mapping):
        keys = [key for key in _LIST_KEYS if key in value]
        if not keys and len(value) == 1:
            keys = list(value)
        value = value[keys[0]] if keys else None
        if isinstance(value, str):
            value = [value] if value.strip() else []
        if isinstance(value, Mapping):
            return _read(value)
    if not isinstance(value, (list, tuple)):
        return None
    try:
        return Reply(spans=tuple(Phrase.model_validate(item) for item in value if item not in ("", None)))
    except ValidationError:
        return None


def _values(text: str) -> Iterator[Any]:
    """Every outermost JSON value of the text that is an object or a list."""
    at = 0
    for _ in range(_TRIES):
        start = _next_bracket(text, at)
        if start < 0:
            return
        end = _closing(text, start)
        value = _loads(text[start:end]) if end > 0 else None
        if value is None:
            at = start + 1
        else:
            yield value
            at = end


def _next_bracket(text: str, at: int) -> int:
    places = [place for place in (text.find("{", at), text.find("[", at)) if place >= 0]
    return min(places, default=-1)


def _closing(text: str, start: int) -> int:
    """The end of the bracket that opens at `start`, strings left out; -1 if it never closes."""
    depth, inside = 0, False
    at = start
    while at < len(text):
        letter = text[at]
        if inside:
            if letter == "\\":
                at += 1
            elif letter == '"':
                inside = False
        elif letter == '"':
            inside = True
        elif letter in "{[":
            depth += 1
        elif letter in "}]":
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return -1


def _loads(text: str) -> Any:
    """The JSON (or Python) value of the text with trailing commas forgiven; None if it is neither."""
    for candidate in (text, _without_trailing_commas(text)):
        try:
            return json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    return value if isinstance(value, (dict, list)) else None


def _without_trailing_commas(text: str) -> str:
    """The text without commas before a closing bracket, strings left alone."""
    return re.sub(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', lambda match: match[1] or "", text, flags=re.DOTALL)
