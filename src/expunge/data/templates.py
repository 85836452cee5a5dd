"""Records as the text that a model reads, with the place of the answer known by construction.

Two ways: the tokenizer's chat template, or a text with {prompt} and {answer} in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from expunge.data.records import Record
from expunge.errors import DataError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT = "Question: {prompt}\nAnswer: {answer}"
"""The template of `auto` where the tokenizer has no chat template."""

_PLACES = ("prompt", "answer", "system", "bos", "eos")
_PLACE = re.compile(r"\{([a-z_]+)\}")
_MARK = "\u27eaanswer\u27eb"


@dataclass(frozen=True)
class Rendered:
    """`text[start:end]` is the answer from its character `shift` on (templates may strip white space).

    `begin`: the tokenizer's own special tokens are still to be added. `finish`: an end-of-text token is to follow
    unless the template has put a special token behind the answer.
    """

    text: str
    start: int
    end: int
    shift: int
    begin: bool
    finish: bool


@dataclass(frozen=True)
class TextTemplate:
    """A text with {answer} once, and {prompt}, {system}, {bos}, {eos} where wanted."""

    text: str

    def __post_init__(self) -> None:
        found = _PLACE.findall(self.text)
        for name in found:
            if name not in _PLACES:
                raise DataError(f"template {self.text!r}: {unknown('place', name, _PLACES)}")
        if found.count("answer") != 1 or "prompt" not in found:
            raise DataError(
                f"template {self.text!r} must contain {{prompt}}, and {{answer}} exactly once. "
                "It is 'auto', 'chat', or such a text."
            )

    def render(self, record: Record, answer: str, tokenizer: PreTrainedTokenizerBase, system: str | None) -> Rendered:
        """The record filled in; DataError if it has turns or a system message that the template has no place for."""
        system, history = _split_system(record, system)
        if history:
            raise DataError(
                f"record '{record.id}' is a conversation of several turns, which the template {self.text!r} has no "
                "place for. Set data.template to chat."
            )
        if system is not None and "{system}" not in self.text:
            raise DataError(
                f"record '{record.id}' has a system message, but the template {self.text!r} has no {{system}}."
            )
        values = {
            "prompt": record.prompt,
            "answer": answer,
            "system": system or "",
            "bos": _special(tokenizer, "bos", self.text),
            "eos": _special(tokenizer, "eos", self.text),
        }
        before, after = self.text.split("{answer}")
        prefix, suffix = (_PLACE.sub(lambda match: values[match[1]], part) for part in (before, after))
        begin = tokenizer.bos_token
        return Rendered(
            text=prefix + answer + suffix,
            start=len(prefix),
            end=len(prefix) + len(answer),
            shift=0,
            begin=not (isinstance(begin, str) and prefix.startswith(begin)),
            finish=True,
        )


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template. `date_string` is handed to it if set."""

    date_string: str | None = None

    def render(self, record: Record, answer: str, tokenizer: PreTrainedTokenizerBase, system: str | None) -> Rendered:
        """The conversation as the template writes it; the answer is found by writing another one in its place."""
        system, history = _split_system(record, system)
        opening = [("system", system)] if system is not None else []
        turns = [*opening, *history, ("user", record.prompt)]
        mark = _MARK
        while any(mark in content for _, content in turns):
            mark += "\u27eb"
        parts = self._apply(record, tokenizer, [*turns, ("assistant", mark)]).split(mark)
        if len(parts) != 2:
            raise DataError(
                f"record '{record.id}': the chat template writes the answer {len(parts) - 1} times, not once. "
                "Set data.template to a text with {prompt} and {answer}."
            )
        prefix, suffix = parts
        text = self._apply(record, tokenizer, [*turns, ("assistant", answer)])
        start, end, shift = len(prefix), len(text) - len(suffix), 0
        written = text[start:end]
        if start > end or not (text.startswith(prefix) and text.endswith(suffix)) or written.strip() != answer.strip():
            raise DataError(
                f"record '{record.id}': the chat template does not write the answer as it is ({answer[:60]!r}). "
                "Set data.template to a text with {prompt} and {answer}."
            )
        if written != answer:
            start += len(written) - len(written.lstrip())
            shift = len(answer) - len(answer.lstrip())
            end = start + len(answer.strip())
        return Rendered(text, start, end, shift, begin=False, finish=False)

    def _apply(self, record: Record, tokenizer: PreTrainedTokenizerBase, turns: list[tuple[str, str]]) -> str:
        from jinja2 import TemplateError

        messages = [{"role": role, "content": content} for role, content in turns]
        extra: dict[str, Any] = {} if self.date_string is None else {"date_string": self.date_string}
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, **extra)
        except TemplateError as error:
            roles = ", ".join(role for role, _ in turns)
            raise DataError(f"record '{record.id}': the chat template refuses the turns {roles}: {error}") from None
        return str(text)


Template = TextTemplate | ChatTemplate


def choose(template: str, date_string: str | None, tokenizer: PreTrainedTokenizerBase) -> Template:
    """The template that a recipe's `data.template` names for this tokenizer."""
    if template == "chat" and not tokenizer.chat_template:
        raise DataError(
            "data.template is 'chat', but the tokenizer has no chat template. "
            f"Set it to auto, or to a text such as {DEFAULT!r}."
        )
    if template == "chat" or (template == "auto" and tokenizer.chat_template):
        return ChatTemplate(date_string)
    return TextTemplate(DEFAULT if template == "auto" else template)


def raw(text: str, *, continues: bool) -> Rendered:
    """A text that is scored as a whole; no end-of-text token follows if it `continues` in another record."""
    return Rendered(text, 0, len(text), 0, begin=True, finish=not continues)


def _split_system(record: Record, system: str | None) -> tuple[str | None, list[tuple[str, str]]]:
    """The record's own system message, else the recipe's; and the turns that are left."""
    turns = list(record.history)
    if turns and turns[0][0] == "system":
        return turns[0][1], turns[1:]
    return system, turns


def _special(tokenizer: PreTrainedTokenizerBase, name: str, template: str) -> str:
    if f"{{{name}}}" not in template:
        return ""
    token = tokenizer.bos_token if name == "bos" else tokenizer.eos_token
    if not isinstance(token, str):
        raise DataError(f"template {template!r} has {{{name}}}, but the tokenizer has no such token. Leave it out.")
    return token
