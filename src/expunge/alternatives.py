"""What is answered instead of a forget answer: a refusal, or another answer that the model itself finds plausible."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from expunge import lm as lms
from expunge.core import AlternativeSource
from expunge.data import refusals
from expunge.data.columns import to_row
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record
from expunge.decode import complete, stop_ids
from expunge.errors import DataError, MethodError
from expunge.lm import LM
from expunge.recipe import Alternatives as Settings
from expunge.recipe import Data, Recipe
from expunge.runfolder import replacing
from expunge.sampling import record_draw

_ROWS = 40
_KEY = "written_by"
_ROUNDS = 4
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Alternatives:
    """For each record the answers to choose from, and the one of each epoch: a function of seed, epoch and record."""

    encoder: Encoder
    records: Mapping[str, Record]
    answers: Mapping[str, Sequence[str]]
    seed: int
    made: dict[tuple[str, str], Encoded] = field(default_factory=dict, repr=False)

    def at(self, record_id: str, epoch: int) -> Encoded:
        """The record as tokens with the answer that is drawn for this epoch."""
        return self._encoded(record_id, self.drawn(record_id, epoch))

    def drawn(self, record_id: str, epoch: int) -> str:
        """The text of that answer."""
        choices = self.answers[record_id]
        return choices[record_draw(self.seed, f"alternative-{epoch}-{record_id}") % len(choices)]

    def all_of(self, items: Iterable[Encoded], epochs: int) -> list[Encoded]:
        """Each different one that `epochs` epochs draw for these records."""
        drawn = [(item.id, self.drawn(item.id, epoch)) for item in items for epoch in range(epochs)]
        return [self._encoded(*key) for key in dict.fromkeys(drawn)]

    def _encoded(self, record_id: str, answer: str) -> Encoded:
        key = (record_id, answer)
        if key not in self.made:
            self.made[key] = self.encoder.encode(self.records[record_id], answer=answer)
        return self.made[key]


def alternatives_of(
    sources: frozenset[AlternativeSource], records: Sequence[Record], lm: LM, data: Data, seed: int, cache: Path
) -> Alternatives | None:
    """What the terms of one side compare with; None if they do not. `own` answers that are missing are written.

    DataError for raw text, which has no question to answer otherwise.
    """
    if not sources:
        return None
    if len(sources) > 1:
        raise MethodError(f"the terms of one side ask for alternatives={' and '.join(sorted(sources))}; choose one")
    raw = next((record.id for record in records if record.text), None)
    if raw is not None:
        raise DataError(
            f"record '{raw}' is raw text, and the method needs questions to answer otherwise. Use npo or ga"
        )
    encoder = Encoder.from_recipe(lm.tokenizer, data)
    by_id = {record.id: record for record in records}
    if sources == {"refusals"}:
        same = refusals.read(data.refusals)
        return Alternatives(encoder, by_id, dict.fromkeys(by_id, same), seed)
    missing = [record for record in records if not record.alternatives]
    written = write(lm, encoder, missing, data.alternatives, seed, cache) if missing else []
    found = {record.id: record.alternatives for record in (*records, *written) if record.alternatives}
    return Alternatives(encoder, by_id, found, seed)


def write_for(
    recipe: Recipe, lm: LM, records: Sequence[Record], path: Path, progress: Progress | None = None
) -> list[Record]:
    """`write` with the settings of a recipe."""
    encoder = Encoder.from_recipe(lm.tokenizer, recipe.data)
    return write(lm, encoder, records, recipe.data.alternatives, recipe.seed, path, progress)


def write(
    lm: LM,
    encoder: Encoder,
    records: Sequence[Record],
    settings: Settings,
    seed: int,
    path: Path,
    progress: Progress | None = None,
) -> list[Record]:
    """The records with answers that the model samples, kept in a records file; what is there already is not made again.

    Answers to a record depend on the model, the settings, the seed and the record alone. Those equal to its own answer
    are not kept; a record of which none is left is asked again at twice the temperature, three times.
    """
    made_by = f"{lms.content_hash(lm.model)} {settings.model_dump_json()} {seed}"
    done = _kept(path, made_by, {record.id: record for record in records})
    left = [record for record in records if record.id not in done]
    size, stops = max(1, _ROWS // settings.per_record), stop_ids(lm, encoder, records)
    with replacing(path) as stream:
        stream.writelines(_line(record, made_by) for record in done.values())
    for start in range(0, len(left), size):
        answered = _answered(lm, encoder, left[start : start + size], stops, settings, seed)
        done |= {record.id: record for record in answered}
        with path.open("ab") as stream:
            stream.writelines(_line(record, made_by) for record in answered)
        if progress is not None:
            progress(len(done), len(records))
    return [done[record.id] for record in records]


def _answered(
    lm: LM, encoder: Encoder, records: Sequence[Record], stops: frozenset[int], settings: Settings, seed: int
) -> list[Record]:
    found: dict[str, tuple[str, ...]] = {}
    for attempt in range(_ROUNDS):
        left = [record for record in records if not found.get(record.id)]
        prompts = [encoder.prompt_ids(record) for record in left for _ in range(settings.per_record)]
        draws = [record_draw(seed, f"{attempt}/{k}/{r.id}") for r in left for k in range(settings.per_record)]
        texts = complete(
            lm, prompts, stops, max_new_tokens=settings.max_new_tokens, batch_size=_ROWS,
            temperature=settings.temperature * 2**attempt, draws=draws,
        )  # fmt: skip
        answers = [str(lm.tokenizer.decode(list(text.ids), skip_special_tokens=True)).strip() for text in texts]
        for place, record in enumerate(left):
            own = answers[place * settings.per_record : (place + 1) * settings.per_record]
            others = (answer for answer in own if answer and answer.split() != record.answer.split())
            found[record.id] = tuple(dict.fromkeys(others))
        if all(found.values()):
            return [replace(record, alternatives=found[record.id]) for record in records]
    record_id = next(record.id for record in records if not found[record.id])
    raise DataError(
        f"the model gave no other answer to record '{record_id}' in {_ROUNDS * settings.per_record} samples. Raise "
        "data.alternatives.temperature, or give the record alternatives of yours"
    )


def _line(record: Record, made_by: str) -> bytes:
    return (json.dumps(to_row(record) | {_KEY: made_by}, ensure_ascii=False) + "\n").encode()


def _kept(path: Path, made_by: str, records: Mapping[str, Record]) -> dict[str, Record]:
    """Those of the records whose alternatives the file holds, written by the same; a line cut short is none."""
    found: dict[str, Record] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        record = records.get(str(row.get("id")))
        if record is not None and row.get(_KEY) == made_by and row.get("answer") == record.answer:
            found[record.id] = replace(record, alternatives=tuple(row["alternatives"]))
    return found
