"""What went wrong, by name: the signs that an unlearning run leaves in its tables when it fails.

Each sign is a comparison of intervals, so that it is found only where the numbers show it. None found does not mean
that all is well: that is what a verdict is for.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.data.records import Record
from expunge.data.words import cut
from expunge.errors import ExpungeError, RunFolderError
from expunge.evals.metrics import repeated
from expunge.evals.verdict import tables_of
from expunge.runfolder import RunFolder
from expunge.sides import records_of

KEPT = ("model_utility", "retain_knowmem_ROUGE", "retain_Q_A_Prob", "retain_Q_A_ROUGE")
SAID = ("forget_Q_A_Prob", "extraction_strength", "forget_knowmem_ROUGE", "forget_verbmem_ROUGE")
HALF = 0.5
EXCESS = 0.1
"""So much more of the forget answers than of answers never seen is knowledge; so much less is a hole."""
_REPEATED = 0.5
_CONSISTENT = 0.75
_RARE = 0.25


@dataclass(frozen=True)
class Sign:
    """One failure signature: its name, what shows it, and what to do."""

    name: str
    seen: str
    advice: str


def diagnose(run: RunFolder) -> list[Sign]:
    """The failure signatures of a run, worst first; empty if it shows none."""
    label = next((name for name in ("unlearned", "model") if name in run.labels), None)
    if label is None:
        raise RunFolderError(f"run '{run.path}' holds no judged model (eval/unlearned or eval/model). Evaluate one")
    own = _entries(run, f"eval/{label}/metrics.json")
    others = {name: _beside(run, name) for name in ("target", "oracle")}
    texts = [
        str(text)
        for name in run.tables(label, "generations")
        if not name.startswith("forget")
        for text in run.read_table(f"eval/{label}/generations/{name}.parquet")["generation"].to_pylist()
    ]
    return [
        *collapse(own, others["target"], texts, run.read_log()),
        *under_forgetting(own, others["oracle"]),
        *over_forgetting(own, others["oracle"]),
        *inconsistent_identifier(_marked(run)),
    ]


def collapse(
    own: Mapping[str, Any], target: Mapping[str, Any], texts: Sequence[str], log: Sequence[Mapping[str, Any]]
) -> Iterator[Sign]:
    """The model has lost what it should keep: less than half of the target's, or it repeats itself, or diverged."""
    seen = []
    lost = next((n for n in KEPT if n in own and n in target), None)
    if lost is not None and own[lost]["ci_high"] < HALF * target[lost]["ci_low"]:
        seen.append(f"{lost} is {own[lost]['agg_value']:.3g}, the target's {target[lost]['agg_value']:.3g}")
    if len(texts) >= 5 and _repetition(texts) > _REPEATED:
        seen.append(f"{_repetition(texts):.0%} of what it writes about kept records repeats what it just wrote")
    if any(line.get("loss") is None and "loss" in line for line in log):
        seen.append("the loss was not a number in training")
    if seen:
        advice = "lower the learning rate or forget_coef, stop earlier, or add a retain term"
        yield Sign("collapse", "; ".join(seen), advice)


def under_forgetting(own: Mapping[str, Any], oracle: Mapping[str, Any]) -> Iterator[Sign]:
    """It still knows more than a model that never read the forget set."""
    found = [
        f"{n} is {own[n]['agg_value']:.3g}, the oracle's {oracle[n]['agg_value']:.3g}"
        for n in SAID
        if n in own and n in oracle and own[n]["ci_low"] > oracle[n]["ci_high"]
    ]
    if not oracle:
        found = [
            f"{n} is {own[n]['agg_value']:.3g}: it has more of forget answers than of holdout answers"
            for n in ("forget_excess_Prob", "forget_excess_extraction")
            if n in own and own[n]["ci_low"] > EXCESS
        ]
    if found:
        advice = "more epochs, a larger learning rate or forget_coef; look whether the selected tokens carry the facts"
        yield Sign("under-forgetting", "; ".join(found), advice)


