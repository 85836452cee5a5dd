"""Are the tokens that a score picks causes, and not just correlates? Change them, and see what becomes of the answer.

(a) Top-scored answer tokens are replaced in the prefix, and the rest of the answer is scored. (b) Words of the prompt
are left out one by one: how far each answer token rests on them is the causal ranking. Each beside the same number of
random tokens, matched for position and frequency. For (c), unlearning on these tokens alone, the picks are written as
annotations; `recall` compares the runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats as scipy_stats

from expunge import runfolder
from expunge.data import annotations as annotation_files
from expunge.data.annotations import Manifest
from expunge.data.encode import Encoded, Encoder
from expunge.data.importers import words
from expunge.data.records import Record, Span
from expunge.evals import paired, scoring
from expunge.evals.paired import Paired
from expunge.evals.scoring import Item
from expunge.lm import LM
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.runfolder import RunFolder
from expunge.sampling import record_draw
from expunge.sides import encode_all
from expunge.studies import models, sheets
from expunge.studies.matching import Pool, answer_places, answer_tokens
from expunge.studies.selectivity import forget_records, scored
from expunge.studies.sheets import Sheet, Table, shown

QUESTION = "interventions"
_TABLE, _RESULTS = f"{sheets.FOLDER}/effects.parquet", f"{sheets.FOLDER}/effects.json"
EFFECTS = pa.schema(
    [
        ("scorer", pa.string()),
        ("id", pa.string()),
        ("subject", pa.string()),
        ("picked", pa.int32()),
        ("replaced_top", pa.float64()),
        ("replaced_matched", pa.float64()),
        ("rests_top", pa.float64()),
        ("rests_matched", pa.float64()),
        ("rank_correlation", pa.float64()),
    ]
)
"""A row a scorer and record. `picked` tokens were chosen. `replaced_*`: by how many nats a token the rest of the answer
becomes less likely when the top (matched) tokens are replaced in its prefix. `rests_*`: by how many nats the log-
probability of the top (matched) tokens changes when a word of the prompt is left out, mean over words.
`rank_correlation`: of the score with that change, over the record's tokens."""


@dataclass(frozen=True)
class Asked:
    """Which scorers under which model, and the share of each answer's tokens that is picked."""

    scorers: tuple[str, ...]
    model: str = "target"
    share: float = 0.3


@dataclass(frozen=True)
class Picks:
    """The answer tokens of one record by their place in the answer: the top ones of a score, and others like them."""

    top: tuple[int, ...]
    matched: tuple[int, ...]


def run(
    recipe: Recipe, asked: Asked, out: Path, progress: Progress, *, resamples: int = 2000, seed: int = 0
) -> RunFolder:
    """The folder with the effects by record, the paired differences, the picks as annotation files, and the page."""
    folder = sheets.create(out, recipe, QUESTION)
    with runfolder.recording(folder):
        lm = models.load(recipe, models.named(asked.model)[1])
        encoder = Encoder.from_recipe(lm.tokenizer, recipe.data)
        records = forget_records(recipe, lm)
        items = {e.id: e for e in encode_all(encoder, records) if e.scored}
        pool = Pool.of(items.values())
        with progress.stage("Leave out words of the prompts") as bar:
            rests = {}
            for place, record in enumerate(r for r in records if r.id in items):
                rests[record.id] = dependence(lm, encoder, record, items[record.id], recipe.evaluation.token_budget)
                bar(place + 1, len(items))
        rows: list[dict[str, Any]] = []
        with progress.stage("Replace tokens") as bar:
            for place, scorer in enumerate(asked.scorers):
                table = scored(recipe, lm, records, "", scorer, "top").to_pylist()
                scores = {row["id"]: np.array(row["score"])[np.array(row["start"]) >= 0] for row in table}
                picks = {
                    key: pick(item, scores[key], pool, asked.share, record_draw(recipe.seed, key))
                    for key, item in items.items()
                }
                rows += _rows(lm, recipe, scorer, records, items, pool, scores, picks, rests)
                _write_picks(folder, records, items, {k: p for k, p in picks.items() if p}, scorer, place, asked)
                bar(place + 1, len(asked.scorers), scorer)
        folder.write_table(_TABLE, pa.Table.from_pylist(rows, schema=EFFECTS))
        judge(folder, resamples=resamples, seed=seed)
    return folder


