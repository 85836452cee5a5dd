"""What attacks look for in a model: the key words of a record, in its probabilities and in what it writes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rouge_score.rouge_scorer import RougeScorer

from expunge.core import IGNORE
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record, Span
from expunge.decode import complete, stop_ids
from expunge.evals import scoring
from expunge.lm import LM

Places = npt.NDArray[np.int32]
_EDGE = re.compile(r"[0-9A-Za-z]")


def keys(record: Record) -> list[Span]:
    """The spans of the answer (or text) that carry the knowledge: gold ones, else the annotated; empty without any."""
    marked = [span for span in record.spans if span.field == record.body_field and span.label == "unwanted"]
    return [span for span in marked if span.source == "gold"] or marked


def phrases(record: Record) -> list[str]:
    """The key words as text, in order.

    >>> phrases(Record("a", "Where?", "In Oslo.", spans=(Span("answer", 3, 7, source="gold"),)))
    ['Oslo']
    """
    return [record.body[span.start : span.end] for span in sorted(keys(record), key=lambda span: span.start)]


def told(record: Record, text: str) -> float:
    """How much of a record a text tells, in [0, 1]: the share of its key words, or ROUGE-L recall where none is marked.

    >>> told(Record("a", "Where?", "In Oslo.", spans=(Span("answer", 3, 7, source="gold"),)), "It was OSLO, I think")
    1.0
    >>> round(told(Record("a", "Where?", "He was born in Oslo."), "born in Oslo"), 2)
    0.6
    """
    wanted = phrases(record)
    if wanted:
        return sum(_holds(text, phrase) for phrase in wanted) / len(wanted)
    return float(RougeScorer(["rougeL"], use_stemmer=True).score(record.body, text)["rougeL"].recall)


def probabilities(lm: LM, encoder: Encoder, records: Sequence[Record], *, token_budget: int = 2048) -> dict[str, float]:
    """By record id, the geometric mean of the probabilities of its key tokens given the true text before them."""
    table = scoring.score(lm, encoder, records, ("answer",), token_budget=token_budget)
    return key_probabilities(table, records)


def key_probabilities(table: pa.Table, records: Sequence[Record]) -> dict[str, float]:
    """The same from a score table; all tokens of the answer count where no key words are marked, NaN without any."""
    by_id = {record.id: record for record in records}
    found = {}
    for entry in table.select(["id", "start", "end", "logp"]).to_pylist():
        starts, ends = (np.array(entry[name], np.int32) for name in ("start", "end"))
        logp = np.array(entry["logp"], np.float64)[_on_keys(starts, ends, by_id[entry["id"]])]
        found[entry["id"]] = math.exp(float(logp.mean())) if len(logp) else math.nan
    return found


def key_places(encoded: Encoded, record: Record) -> list[int]:
    """The positions t of `targets[t]` that are key tokens."""
    start, end = encoded.offsets[:, 0], encoded.offsets[:, 1]
    chosen = _on_keys(start, end, record) & (encoded.targets != IGNORE)
    return [int(place) for place in np.flatnonzero(chosen)]


def written(
    lm: LM,
    encoder: Encoder,
    records: Sequence[Record],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    draws: Sequence[int] = (),
    prefill: Mapping[str, Sequence[int]] | None = None,
) -> list[str]:
    """What the model writes after each prompt, `prefill[id]` being the beginning of its answer, which is not in it."""
    begun = prefill or {}
    prompts = [[*encoder.prompt_ids(record), *begun.get(record.id, ())] for record in records]
    texts = complete(
        lm, prompts, stop_ids(lm, encoder, records),
        max_new_tokens=max_new_tokens, temperature=temperature, draws=draws,
    )  # fmt: skip
    return [str(lm.tokenizer.decode(list(text.ids), skip_special_tokens=True)).strip() for text in texts]


def _on_keys(start: Places, end: Places, record: Record) -> npt.NDArray[np.bool_]:
    """Which tokens, by their characters, are key tokens: all of the answer where none is marked."""
    inside: npt.NDArray[np.bool_] = start >= 0
    spans = keys(record)
    if not spans:
        return inside
    marked = np.zeros(len(start), np.bool_)
    for span in spans:
        marked |= (start < span.end) & (end > span.start)
    return inside & marked


def _holds(text: str, phrase: str) -> bool:
    """True if the text has the phrase in it, as words of their own where the script has such."""
    own = " ".join(phrase.split())
    before = r"(?<![0-9A-Za-z])" if _EDGE.match(own[:1]) else ""
    behind = r"(?![0-9A-Za-z])" if _EDGE.match(own[-1:]) else ""
    return bool(own) and re.search(before + re.escape(own) + behind, " ".join(text.split()), re.IGNORECASE) is not None
