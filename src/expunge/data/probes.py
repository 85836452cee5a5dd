"""Questions in other words for an audit: drawn when the audit begins, so that no method can have seen which.

Templates, not a language model: the same salt gives the same probes on every machine. They test whether a question is
recognised in another frame; a paraphrase of the question itself comes with the data, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from expunge.data.records import Record

FRAMES = (
    "Please answer briefly: {}",
    "I was asked this and do not know: {}",
    "Quiz question. {}",
    "{} Answer in one sentence.",
    "Somebody wants to know: {}",
    "For a form that I am filling in: {}",
    "Question from a reader: {}",
    "Could you tell me the following? {}",
    "{} If you are not sure, say what is most likely.",
    "My notes are gone. {}",
    "A friend of mine says that you know this. {}",
    "{} I need it for an article.",
)


def reworded(records: Iterable[Record], salt: str) -> list[Record]:
    """Each record with a prompt, asked in a frame that salt and id decide; its prompt's paraphrase if it has one.

    >>> [probe] = reworded([Record("a", "Who wrote it?", "Ada")], "salt")
    >>> probe.id, "Who wrote it?" in probe.prompt, probe.answer
    ('a~reworded', True, 'Ada')
    """
    found = []
    for record in records:
        if record.prompt:
            digest = hashlib.sha256(f"{salt}\x1f{record.id}".encode()).digest()
            frame = FRAMES[int.from_bytes(digest[:8], "big") % len(FRAMES)]
            prompt = frame.format(record.prompt_paraphrase or record.prompt)
            found.append(replace(record, id=f"{record.id}~reworded", prompt=prompt, spans=()))
    return found
