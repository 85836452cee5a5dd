"""Questions about others in the forms of the forget set's, and which answers to them may be kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from expunge.data import overlap
from expunge.data.records import Record
from expunge.errors import DataError

_GIVEN = (
    "Anna", "Carlos", "Mei", "Fatima", "John", "Ingrid", "Rajesh", "Amara", "Pierre", "Yuki", "Olga", "Kwame", "Lucia",
    "Ahmed", "Hannah", "Tomas", "Priya", "Daniel", "Leila", "Marek", "Sofia", "Samuel", "Elena", "Viktor",
)  # fmt: skip
_FAMILY = (
    "Andersson", "Ramirez", "Chen", "Haddad", "Walker", "Lindqvist", "Sharma", "Okoye", "Laurent", "Tanaka", "Petrova",
    "Mensah", "Rossi", "Mansour", "Fischer", "Novak", "Iyer", "Cohen", "Karimi", "Kowalski", "Pereira", "Brooks",
)  # fmt: skip
GENERAL = (
    "What is the capital of France?", "Which planet is closest to the sun?", "How many days has a week?",
    "What do bees make?", "Who wrote Romeo and Juliet?", "What is water made of?",
    "Which language is spoken in Brazil?", "What is the largest ocean?",
    "What does a doctor do?", "How do plants get energy?", "What is two times six?",
    "What is the opposite of hot?", "Name a famous painter.", "Why do we sleep?", "What is a library for?",
    "How does a bicycle move?", "What is the past tense of 'go'?", "Explain what rain is.", "What is a novel?",
    "Which animals lay eggs?", "What is bread made from?", "How long is a year?", "Give an example of a proverb.",
)  # fmt: skip
"""Questions of no special topic that are asked beside the neighbours."""
_OPENERS = frozenset({
    "a", "an", "and", "are", "at", "by", "can", "could", "did", "do", "does", "for", "from", "has", "have", "how",
    "i", "in", "is", "may", "of", "on", "please", "tell", "the", "to", "was", "were", "what", "when", "where",
    "which", "who", "whom", "whose", "why", "will", "with", "would", "you",
})  # fmt: skip
_WORD = re.compile(r"[^\W\d_]\.(?=\s)|\w[\w'’.-]*\w|\w", re.UNICODE)
_JOINING = frozenset({
    "al", "bin", "da", "de", "del", "della", "der", "di", "dos", "du", "el", "ibn", "la", "le", "van", "von",
})  # fmt: skip
_NEAR = 0.8


@dataclass(frozen=True)
class Asked:
    """A question about somebody else: the record still without its answer, and what it was made from.

    `source` is the forget record whose form it has, None for a general question; `old` was replaced by `new`.
    """

    record: Record
    source: Record | None = None
    old: str = ""
    new: str = ""


def ask(
    forget: Sequence[Record], per_record: int, *, seed: int = 0, names: Sequence[str] = (), general: bool = True
) -> list[Asked]:
    """`per_record` questions about others for each forget record that names its subject, and the general ones.

    The subject is the record's `subject` if the question holds it, else the longest run of capitalised words there.
    `names` are the others; without them, names are put together from a list of ours. None of them is a forgotten one.
    Which name goes where follows from the seed and the order. DataError if there is nothing to ask.

    >>> asked = ask([Record("f", "Where was Ada Byron born?", "In Oslo.")], 1, names=["Bo Lind"], general=False)
    >>> asked[0].record.prompt
    'Where was Bo Lind born?'
    """
    found = [(record, name) for record in forget if (name := subject_in(record, _common(forget)))]
    taken = {part.casefold() for _, name in found for part in (name, *name.split())}
    others = [name for name in names or _invented() if not taken & {part.casefold() for part in (name, *name.split())}]
    if found and not others:
        raise DataError("every name in data.neighbours.names is one to forget. Name others.")
    asked = []
    for place, (record, old) in enumerate(found):
        chosen = np.random.default_rng([seed, place]).choice(len(others), min(per_record, len(others)), replace=False)
        for number, pick in enumerate(chosen.tolist()):
            new = others[pick]
            question = Record(f"neighbour-{place:05d}-{number}", _swapped(record.prompt, old, new), subject=new)
            asked.append(Asked(replace(question, split="retain"), record, old, new))
    if general:
        rows = [Record(f"general-{i:03d}", text, split="retain", subject="general") for i, text in enumerate(GENERAL)]
        asked += [Asked(row) for row in rows]
    if not asked:
        raise DataError(
            "no forget record has a question that names somebody, so no neighbour can be asked about. Give "
            "data.retain, or a column 'subject' with the name as the questions write it."
        )
    return asked


def subject_in(record: Record, common: frozenset[str] = frozenset()) -> str:
    """The name in a question that another can stand for; '' if none is found. `common`: words that are no names.

    >>> subject_in(Record("a", "What is the profession of Jaime Vasconcelos de Sá?"))
    'Jaime Vasconcelos de Sá'
    >>> subject_in(Record("b", "什么是李明的工作？", subject="李明")), subject_in(Record("c", "Why is the sky blue?"))
    ('李明', '')
    """
    prompt, subject = record.prompt, record.subject
    if subject and subject.casefold() in prompt.casefold():
        start = prompt.casefold().index(subject.casefold())
        return prompt[start : start + len(subject)]
    runs: list[tuple[int, int]] = []
    last: int | None = None  # where the word before ended, if it is part of a name or joins parts of one
    for match in _WORD.finditer(prompt):
        word = match.group()
        near = last is not None and not prompt[last : match.start()].strip()
        capital = word[0].isupper() and word.casefold() not in _OPENERS | common
        if capital:
            runs[-1:] = [(runs[-1][0], match.end())] if near else [*runs[-1:], match.span()]
        last = match.end() if capital or (near and word in _JOINING) else None
    best = max(runs, key=lambda run: run[1] - run[0], default=None)
    return "" if best is None else _bare(prompt[best[0] : best[1]])


def kept(
    asked: Sequence[Asked], answers: Sequence[str | None], forget: Sequence[Record]
) -> tuple[list[Record], Counter[str]]:
    """The questions with their answers as records, and how many were left out, by reason.

    Left out: answers that were not finished (None) or empty; that name a forgotten subject; that hold an unwanted span
    of the record whose form was used; that, with the name put back, are a forget record again, exactly or nearly.
    """
    names = {name.casefold() for record in forget if (name := subject_in(record, _common(forget)))}
    out: list[Record] = []
    why: Counter[str] = Counter()
    back: list[Record] = []
    for one, answer in zip(asked, answers, strict=True):
        reason = _against(one, answer, names)
        if reason:
            why[reason] += 1
            continue
        assert answer is not None
        out.append(replace(one.record, answer=answer))
        back.append(
            replace(
                out[-1], prompt=_swapped(one.record.prompt, one.new, one.old), answer=_swapped(answer, one.new, one.old)
            )
        )
    keys = {overlap.key(record) for record in forget}
    again = {record.id for record in back if overlap.key(record) in keys}
    again |= {near.id for _, near, _ in overlap.near_duplicates(forget, back, _NEAR)}
    if again:
        why["says what is to be forgotten"] += len(again)
    return [record for record in out if record.id not in again], why


def _against(one: Asked, answer: str | None, names: set[str]) -> str:
    if answer is None:
        return "not finished"
    if not answer.strip():
        return "empty"
    said = answer.casefold()
    if any(name in said for name in names):
        return "names a forgotten subject"
    source = one.source
    unwanted = () if source is None else [s for s in source.spans if s.label == "unwanted" and s.field == "answer"]
    if source is not None and any(source.answer[s.start : s.end].casefold() in said for s in unwanted):
        return "says what is to be forgotten"
    return ""


def _common(records: Sequence[Record]) -> frozenset[str]:
    """Words that occur without a capital somewhere in the questions and answers."""
    words = (word for record in records for word in _WORD.findall(f"{record.prompt} {record.answer}"))
    return frozenset(word for word in words if word[0].islower())


def _invented() -> list[str]:
    return [f"{given} {family}" for given, family in product(_GIVEN, _FAMILY)]


def _bare(name: str) -> str:
    """The name without a possessive or a full stop at its end."""
    return re.sub(r"(['’]s|['’.])$", "", name)


def _swapped(text: str, old: str, new: str) -> str:
    """The text with every `old` replaced; a part of the name that stands alone by the last part of the new one."""
    if not old or not new:
        return text
    text = re.sub(re.escape(old), lambda _: new, text, flags=re.IGNORECASE)
    parts = [part for part in old.split() if len(part) > 2 and part not in _JOINING]
    if len(parts) < 2:
        return text
    alone = "|".join(map(re.escape, parts))
    return re.sub(rf"\b(?:{alone})\b", lambda _: new.split()[-1], text)
