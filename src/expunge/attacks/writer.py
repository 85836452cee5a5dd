"""Questions in other words by a language model at an address: asked for once, kept in the run, divided into parts."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from expunge.attacks.rewordings import PARTS, Part
from expunge.evals import hosted
from expunge.evals.hosted import Hosted
from expunge.identifiers.workers import concurrently
from expunge.runfolder import ATTACKS, RunFolder

EACH = 2
"""Rewordings of a question in each part."""
FILE = f"{ATTACKS}/written.json"
_COUNT = EACH * len(PARTS)
_LONGEST = 400
_TRIES = 3
_TOKENS = 600
_SAVED = 16
"""Questions between two savings."""
_ASK = (
    "Here is a question about somebody or something:\n{question}\n\nAsk for the same in {count} other ways, each "
    "unlike the others in words and build. Keep every name. Do not answer it. Reply with a JSON list of these strings."
)


@dataclass(frozen=True)
class Writer:
    """Who writes rewordings, and the run folder that keeps them. Forget text goes to the address."""

    hosted: Hosted
    run: RunFolder

    @property
    def name(self) -> str:
        """The name that the model is served under."""
        return self.hosted.model

    def __call__(self, questions: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Up to six rewordings of each question, in a fixed order; fewer or none where replies could not be read.

        What stands in the run already is not asked for again. IdentifierError as the endpoint raises it.
        """
        known: dict[str, list[str]] = dict(self.run.read_json(FILE)) if self.run.has(FILE) else {}
        todo = [question for question in dict.fromkeys(questions) if question not in known]
        if todo:
            with hosted.asking(self.hosted, self.run, _TOKENS) as server:
                stop = threading.Event()
                work = concurrently(iter(todo), lambda q: _asked(server, q), self.hosted.concurrency, stop)
                for done, (question, found) in enumerate(work, 1):
                    known[question] = found
                    if done % _SAVED == 0:
                        self.run.write_json(FILE, known)
            self.run.write_json(FILE, known)
        return {question: known[question] for question in questions}


def of_part(rewordings: Sequence[str], part: Part) -> Sequence[str]:
    """The rewordings of one part: every third, so that a short reply leaves some to each.

    >>> of_part(["a", "b", "c", "d", "e", "f"], "test")
    ['c', 'f']
    """
    return list(rewordings[PARTS.index(part) :: len(PARTS)])


def read(reply: str, question: str) -> list[str]:
    r"""The rewordings in a reply: its JSON list, or its lines without numbers and dashes; unlike each other.

    >>> read('Sure: ["Where was Ann born?", "Where was Ann born? ", "Ann comes from where?"]', "Where is Ann from?")
    ['Where was Ann born?', 'Ann comes from where?']
    >>> read("1. Where was Ann born?\n2) Ann comes from where?", "Where is Ann from?")
    ['Where was Ann born?', 'Ann comes from where?']
    """
    found: list[object] = []
    start, end = reply.find("["), reply.rfind("]")
    try:
        listed = json.loads(reply[start : end + 1]) if 0 <= start < end else None
    except ValueError:
        listed = None
    if isinstance(listed, list):
        found = listed
    elif start < 0:
        found = [re.sub(r"^\s*(?:\d+[.)]|[-*])\s*", "", line) for line in reply.splitlines()]
    texts = [text.strip() for text in found if isinstance(text, str)]
    kept = [text for text in texts if text and len(text) <= _LONGEST and text != question.strip()]
    return list(dict.fromkeys(kept))[:_COUNT]


def _asked(server: hosted.Server, question: str) -> list[str]:
    """The best of a few replies, the first one with enough rewordings."""
    best: list[str] = []
    for attempt in range(_TRIES):
        again = "" if attempt == 0 else f"\n\nThe last reply was not such a list. Try {attempt + 1}."
        text = _ASK.format(question=question, count=_COUNT) + again
        found = read(server.endpoint.ask([{"role": "user", "content": text}], text).text, question)
        best = max(best, found, key=len)
        if len(best) == _COUNT:
            break
    return best
