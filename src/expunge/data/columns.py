"""Rows as records: which column is which, guessed from the names in use, or as the user says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from expunge.data.files import Row
from expunge.data.records import LARGEST_WEIGHT, Field, Record, Span, Split
from expunge.errors import DataError, unknown

PAIRS = (
    ("question", "answer"),
    ("prompt", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "gt"),
    ("prompt", "ground_truth"),
    ("query", "response"),
    ("input", "output"),
)
"""Columns that stand for a prompt and an answer: TOFU, TRL, Alpaca, MUSE, EasyEdit and other layouts."""

_NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "document", "content"),
    "messages": ("messages", "conversations", "conversation"),
    "id": ("id", "record_id"),
    "subject": ("subject", "author"),
    "system": ("system", "system_prompt"),
    "paraphrase": ("paraphrase", "paraphrased_answer"),
    "prompt_paraphrase": ("prompt_paraphrase", "paraphrased_question", "rephrase_prompt"),
    "perturbed": ("perturbed", "perturbed_answer"),
    "alternatives": ("alternatives", "alternative"),
    "choices": ("choices",),
    "spans": ("spans",),
    "history": ("history",),
    "document": ("document",),
    "offset": ("offset",),
    "continues": ("continues",),
}
FIELDS = ("prompt", "answer", *_NAMES)
"""What the recipe's `columns` can map to a column of the user's."""

_CONTENT = ("prompt", "answer", "text", "messages")
_ADVICE = "Say which with columns, such as {prompt: YOURS, answer: YOURS} or {text: YOURS}."
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


@dataclass(frozen=True)
class Columns:
    """Which column of a row each field comes from."""

    source: Mapping[str, str]

    def record(self, row: Row, split: Split, *, id: str, subject: str = "") -> Record:
        """The row as a record; DataError says where the row stands and what is wrong with it."""
        try:
            return _record(self.source, row.values, split, id, subject)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from None


def resolve(found: Iterable[str], wanted: Mapping[str, str], where: str) -> Columns:
    """The columns that `wanted` (our field: your column) names, and the rest by their usual names.

    An empty name keeps a field from being guessed. DataError lists the columns found if one is missing, or if several
    could be meant.
    """
    columns = list(found)
    for ours, theirs in wanted.items():
        if ours not in FIELDS:
            raise DataError(f"{where}: columns: {unknown('field', ours, FIELDS)}")
        if theirs and theirs not in columns:
            raise DataError(f"{where}: column '{theirs}' (for {ours}) is not there. Columns found: {_listed(columns)}.")
    off = {ours for ours, theirs in wanted.items() if not theirs}
    source = {ours: theirs for ours, theirs in wanted.items() if theirs}
    source |= _content(columns, source, off, where)
    taken = set(source.values())
    for ours in set(_NAMES) - set(_CONTENT) - set(source) - off:
        guess = next((name for name in _NAMES[ours] if name in columns and name not in taken), None)
        if guess is not None:
            source[ours] = guess
    return Columns(source)


def _content(columns: list[str], wanted: Mapping[str, str], off: set[str], where: str) -> dict[str, str]:
    """Where prompt and answer, the messages or the text stand."""
    given = {field: wanted[field] for field in _CONTENT if field in wanted}
    if given and not ("prompt" in given) ^ ("answer" in given):
        return given
    pairs = {(given.get("prompt", prompt), given.get("answer", answer)) for prompt, answer in PAIRS}
    pairs = {pair for pair in pairs if set(pair) <= set(columns) and not off & {"prompt", "answer"}}
    if len(pairs) > 1:
        ways = ", or ".join(f"{prompt} + {answer}" for prompt, answer in sorted(pairs))
        raise DataError(f"{where}: several columns could be prompt and answer: {ways}. {_ADVICE}")
    out = dict(zip(("prompt", "answer"), pairs.pop(), strict=True)) if pairs else {}
    for field in () if given else sorted({"messages", "text"} - off):
        names = [name for name in _NAMES[field] if name in columns]
        if names and (not out or names[0] == field):
            out[field] = names[0]
    if not out:
        raise DataError(
            f"{where}: found no question and answer, prompt and completion, messages or text. "
            f"Columns found: {_listed(columns)}. {_ADVICE}"
        )
    return out


def _listed(columns: list[str]) -> str:
    return ", ".join(columns) or "none"


def _record(source: Mapping[str, str], values: Mapping[str, Any], split: Split, id: str, subject: str) -> Record:
    cells = {field: values.get(column) for field, column in source.items()}
    prompt, answer, text, history, wrong = _texts(source, cells, values)
    if cells.get("history"):
        history = _turns(cells["history"], "history")
    if cells.get("system"):
        history = (("system", _text(cells["system"], source["system"])), *history)
    record = Record(
        id=_text(cells["id"], source["id"]) if cells.get("id") not in (None, "") else id,
        prompt=prompt,
        answer=answer,
        text=text,
        split=split,
        subject=_optional(cells, source, "subject") or subject,
        paraphrase=_optional(cells, source, "paraphrase"),
        prompt_paraphrase=_optional(cells, source, "prompt_paraphrase"),
        perturbed=_texts_of(cells["perturbed"], source["perturbed"]) if cells.get("perturbed") else wrong,
        alternatives=_texts_of(cells["alternatives"], source["alternatives"]) if cells.get("alternatives") else (),
        history=history,
        document=_optional(cells, source, "document"),
        offset=_number(cells.get("offset") or 0),
        continues=str(cells.get("continues")).lower() in ("true", "1"),
    )
    spans = tuple(read_span(span, record.body_field) for span in _list(cells.get("spans"), "spans"))
    for span in spans:
        check_span(span, record)
    return replace(record, spans=spans)


def _texts(
    source: Mapping[str, str], cells: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[str, str, str, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Prompt, answer, text, earlier turns, and the wrong answers that options make."""
    messages, text = cells.get("messages"), cells.get("text")
    asked, answered = cells.get("prompt"), cells.get("answer")
    if isinstance(asked, list) and isinstance(answered, list) and all(isinstance(x, dict) for x in asked + answered):
        messages = asked + answered
        asked = answered = None
    present = [name for name, cell in (("answer", answered), ("messages", messages), ("text", text)) if cell]
    if len(present) > 1:
        names = " and ".join(source.get(name, name) for name in present)
        raise DataError(f"the columns {names} both hold content. Say which counts with columns.")
    if present == ["messages"]:
        *history, (_, prompt), (_, answer) = _conversation(messages)
        return prompt, answer, "", tuple(history), ()
    if present == ["text"]:
        return "", "", _text(text, source["text"]), (), ()
    if "answer" not in source or answered is None:
        names = ", ".join(source[name] for name in ("answer", "messages", "text") if name in source)
        raise DataError(f"'{names}' is empty. Give the row a text, or take it out.")
    answer, wrong = _choice(cells.get("choices"), answered, source["answer"], values)
    if not answer.strip():
        raise DataError(f"'{source['answer']}' is empty. Give the row an answer, or take it out.")
    prompt = "" if asked is None else _text(asked, source["prompt"])
    return prompt, answer, "", (), wrong


