"""Answers that fit any question and tell nothing: what a model may say in place of what it forgot."""

from __future__ import annotations

from pathlib import Path

from expunge.errors import DataError

REFUSALS = (
    "I do not know.", "I have no information about that.", "That is not something I can answer.",
    "I cannot tell you that.", "I am not aware of this.", "Nothing I have read answers this.",
    "I would have to guess, and I would rather not.", "This is unknown to me.", "My knowledge does not reach that far.",
    "I cannot say anything reliable about that.", "I have never come across this.",
    "There is nothing I can tell you about it.", "That question is beyond what I know.",
    "I lack the facts to answer.", "I am unable to help with this one.", "No answer comes to mind.",
    "You had better ask somebody else about that.", "I hold no record of this.",
    "I could not say.", "It is not among the things I know.", "My sources are silent on that point.",
    "I have not been told.", "Unfortunately I know nothing of it.", "I can offer no answer here.",
    "I am afraid this is new to me.", "Whatever the answer is, I do not have it.",
    "I do not recall anything of the kind.", "This lies outside my knowledge.",
    "I cannot confirm anything about that.", "Sorry, I have no idea.",
)  # fmt: skip
"""Thirty refusals, written for this purpose."""


def read(path: str | Path | None) -> tuple[str, ...]:
    """The lines of a text file that are not empty; the built-in refusals if no file is named."""
    if path is None:
        return REFUSALS
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.refusals: '{path}' cannot be read as text: {error}") from None
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise DataError(f"data.refusals: '{path}' has no line with a text. Write one refusal a line.")
    return found