def judge(folder: RunFolder, *, resamples: int = 2000, seed: int = 0) -> list[Paired]:
    """The paired differences of a study's effects, written to its folder with the page; no model is needed."""
    rows = folder.read_table(_TABLE).cast(EFFECTS).to_pylist()
    found = []
    correlations = []
    for scorer in dict.fromkeys(row["scorer"] for row in rows):
        mine = [row for row in rows if row["scorer"] == scorer]
        subjects = [row["subject"] for row in mine]
        for what in ("replaced", "rests"):
            top, other = ([row[f"{what}_{side}"] for row in mine] for side in ("top", "matched"))
            found.append(paired.compare(f"{scorer}: {what}", top, other, subjects, resamples=resamples, seed=seed))
        ranks = [row["rank_correlation"] for row in mine]
        zero = [0.0] * len(ranks)
        correlations.append(paired.compare(scorer, ranks, zero, subjects, resamples=resamples, seed=seed))
    results = {"effects": [one.as_json() for one in found], "ranks": [one.as_json() for one in correlations]}
    folder.write_json(_RESULTS, results)
    sheets.write(folder, _sheet(found, correlations))
    return found


def pick(item: Encoded, scores: np.ndarray[Any, Any], pool: Pool, share: float, draw: int) -> Picks | None:
    """The top share of the answer's tokens but the last, ties to the earliest, and as many others like them.

    None where fewer than three tokens stand before the last: nothing could be compared there.
    """
    tokens = answer_tokens(item)
    room = len(tokens) - 1
    count = min(max(1, math.ceil(share * room - 1e-9)), room // 2)
    if count < 1 or room < 3:
        return None
    top = np.argsort(-scores[:room], kind="stable")[:count].tolist()
    matched = pool.matched(top, tokens[:room], np.random.default_rng(draw))
    return Picks(tuple(sorted(top)), tuple(matched))


def replaced(item: Encoded, places: Sequence[int], pool: Pool, draw: int) -> Encoded:
    """The item with the answer tokens at these places replaced where they are read; its targets stay as they are."""
    where, tokens = answer_places(item), answer_tokens(item)
    rng = np.random.default_rng([draw, 1])
    ids = item.input_ids.copy()
    for place in places:
        ids[where[place] + 1] = pool.substitute(tokens[place], place, len(tokens), rng)
    return replace(item, input_ids=ids)


def dependence(lm: LM, encoder: Encoder, record: Record, item: Encoded, token_budget: int) -> np.ndarray[Any, Any]:
    """(answer tokens,) mean over prompt words of |change of log p when the word is left out|, in nats.

    NaN where the prompt has no two words. Variants in which the answer is cut into other tokens are left out.
    """
    count = len(answer_places(item))
    asked = [Item(record, "whole", record.body, item)]
    for start, end in words(record.prompt):
        prompt = " ".join((record.prompt[:start] + record.prompt[end:]).split())
        if prompt:
            own = encoder.encode(replace(record, prompt=prompt, spans=()))
            if answer_tokens(own) == answer_tokens(item):
                asked.append(Item(record, f"without:{start}", record.body, own))
    if len(asked) < 2:
        return np.full(count, math.nan)
    whole, *others = _logps(lm, asked, token_budget)
    return np.asarray(np.abs(np.stack(others) - whole).mean(0))


def _logps(lm: LM, rows: Sequence[Item], token_budget: int) -> list[np.ndarray[Any, Any]]:
    """The log-probabilities of each row's answer tokens, the end token left out."""
    table = scoring.score_items(lm, rows, token_budget=token_budget, share_prompts=False)
    columns = (table.column(name).to_pylist() for name in ("logp", "start"))
    return [np.array(logp, np.float64)[np.array(start) >= 0] for logp, start in zip(*columns, strict=True)]


def _rows(
    lm: LM,
    recipe: Recipe,
    scorer: str,
    records: Sequence[Record],
    items: Mapping[str, Encoded],
    pool: Pool,
    scores: Mapping[str, np.ndarray[Any, Any]],
    picks: Mapping[str, Picks | None],
    rests: Mapping[str, np.ndarray[Any, Any]],
) -> Iterator[dict[str, Any]]:
    """A row a record in the schema `EFFECTS`; records without picks are left out."""
    chosen = [record for record in records if record.id in items and picks[record.id] is not None]
    asked = []
    for record in chosen:
        own, item, draw = picks[record.id], items[record.id], record_draw(recipe.seed, record.id)
        assert own is not None
        asked.append(Item(record, "whole", record.body, item))
        asked += [
            Item(record, name, record.body, replaced(item, places, pool, draw))
            for name, places in (("top", own.top), ("matched", own.matched))
        ]
    found = _logps(lm, asked, recipe.evaluation.token_budget)
    for place, record in enumerate(chosen):
        own = picks[record.id]
        assert own is not None
        whole, top, matched = found[3 * place : 3 * place + 3]
        touched = {*own.top, *own.matched}
        rest = [i for i in range(min(touched) + 1, len(whole)) if i not in touched]
        rest_on, score = rests[record.id], scores[record.id]
        yield {
            "scorer": scorer,
            "id": record.id,
            "subject": record.subject,
            "picked": len(own.top),
            "replaced_top": float((whole - top)[rest].mean()),
            "replaced_matched": float((whole - matched)[rest].mean()),
            "rests_top": float(rest_on[list(own.top)].mean()),
            "rests_matched": float(rest_on[list(own.matched)].mean()),
            "rank_correlation": _rank_correlation(score, rest_on),
        }


def _rank_correlation(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    if len(one) < 3 or not np.isfinite(other).all() or np.ptp(one) < 1e-12 or np.ptp(other) < 1e-12:
        return math.nan
    return float(scipy_stats.spearmanr(one, other).statistic)


def _write_picks(
    folder: RunFolder,
    records: Sequence[Record],
    items: Mapping[str, Encoded],
    picks: Mapping[str, Picks],
    scorer: str,
    place: int,
    asked: Asked,
) -> None:
    """Annotation files of the top tokens and of the matched ones: what runs of (c) are trained on."""
    for side in ("top", "matched"):
        spans = {}
        for record in records:
            if record.id in picks:
                item = items[record.id]
                ranges = item.offsets[answer_places(item)].tolist()
                chosen = [ranges[i] for i in getattr(picks[record.id], side)]
                spans[record.id] = [
                    Span(record.body_field, s, e, source=f"{side}:{scorer}")
                    for s, e in chosen
                    if record.body[s:e].strip()
                ]
        manifest = Manifest.of(records, f"{side} tokens of {scorer}", parameters={"share": asked.share})
        path = folder.file(f"{sheets.FOLDER}/{place}-{side}.jsonl")
        annotation_files.write(path, annotation_files.annotate(records, spans), manifest)


def _sheet(found: Sequence[Paired], ranks: Sequence[Paired]) -> Sheet:
    columns = ("what", "top tokens", "matched random tokens", "difference", "p")
    meaning = {
        "replaced": "rest of the answer, less likely by (nats a token), when they are replaced",
        "rests": "their own change (nats) when a word of the prompt is left out",
    }
    rows = []
    for one in found:
        scorer, _, what = one.name.rpartition(": ")
        cells = (shown(one.first), shown(one.second), shown(one.difference), f"{one.p:.4f}")
        rows.append((f"{scorer}: {meaning[what]}", *cells))
    effects = Table("Interventions", f"Paired over {found[0].difference.n} records.", columns, tuple(rows))
    causal = Table(
        "The causal ranking",
        "Rank correlation within a record of the score with the change when words of the prompt are left out.",
        ("score", "rank correlation", "p"),
        tuple((one.name, shown(one.first), f"{one.p:.4f}") for one in ranks),
    )
    lede = "Tokens that a score puts on top, beside random ones of like position and frequency in the same answers."
    return Sheet("Are the picked tokens causes?", lede, (effects, causal), ())
