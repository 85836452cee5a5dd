"""The MUSE suite: texts to forget, to keep and never seen, for membership; three tasks that the model answers freely.

Verbatim memorisation continues a passage of the forget set; knowledge memorisation answers questions about it, and
about what is to be kept, after ten examples. Prompts are bare text, no chat template. Source: Shi et al., MUSE (2024)
and its published scripts; names of metrics as in OpenUnlearning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from expunge.data import load as loader
from expunge.data.records import Record, Split
from expunge.decode import Progress, complete, stop_ids
from expunge.errors import DataError
from expunge.evals.table import GENERATIONS
from expunge.recipe import Source

if TYPE_CHECKING:
    from expunge.data.encode import Encoder
    from expunge.lm import LM

HUB_NAME = "muse-bench/MUSE-{corpus}"
EXAMPLES = "example"
"""The role, in a record's history, of a question and its answer that stand in front of the prompt."""


@dataclass(frozen=True)
class Task:
    """How one set is asked: `form` of a prompt, longest answer in tokens, texts that an answer is cut at.

    `cut_reference`: the right answer is compared as far as the longest answer reaches.
    """

    form: str
    max_new_tokens: int
    stops: tuple[str, ...] = ()
    cut_reference: bool = False

    def prompt(self, record: Record) -> str:
        """The text in front of the answer: examples with their answers, then the question.

        >>> record = Record("a", "Who?", "Ada", history=(("example", "When?"), ("example", "1843")))
        >>> TASKS["forget_knowmem"].prompt(record)
        'Question: When?\\nAnswer: 1843\\n\\nQuestion: Who?\\nAnswer: '
        """
        turns = [text for _, text in record.history]
        shown = [self.form.format(q) + a + "\n\n" for q, a in zip(turns[::2], turns[1::2], strict=True)]
        return "".join(shown) + self.form.format(record.prompt)

    def cut(self, text: str) -> str:
        """The text up to the first of the stops.

        >>> TASKS["forget_knowmem"].cut("1843\\nQuestion: Who?")
        '1843'
        """
        for stop in self.stops:
            text = text.split(stop)[0]
        return text


_KNOWLEDGE = Task("Question: {}\nAnswer: ", 32, ("\n\n", "\nQuestion", "Question:"))
TASKS: Mapping[str, Task] = {
    "forget_verbmem": Task("{}", 128, cut_reference=True),
    "forget_knowmem": _KNOWLEDGE,
    "retain_knowmem": _KNOWLEDGE,
}
_FILES: Mapping[str, tuple[str, str, Split]] = {
    "forget": ("privleak", "forget", "forget"),
    "holdout": ("privleak", "holdout", "holdout"),
    "retain": ("privleak", "retain", "retain"),
    "forget_verbmem": ("verbmem", "forget", "forget"),
    "forget_knowmem": ("knowmem", "forget_qa", "forget"),
    "retain_knowmem": ("knowmem", "retain_qa", "retain"),
}
"""Our set: configuration and split on the hub, or CONFIG_SPLIT.jsonl, or CONFIG/SPLIT.json in a folder."""


def load_suite(
    data_dir: str | Path | None, corpus: str = "News", *, limit: int | None = None
) -> dict[str, list[Record]]:
    """MUSE's sets by name: forget, holdout and retain for membership, and the three tasks.

    `data_dir` is a folder of MUSE's files, None the hub's muse-bench/MUSE-{corpus}. DataError if one is missing.
    """
    sets = {}
    for name, (config, split, side) in _FILES.items():
        records = _read(data_dir, corpus, config, split, side, name, limit)
        if config == "knowmem":
            examples = _read(data_dir, corpus, config, f"{split}_icl", side, f"{name}-icl", None)
            history = tuple((EXAMPLES, text) for e in examples for text in (e.prompt, e.answer))
            records = [replace(record, history=history) for record in records]
        sets[name] = records
    return sets


def generate(
    lm: LM,
    encoder: Encoder,
    task: Task,
    records: Sequence[Record],
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> pa.Table:
    """The generation table of a task: greedy answers, cut at the task's stops.

    Differs: a prompt that leaves no room within the encoder's `max_length` loses its beginning; the published scripts
    run models whose context holds every prompt.
    """
    prompts = prompt_ids(encoder, task, records)
    written = complete(
        lm, prompts, stop_ids(lm, encoder, ()), max_new_tokens=task.max_new_tokens, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    rows = [
        {
            "id": record.id,
            "subject": record.subject,
            "prompt": record.prompt,
            "reference": _reference(encoder, task, record),
            "generation": task.cut(str(lm.tokenizer.decode(list(text.ids), skip_special_tokens=True))).strip(),
            "n_tokens": len(text.ids),
            "stopped": text.stopped,
        }
        for record, text in zip(records, written, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=GENERATIONS)


def prompt_ids(encoder: Encoder, task: Task, records: Sequence[Record]) -> list[list[int]]:
    """The prompts as tokens, special tokens in front, at most `max_length` less the longest answer."""
    room = encoder.max_length - task.max_new_tokens
    if room < 1:
        raise DataError(
            f"data.max_length {encoder.max_length} leaves no room for a prompt beside {task.max_new_tokens} new tokens"
        )
    found = []
    for record in records:
        ids = [int(token) for token in encoder.tokenizer(task.prompt(record))["input_ids"]]
        if ids and ids[-1] == encoder.tokenizer.eos_token_id:
            ids.pop()
        begin = ids[:1] if ids[:1] == [encoder.tokenizer.bos_token_id] else []
        found.append(ids if len(ids) <= room else begin + ids[len(ids) - room + len(begin) :])
    return found


def _reference(encoder: Encoder, task: Task, record: Record) -> str:
    if not task.cut_reference:
        return record.answer
    ids = encoder.tokenizer(record.answer, add_special_tokens=False)["input_ids"]
    return str(encoder.tokenizer.decode(ids[: task.max_new_tokens], skip_special_tokens=True))


def _read(
    data_dir: str | Path | None, corpus: str, config: str, split: str, side: Split, name: str, limit: int | None
) -> list[Record]:
    if data_dir is None:
        source = Source(
            dataset_name=HUB_NAME.format(corpus=corpus), dataset_config=config, dataset_split=split, limit=limit
        )
        return loader.load(source, side, name_prefix=name)
    folder = Path(data_dir).expanduser()
    names = [f"{config}_{split}.jsonl", f"{config}_{split}.json", f"{config}/{split}.json", f"{config}/{split}.jsonl"]
    file = next((folder / n for n in names if (folder / n).is_file()), None)
    if file is None:
        found = ", ".join(sorted(p.name for p in folder.glob("*"))[:12]) or "nothing"
        raise DataError(f"the MUSE suite needs {names[0]} or {names[2]} in '{data_dir}'; the folder holds {found}")
    return loader.load(Source(path=str(file), limit=limit), side, name_prefix=name)