def _choice(choices: Any, answer: Any, column: str, values: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The answer, and the options that are not it: from `choices` and an index, or from option1, option2, ..."""
    if choices:
        options = _texts_of(choices, "choices")
        if isinstance(answer, int) and not isinstance(answer, bool):
            if not 0 <= answer < len(options):
                raise DataError(f"'{column}' is choice {answer}, but there are {len(options)} choices.")
            answer = options[answer]
    else:
        options = tuple(str(v) for k, v in values.items() if k.startswith("option") and k[6:].isdigit() and v)
    if isinstance(answer, list) and len(answer) > 0:
        answer = answer[0]
    right = _text(answer, column)
    return right, tuple(option for option in options if option != right)


def _conversation(messages: Any) -> list[tuple[str, str]]:
    turns = list(_turns(messages, "messages"))
    if len(turns) < 2 or turns[-1][0] != "assistant" or turns[-2][0] != "user":
        roles = ", ".join(role for role, _ in turns) or "none"
        raise DataError(f"a conversation must end with a user and an assistant; its roles are: {roles}.")
    if not turns[-1][1].strip():
        raise DataError("the last message is empty. Give it a text, or take the row out.")
    return turns


def _turns(messages: Any, column: str) -> tuple[tuple[str, str], ...]:
    """(role, content) of messages as {role, content} or {from, value}, or as pairs."""
    turns = []
    for message in _list(messages, column):
        if isinstance(message, list) and len(message) == 2:
            role, content = message
        elif isinstance(message, dict):
            role = message.get("role", message.get("from"))
            content = message.get("content", message.get("value"))
        else:
            role = content = None
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"'{column}' must hold messages with a role and a content; found {_kind(message)}.")
        turns.append((_ROLES.get(role, role), _text(content, column)))
    return tuple(turns)


def read_span(value: Any, default: Field) -> Span:
    """A span from {start, end, field, label, weight, source} or [start, end]; DataError if it is neither."""
    if isinstance(value, list) and len(value) == 2:
        value = {"start": value[0], "end": value[1]}
    if not isinstance(value, dict) or not {"start", "end"} <= set(value):
        raise DataError(f"a span needs start and end; found {_kind(value)}.")
    field = value.get("field") or default
    try:
        start, end = int(value["start"]), int(value["end"])
        weight = 1.0 if value.get("weight") is None else float(value["weight"])
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"start, end and weight of a span must be numbers; found {_kind(value)}.") from None
    if field not in get_args(Field):
        raise DataError(unknown("field of a span", str(field), get_args(Field)))
    if not 0 <= weight <= LARGEST_WEIGHT:
        raise DataError(f"the weight of a span must be from 0 to {LARGEST_WEIGHT:g}; found {weight:g}.")
    label = value.get("label")
    return Span(field, start, end, weight, "unwanted" if label is None else str(label), str(value.get("source") or ""))


def check_span(span: Span, record: Record) -> None:
    """DataError if the span does not lie in its field of the record."""
    length = len({"prompt": record.prompt, "answer": record.answer, "text": record.text}[span.field])
    if not 0 <= span.start < span.end <= length:
        raise DataError(f"span {span.start}:{span.end} is outside of the {span.field}, which has {length} characters.")


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"'offset' must be a whole number; found {type(value).__name__}.") from None


def _text(value: Any, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"'{column}' must be text; found {_kind(value)}.")
    text = str(value)
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise DataError(f"'{column}' has half of a surrogate pair, which is no text. Write the file as UTF-8.")
    return text


def _optional(cells: Mapping[str, Any], source: Mapping[str, str], field: str) -> str:
    return _text(cells[field], source[field]) if cells.get(field) not in (None, "") else ""


def _list(value: Any, column: str) -> list[Any]:
    """A list, also from its JSON text in a CSV cell; nothing is the empty list."""
    if value is None:
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"'{column}' must be a list, or its JSON text; found {value[:60]!r}.") from None
    if not isinstance(value, list):
        raise DataError(f"'{column}' must be a list; found {type(value).__name__}.")
    return value


def _texts_of(value: Any, column: str) -> tuple[str, ...]:
    """Several texts: a list, its JSON text, or one text on its own."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return (_text(value, column),)
    return tuple(_text(item, column) for item in _list(value, column))


def to_row(record: Record) -> dict[str, Any]:
    """The record as a JSON object that `resolve` reads back to an equal record; empty fields are left out."""
    plain = {name: getattr(record, name) for name in vars(record) if name not in ("split", "spans", "history")}
    row = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items() if value}
    if not record.text:
        row |= {"prompt": record.prompt, "answer": record.answer}
    if record.history:
        row["history"] = [{"role": role, "content": content} for role, content in record.history]
    if record.spans:
        row["spans"] = [vars(span) for span in record.spans]
    return row


def _kind(value: Any) -> str:
    """What a cell is without what it says, which may be what is to be forgotten."""
    return f"the keys {', '.join(map(str, value))[:80]}" if isinstance(value, Mapping) else type(value).__name__