def over_forgetting(own: Mapping[str, Any], oracle: Mapping[str, Any]) -> Iterator[Sign]:
    """It knows less of the forget set than a model that never read it: a hole that shows what was removed."""
    found = [
        f"{n} is {own[n]['agg_value']:.3g}, the oracle's {oracle[n]['agg_value']:.3g}"
        for n in (*SAID, "mia_min_k")
        if n in own and n in oracle and own[n]["ci_high"] < oracle[n]["ci_low"]
    ]
    if not oracle and "forget_excess_Prob" in own and own["forget_excess_Prob"]["ci_high"] < -EXCESS / 2:
        found.append("it gives forget answers less probability than holdout answers, which it never saw")
    if found:
        advice = "a bounded objective (npo, simnpo), fewer epochs, or a smaller forget_coef; stop at the oracle's level"
        yield Sign("over-forgetting", "; ".join(found), advice)


def inconsistent_identifier(records: Sequence[Record]) -> Iterator[Sign]:
    """The same word is marked in one answer and not in the next: what is pushed down here is taught there."""
    agreed, words = consistency(records)
    if words and agreed < _CONSISTENT:
        yield Sign(
            "inconsistent identifier",
            f"two uses of a word that is marked somewhere agree in {agreed:.0%} of cases: {', '.join(words)}",
            "annotate again with another identifier, or mend the spans: expunge annotations inspect FILE",
        )


def consistency(records: Sequence[Record]) -> tuple[float, list[str]]:
    """(probability that two uses of a word are both marked or both not, the words treated most unevenly).

    Over words that are marked at least once and used in at least three answers, but in no more than a quarter of all:
    what stands everywhere is marked as part of a phrase. NaN and no words without such words.

    >>> from expunge.data.records import Span
    >>> same = [Record(str(i), answer="born in Oslo", spans=(Span("answer", 8, 12),)) for i in range(3)]
    >>> consistency([*same, *(Record(str(i), answer="a") for i in range(3, 12))])
    (1.0, [])
    """
    uses: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        spans = [s for s in record.spans if s.label == "unwanted" and s.field == record.body_field]
        here: Counter[str] = Counter()
        for start, end in cut(record.body):
            word = record.body[start:end].casefold()
            here[word] += any(s.start < end and start < s.end for s in spans)
        for word, marks in here.items():
            uses[word].append(marks > 0)
    kept = {w: m for w, m in uses.items() if any(m) and 3 <= len(m) <= _RARE * len(records)}
    if not kept:
        return float("nan"), []
    counts = np.array([len(m) for m in kept.values()], dtype=np.float64)
    share = np.array([np.mean(m) for m in kept.values()])
    alike = share**2 + (1 - share) ** 2
    worst = sorted(kept, key=lambda w: abs(float(np.mean(kept[w])) - 0.5))[:5]
    return float((counts * alike).sum() / counts.sum()), [w for w in worst if 0 < np.mean(kept[w]) < 1]


def _repetition(texts: Sequence[str]) -> float:
    """The mean over the texts that are long enough; 0 without one."""
    shares = [share for share in map(repeated, texts) if not math.isnan(share)]
    return float(np.mean(shares)) if shares else 0.0


def _beside(run: RunFolder, name: str) -> Mapping[str, Any]:
    folder = tables_of(run, name)
    return {} if folder is None else _entries(RunFolder(folder), "metrics.json")


def _entries(run: RunFolder, file: str) -> Mapping[str, Any]:
    """The metrics that have an interval."""
    if not run.has(file):
        return {}
    keys = ("agg_value", "ci_low", "ci_high")
    return {name: e for name, e in run.read_json(file).items() if all(e.get(key) is not None for key in keys)}


def _marked(run: RunFolder) -> list[Record]:
    """The forget records with the spans that the run was told of; empty where they cannot be had any more."""
    try:
        source = run.recipe.data.forget
        return [] if source is None or source.annotations is None else records_of(source, "forget")
    except (ExpungeError, OSError):
        return []
