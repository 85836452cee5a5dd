"""The sides of a recipe's data: its records, checked, and their tokens for one tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from expunge.core import Side
from expunge.data import annotations as annotation_files
from expunge.data import preflight
from expunge.data.chunks import chunk_all
from expunge.data.encode import Encoded, Encoder, static_names
from expunge.data.load import load
from expunge.data.records import Record, Split
from expunge.data.retain import draw_retain
from expunge.data.store import Stored
from expunge.lm import LM
from expunge.recipe import Recipe, Source

IN_MEMORY = 50_000
"""Records of one side whose tokens are held in memory; those of a larger side are in a file."""


@dataclass(frozen=True)
class Prepared:
    """Records of every side, and their tokens for one tokenizer."""

    records: Mapping[Side, Sequence[Record]]
    encoded: Mapping[Side, Sequence[Encoded]]


def records_of(source: Source | None, split: Split) -> list[Record]:
    """The records of one side of a recipe with their annotation's spans; empty if the recipe names no source."""
    if source is None:
        return []
    records = load(source, split)
    return (
        annotation_files.attach(records, annotation_files.read(source.annotations)) if source.annotations else records
    )


def prepare(recipe: Recipe, lm: LM, written: Sequence[Record] = (), encoder: Encoder | None = None) -> Prepared:
    """Records and tokens of every side, after the checks of preflight; DataError names all that is wrong.

    `written`: a retain set that the model wrote, in place of the recipe's. `encoder`: one that the recipe describes.
    """
    encoder = encoder or Encoder.from_recipe(lm.tokenizer, recipe.data)
    records = records_by_side(recipe, encoder, written)
    preflight.require(findings_of(recipe, records, encoder))
    return Prepared(records, {side: encode_all(encoder, rs, scored=True) for side, rs in records.items()})


def records_by_side(recipe: Recipe, encoder: Encoder, written: Sequence[Record] = ()) -> dict[Side, list[Record]]:
    """The records of forget, retain and general, long texts in pieces that fit; empty where there is no source."""
    data = recipe.data
    sides: dict[Side, Sequence[Record]] = {
        "forget": records_of(data.forget, "forget"),
        "retain": written or retain_of(recipe),
        "general": records_of(data.general, "general"),
    }
    return {side: chunk_all(records, encoder) for side, records in sides.items()}


def retain_of(recipe: Recipe) -> list[Record]:
    """The retain set that a recipe names, or what may be kept of its training data; empty if it gives neither."""
    data = recipe.data
    if data.retain is not None or data.training is None:
        return records_of(data.retain, "retain")
    forget, holdout = records_of(data.forget, "forget"), records_of(data.holdout, "holdout")
    return draw_retain(records_of(data.training, "retain"), forget, seed=recipe.seed, exclude=holdout)


def all_texts(recipe: Recipe) -> list[str]:
    """Every prompt, answer and text that the recipe's data holds, the holdout's too: what a tokenizer is fitted on."""
    data = recipe.data
    sources: dict[Split, Source | None] = {
        "forget": data.forget, "retain": data.retain or data.training, "holdout": data.holdout, "general": data.general,
    }  # fmt: skip
    records = [record for split, source in sources.items() for record in records_of(source, split)]
    return [text for record in records for text in (record.prompt, record.body) if text]


def findings_of(
    recipe: Recipe, records: Mapping[Side, Sequence[Record]], encoder: Encoder, probes: Sequence[Record] = ()
) -> list[preflight.Finding]:
    """What preflight finds in the records of a recipe."""
    holdout = records_of(recipe.data.holdout, "holdout")
    return preflight.check(records["forget"], records["retain"], holdout, encoder, probes)


def encode_all(encoder: Encoder, records: Sequence[Record], *, scored: bool = False) -> Sequence[Encoded]:
    """Every record as tokens, with the static scores that the spans of any of them give rise to.

    `scored`: only those with a token that is scored. Of more than `IN_MEMORY` records, the tokens are in a file.
    """
    names = static_names(records)
    made = (encoder.encode(record, static_names=names) for record in records)
    kept = (item for item in made if item.scored or not scored)
    return Stored(kept) if len(records) > IN_MEMORY else list(kept)
