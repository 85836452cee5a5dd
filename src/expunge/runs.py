"""The two verbs that change weights: `unlearn` removes the forget set from a model, `finetune` makes models to compare.

Both read a recipe, write a run folder, and go on where an earlier call with the same recipe was stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from expunge import lm as lms
from expunge import registry, runfolder
from expunge.core import Side
from expunge.data import annotations as annotation_files
from expunge.data import preflight
from expunge.data.encode import Encoded, Encoder, static_names
from expunge.data.load import load
from expunge.data.records import Record, Split
from expunge.errors import DataError
from expunge.fresh import fresh_model
from expunge.lm import LM, Scored
from expunge.recipe import Finetune, Method, Model, Recipe, Source, TermSpec
from expunge.refcache import Reference
from expunge.runfolder import RunFolder
from expunge.terms import Term, build_term, build_terms
from expunge.trace import Scoring, TokenView
from expunge.train import Fit, OnEpoch, OnStep, clear_checkpoints

_VIEWED = 24


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
    return annotation_files.attach(records, annotation_files.read(Path(source.annotations))) if source.annotations else records


def prepare(recipe: Recipe, lm: LM) -> Prepared:
    """Records and tokens of every side, after the checks of preflight; DataError names all that is wrong."""
    encoder = Encoder.from_recipe(lm.tokenizer, recipe.data)
    records = records_by_side(recipe)
    preflight.require(findings_of(recipe, records, encoder))
    encoded = {side: encode_all(encoder, rs) for side, rs in records.items()}
    return Prepared(records, {side: [e for e in es if e.scored] for side, es in encoded.items()})


def records_by_side(recipe: Recipe) -> dict[Side, list[Record]]:
    """The records of forget, retain and general; an empty list where the recipe names no source."""
    data = recipe.data
    sources: dict[Side, Source | None] = {"forget": data.forget, "retain": data.retain, "general": data.general}
    return {side: records_of(source, side) for side, source in sources.items()}


def findings_of(recipe: Recipe, records: Mapping[Side, Sequence[Record]], encoder: Encoder) -> list[preflight.Finding]:
    """What preflight finds in the records of a recipe."""
    holdout = records_of(recipe.data.holdout, "holdout")
    return preflight.check(records["forget"], records["retain"], holdout, encoder)


def findings(recipe: Recipe) -> list[preflight.Finding]:
    """What preflight finds in a recipe's data; the model's tokenizer is loaded, its weights are not."""
    if recipe.model.fresh is None:
        tokenizer = lms.load_tokenizer(recipe.model)
    else:
        tokenizer = _base(recipe).tokenizer
    return findings_of(recipe, records_by_side(recipe), Encoder.from_recipe(tokenizer, recipe.data))


def encode_all(encoder: Encoder, records: Sequence[Record]) -> list[Encoded]:
    """Every record as tokens, with the static scores that the spans of any of them give rise to."""
    names = static_names(records)
    return [encoder.encode(record, static_names=names) for record in records]


def unlearn(
    recipe: Recipe, *, start: Path | None = None, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None
) -> RunFolder:
    """The run folder of the recipe's method, its model in model/; resumes or returns a run of the same recipe.

    `start` is the folder of the model to change, in place of the one that the recipe names.
    """
    for plugin in recipe.plugins:
        registry.load_plugin(plugin)
    terms = build_terms(recipe.method)
    run, finished = begin(recipe, "unlearn")
    if finished:
        return run
    with runfolder.recording(run):
        lm = lms.load(_started(recipe.model, start), device=lms.device_of(recipe.device))
        data = prepare(recipe, lm)
        sides = {side: data.encoded[side] for side in _sides(terms)}
        for side, items in sides.items():
            if not items:
                raise DataError(f"the method has a term on {side}, but there are no {side} records. Set data.{side}")
        reference = reference_of(recipe, lm, terms)
        _describe(run, lm, data)
        view = _token_view(lm, data, terms, recipe.seed, run, reference)

        def each_epoch(epoch: int, module: Scored) -> None:
            view(epoch, module)
            if on_epoch is not None:
                on_epoch(epoch, module)

        Fit(
            lm, terms, sides, recipe.train, run, recipe.seed, reference=reference, on_step=on_step, on_epoch=each_epoch
        )()
        lms.save(lm, run.file("model"))
        clear_checkpoints(run)
    return run


def finetune(
    recipe: Recipe, *, without: Collection[str] = (), on_step: OnStep | None = None, on_epoch: OnEpoch | None = None
) -> RunFolder:
    """The run folder of the recipe's model trained on all records but the sides in `without`.

    With nothing left out it is the target, in finetune.output_dir/target; without 'forget' the oracle, in .../oracle.
    A fresh model gets its tokenizer from the texts of all sides alike, so that target and oracle differ in nothing but
    what they have read.
    """
    if set(without) - {"forget", "retain", "general"}:
        raise DataError(f"finetune can leave out forget, retain or general; asked for: {', '.join(sorted(without))}")
    own = finetune_recipe(recipe, without)
    run, finished = begin(own, "finetune")
    if finished:
        return run
    with runfolder.recording(run):
        lm = _base(own)
        data = prepare(own, lm)
        _describe(run, lm, data)
        items = [item for side, encoded in data.encoded.items() if side not in without for item in encoded]
        sides: dict[Side, list[Encoded]] = {"retain": items}
        Fit(
            lm, _likelihood(), sides, own.train, run, own.seed, anchor="retain", on_step=on_step, on_epoch=on_epoch
        )()
        lms.save(lm, run.file("model"))
        run.update(without=sorted(without))
        clear_checkpoints(run)
    return run


def finetune_recipe(recipe: Recipe, without: Collection[str] = ()) -> Recipe:
    """What of a recipe decides a fine-tuned model, so that runs of other methods share target and oracle."""
    settings = recipe.finetune or Finetune(output_dir=recipe.output_dir, train=recipe.train)
    name = "target" if not without else "oracle" if set(without) == {"forget"} else "without-" + "-".join(sorted(without))
    return Recipe(
        name=name,
        seed=recipe.seed,
        output_dir=str(Path(settings.output_dir) / name),
        overwrite=recipe.overwrite,
        device=recipe.device,
        model=recipe.model,
        data=recipe.data,
        train=settings.train,
    )


def begin(recipe: Recipe, kind: runfolder.Kind) -> tuple[RunFolder, bool]:
    """The run folder to work in, and whether its run is finished already.

    A folder that holds a run of the same recipe is continued; any other is refused unless `recipe.overwrite`.
    """
    if runfolder.is_run(recipe.output_dir) and not recipe.overwrite:
        run = runfolder.open(recipe.output_dir)
        facts = run.manifest
        if facts["recipe_hash"] == runfolder.recipe_hash(recipe) and facts["kind"] == kind:
            if facts["status"] == "finished":
                return run, True
            run.update(status="running", finished=None)
            return run, False
    return runfolder.create(recipe.output_dir, kind, recipe, recipe.overwrite), False


def reference_of(recipe: Recipe, lm: LM, terms: Sequence[Term]) -> Reference | None:
    """The frozen model that the terms compare with, or None if none of them does."""
    if not any(term.needs.any_reference for term in terms):
        return None
    if recipe.reference is None:
        model = copy.deepcopy(lm.model)
    else:
        settings = recipe.model.model_copy(update={"model_name_or_path": recipe.reference, "model_revision": None})
        model = lms.load(settings, device=str(lm.device)).model
    return Reference(Scored(model.eval().requires_grad_(False)))


def _base(recipe: Recipe) -> LM:
    if recipe.model.fresh is None:
        return lms.load(recipe.model, device=lms.device_of(recipe.device))
    data = recipe.data
    sources: tuple[tuple[Source | None, Split], ...] = (
        (data.forget, "forget"), (data.retain, "retain"), (data.holdout, "holdout"), (data.general, "general"),
    )  # fmt: skip
    records = [record for source, split in sources for record in records_of(source, split)]
    return fresh_model(recipe.model.fresh, [text for r in records for text in (r.prompt, r.body) if text], recipe.seed)


def _started(model: Model, start: Path | None) -> Model:
    if start is None:
        return model
    return model.model_copy(update={"model_name_or_path": str(start), "model_revision": None, "fresh": None})


def score_tokens(recipe: Recipe, lm: LM, records: Sequence[Record]) -> pa.Table:
    """A row a record: its tokens with the score and weight that the recipe's first forget term gives them.

    Columns as `trace.SCHEMA`. Records without a scored token are left out.
    """
    terms = build_terms(recipe.method)
    term = next(t for t in terms if t.on == "forget")
    encoded = [e for e in encode_all(Encoder.from_recipe(lm.tokenizer, recipe.data), records) if e.scored]
    scoring = Scoring(lm, term, recipe.seed, reference_of(recipe, lm, (term,)))
    return scoring.rows(encoded, {r.id: r for r in records}, 0.0, Scored(lm.model))


def _likelihood() -> tuple[Term, ...]:
    return (build_term(TermSpec(objective="nll", on="retain", tokens="all"), Method()),)


def _sides(terms: Sequence[Term]) -> list[Side]:
    order: list[Side] = ["forget", "retain", "general"]
    return [side for side in order if any(term.on == side for term in terms)]


def _token_view(
    lm: LM, data: Prepared, terms: Sequence[Term], seed: int, run: RunFolder, reference: Reference | None
) -> Callable[[int, Scored], None]:
    term = next(t for t in terms if t.on == "forget")
    items = data.encoded["forget"]
    chosen = items[:: max(1, len(items) // _VIEWED)][:_VIEWED]
    return TokenView(Scoring(lm, term, seed, reference), chosen, {r.id: r for r in data.records["forget"]}, run)


def _describe(run: RunFolder, lm: LM, data: Prepared) -> None:
    run.update(
        model={"name": lm.name, "hash": lms.content_hash(lm.model), "parameters": lm.model.num_parameters()},
        data={
            side: {"count": len(rs), "hash": runfolder.text_hash(r.text_hash for r in rs)}
            for side, rs in data.records.items()
        },
    )
