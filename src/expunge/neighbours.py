"""A retain set that the model writes itself before it forgets anything, where its user has none to give."""

from __future__ import annotations

import time
from collections.abc import Sequence

from expunge.data import neighbours
from expunge.data.columns import to_row
from expunge.data.encode import Encoder
from expunge.data.load import load
from expunge.data.records import Record
from expunge.decode import complete, stop_ids
from expunge.errors import DataError
from expunge.lm import LM
from expunge.recipe import Neighbours, Recipe, Source
from expunge.runfolder import RETAIN, RunFolder


def write_retain(recipe: Recipe, lm: LM, forget: Sequence[Record], run: RunFolder) -> list[Record]:
    """The records of retain.jsonl in the run folder; made on the first call, empty if the recipe asks for none.

    Questions in the forms of the forget set's about others (and general ones), answered greedily by the model as it is
    now. The same model, records and seed give the same file. The manifest says under `neighbours` what it took: how
    many were asked and kept, why others were not, tokens, seconds.
    """
    settings = recipe.data.neighbours
    if settings is None:
        return []
    if not run.has(RETAIN):
        _write(recipe, settings, lm, forget, run)
    return written_retain(run)


def written_retain(run: RunFolder) -> list[Record]:
    """The retain set that a run's model wrote; empty if it wrote none."""
    return load(Source(path=str(run.file(RETAIN))), "retain") if run.has(RETAIN) else []


def _write(recipe: Recipe, settings: Neighbours, lm: LM, forget: Sequence[Record], run: RunFolder) -> None:
    began = time.monotonic()
    asked = neighbours.ask(
        forget, settings.per_record, seed=recipe.seed, names=settings.names, general=settings.general
    )
    encoder = Encoder.from_recipe(lm.tokenizer, recipe.data)
    prompts = [encoder.prompt_ids(one.record) for one in asked]
    stops = stop_ids(lm, encoder, forget)
    texts = complete(lm, prompts, stops, max_new_tokens=settings.max_new_tokens)
    answers = [
        str(lm.tokenizer.decode(list(text.ids), skip_special_tokens=True)).strip() if text.stopped else None
        for text in texts
    ]
    kept, left_out = neighbours.kept(asked, answers, forget)
    tokens = sum(len(text.ids) for text in texts)
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
        raise DataError(
            f"of the model's own answers to {len(asked)} questions none can be kept ({reasons}). Give data.retain, or "
            "data.training to draw it from; if they are not finished, raise data.neighbours.max_new_tokens."
        )
    run.update(
        neighbours={
            "asked": len(asked), "kept": len(kept), "left_out": dict(left_out), "tokens": tokens,
            "seconds": round(time.monotonic() - began, 1),
        }
    )  # fmt: skip
    run.write_lines(RETAIN, map(to_row, kept))
