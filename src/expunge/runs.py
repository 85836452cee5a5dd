"""The two verbs that change weights: `unlearn` removes the forget set from a model, `finetune` makes models to compare.

Both read a recipe, write a run folder, and go on where an earlier call with the same recipe was stopped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from expunge import adapters, collective, gate, ranks, registry, runfolder
from expunge import lm as lms
from expunge.alternatives import Alternatives, alternatives_of
from expunge.combine import combine_of
from expunge.context import prepared_in
from expunge.core import Side
from expunge.data import preflight
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record
from expunge.diagnostics import watch
from expunge.errors import DataError, MethodError, ModelError
from expunge.fresh import fit_tokenizer, fresh_model
from expunge.learned import Learned, learned_of
from expunge.lm import LM, Scored
from expunge.neighbours import write_retain
from expunge.pairing import paired_updates
from expunge.recipe import Data, Finetune, Method, Model, Recipe, TermSpec
from expunge.refcache import Reference, bytes_of_states, choose, must_live, remembered, to_keep
from expunge.runfolder import RunFolder
from expunge.sampling import record_draw
from expunge.schedules import schedule, scheduled
from expunge.scoretables import ScoreTables
from expunge.shared import Shared
from expunge.sides import Prepared, all_texts, encode_all, findings_of, prepare, records_by_side, records_of, retain_of
from expunge.terms import Term, build_term, build_terms, needs_of, negation_of, worded
from expunge.trace import Scoring, TokenView
from expunge.train import Fit, OnEpoch, OnStep, clear_checkpoints

_VIEWED = 24
OnEnd = Callable[[LM, RunFolder], None]


def unlearn(
    recipe: Recipe,
    *,
    start: Path | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    shared: Shared | None = None,
    on_end: OnEnd | None = None,
) -> RunFolder:
    """The run folder of the recipe's method, its model in model/; resumes or returns a run of the same recipe.

    `start` is the folder of the model to change, in place of the one that the recipe names. Training ends after an
    epoch of which `on_epoch` says True. `on_end` may change the model before it is saved. `shared`: what other runs in
    this process have read already.
    """
    common = shared or Shared()
    for plugin in recipe.plugins:
        registry.load_plugin(plugin)
    terms = build_terms(recipe.method)
    combine = combine_of(terms, recipe.method.combine, apart=recipe.train.sam_radius > 0)
    run, finished = begin(recipe, "unlearn")
    if finished:
        return run
    with runfolder.recording(run):
        lm = common.load(started(recipe.model, start), lms.device_of(recipe.device))
        _foldable(lm, recipe)
        terms = worded(terms, lambda text: lm.tokenizer.encode(text, add_special_tokens=False))
        data = common.prepare(recipe, lm, write_retain(recipe, lm, records_of(recipe.data.forget, "forget"), run))
        sides = {side: data.encoded[side] for side in _sides(terms)}
        for side, items in sides.items():
            if not items:
                raise DataError(f"the method has a term on {side}, but there are no {side} records. Set data.{side}")
        tables = tables_of(recipe, lm, terms, data, run.file(runfolder.SCORES))
        sides = {side: tables.fill(side) for side in sides}
        others = _alternatives(recipe, lm, terms, data, run)
        read = scheduled(recipe.train, sides, recipe.seed)
        sampler, total = schedule(recipe.train, sides, recipe.seed)
        for side, other in others.items():
            read[side] = [*read[side], *other.all_of(read[side], sampler.epoch_of(total - 1) + 1)]
        _describe(run, lm, data)
        times = negation_of(recipe.method)
        start_weights = {name: p.detach().clone() for name, p in lm.model.named_parameters()} if times else {}
        _with_adapter(lm, recipe)
        reference = reference_of(recipe, lm, terms, read)
        updates = paired_updates(recipe, run, total)
        learned = learned_of(terms, lm)
        view = _token_view(lm, data, terms, recipe.seed, run, reference, tables, learned)
        watched = watch(lm, data.encoded, run, reference if reference and reference.module else None)

        def each_epoch(epoch: int, module: Scored) -> bool | None:
            if recipe.train.trace:
                view(epoch, module)
                watched(epoch, module)
            return None if on_epoch is None else on_epoch(epoch, module)

        Fit(
            lm, terms, sides, recipe.train, run, recipe.seed,
            reference=reference, tables=tables, alternatives=others, combine=combine, updates=updates,
            learned=learned, on_step=on_step, on_epoch=each_epoch,
        )()  # fmt: skip
        if on_end is not None:
            on_end(lm, run)
        _settle(lm, recipe, run)
        if times:
            _negate(lm, start_weights, times)
        lms.save(lm, run.file("model"))
        clear_checkpoints(run)
    return run


def _foldable(lm: LM, recipe: Recipe) -> None:
    """Folds the adapter that a model was loaded with into its weights: what is learned is learned beside both."""
    if not adapters.attached(lm.model):
        return
    settings = recipe.train.adapter
    if settings is not None and settings.save == "adapter":
        raise ModelError(
            f"'{lm.name}' is an adapter beside its base. A second one, saved alone, would have no base to stand on: "
            "set train.adapter.save=merged"
        )
    adapters.fold(lm.model)


def _with_adapter(lm: LM, recipe: Recipe) -> None:
    """Puts in the adapter that the recipe trains, if it does."""
    settings = recipe.train.adapter
    if settings is None:
        return
    if settings.save == "adapter" and not lm.model.name_or_path:
        raise ModelError(
            "train.adapter.save=adapter keeps an adapter beside its base, and a model from scratch is not on disk to "
            "be one. Set it to merged"
        )
    adapters.attach(lm.model, settings, record_draw(recipe.seed, "adapter"))


def _settle(lm: LM, recipe: Recipe, run: RunFolder) -> None:
    """Folds the trained adapter into the weights, or notes that it stands beside them and can be taken off."""
    settings = recipe.train.adapter
    if settings is None:
        return
    if settings.save == "merged":
        adapters.fold(lm.model)
    else:
        run.update(removable_adapter=True)


def _negate(lm: LM, start: Mapping[str, Tensor], times: float) -> None:
    """theta_0 - times * (theta - theta_0) in place of theta, in the type of the weights."""
    with torch.no_grad():
        for name, parameter in lm.model.named_parameters():
            parameter.copy_(torch.lerp(start[name], parameter, -times))


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
        _foldable(lm, own)
        data = prepare(own, lm)
        _describe(run, lm, data)
        _with_adapter(lm, own)
        items = [item for side, encoded in data.encoded.items() if side not in without for item in encoded]
        sides: dict[Side, list[Encoded]] = {"retain": items}
        Fit(lm, _likelihood(), sides, own.train, run, own.seed, anchor="retain", on_step=on_step, on_epoch=on_epoch)()
        _settle(lm, own, run)
        lms.save(lm, run.file("model"))
        run.update(without=sorted(without))
        clear_checkpoints(run)
    return run


def finetune_recipe(recipe: Recipe, without: Collection[str] = ()) -> Recipe:
    """What of a recipe decides a fine-tuned model, so that runs of other methods share target and oracle."""
    settings = recipe.finetune or Finetune(output_dir=recipe.output_dir, train=recipe.train)
    name = (
        "target" if not without else "oracle" if set(without) == {"forget"} else "without-" + "-".join(sorted(without))
    )
    return Recipe(
        name=name,
        seed=recipe.seed if settings.seed is None else settings.seed,
        output_dir=str(Path(settings.output_dir) / name),
        overwrite=recipe.overwrite,
        device=recipe.device,
        model=recipe.model,
        data=_without_spans(recipe.data),
        train=settings.train,
    )


def _without_spans(data: Data) -> Data:
    """The data without what only says which tokens to forget: runs that differ there share target and oracle."""
    names = ("forget", "retain", "holdout", "training", "general")
    bare = {
        name: source.model_copy(update={"annotations": None})
        for name in names
        if (source := getattr(data, name)) is not None
    }
    return data.model_copy(update={**bare, "boundary": "any", "neighbours": None})


def begin(recipe: Recipe, kind: runfolder.Kind) -> tuple[RunFolder, bool]:
    """The run folder to work in, and whether its run is finished already.

    A folder that holds a run of the same recipe is continued; any other is refused unless `recipe.overwrite`. The
    recipe's gate is kept in a new run before anything else happens there.
    """
    finished = collective.agreed(_begun(recipe, kind) if ranks.here().main else False)
    return runfolder.open(recipe.output_dir), finished


def _begun(recipe: Recipe, kind: runfolder.Kind) -> bool:
    if recipe.overwrite or not _same_run(recipe, kind):
        if recipe.evaluation.gate is not None:
            gate.load(recipe.evaluation.gate)
        run = runfolder.create(recipe.output_dir, kind, recipe, recipe.overwrite)
        if recipe.evaluation.gate is not None:
            gate.keep(run, Path(recipe.evaluation.gate).read_text(encoding="utf-8"))
        return False
    run = runfolder.open(recipe.output_dir)
    if run.manifest["status"] == "finished":
        return True
    run.update(status="running", finished=None, error=None)
    return False


def is_finished(recipe: Recipe, kind: runfolder.Kind) -> bool:
    """True if the recipe's output folder holds its own run, and that is over: nothing is left to do."""
    if recipe.overwrite or not _same_run(recipe, kind):
        return False
    return bool(runfolder.open(recipe.output_dir).manifest["status"] == "finished")


def _same_run(recipe: Recipe, kind: runfolder.Kind) -> bool:
    if not runfolder.is_run(recipe.output_dir):
        return False
    facts = runfolder.open(recipe.output_dir).manifest
    return bool(facts["recipe_hash"] == runfolder.recipe_hash(recipe) and facts["kind"] == kind)


def reference_of(
    recipe: Recipe, lm: LM, terms: Sequence[Term], sides: Mapping[Side, Sequence[Encoded]]
) -> Reference | None:
    """The frozen model that the terms compare with, or None if none of them does.

    Its numbers are remembered, and for terms that read its whole distribution its final hidden states and head; or it
    stays a model, as `refcache.choose` says: a second one, or the policy with its adapter switched off.
    """
    if not any(term.needs.any_reference for term in terms):
        return None
    needs = {side: needs_of(terms, side) for side in sides}
    items = to_keep(sides, needs)
    bf16, other = recipe.train.bf16, recipe.reference_model
    choice = choose(
        recipe.reference,
        live=must_live(needs.values()),
        states=bytes_of_states(items, int(lm.model.config.get_text_config().hidden_size)),
        weights=sum(int(p.numel() * p.element_size()) for p in lm.model.parameters()),
        adapter=adapters.attached(lm.model) and other is None,
    )
    if choice.kept == "adapter off":
        return Reference(Scored(lm.model, bf16=bf16, bare=True))
    if other is not None:
        settings = recipe.model.model_copy(update={"model_name_or_path": other, "model_revision": None})
        model = lms.load(settings, device=str(lm.device)).model
    else:
        model = copy.deepcopy(lm.model) if choice.kept == "copied" else lm.model
    if choice.kept == "copied":
        return Reference(Scored(model.eval().requires_grad_(False), bf16=bf16))
    module = Scored(model, bf16=bf16)
    made = remembered(module, items, lm.pad_id)
    if other is not None and made.head is not None:
        made.module = module  # diagnostics compare with it too
    return made


def findings(recipe: Recipe, probes: Sequence[Record] = ()) -> list[preflight.Finding]:
    """What preflight finds in a recipe's data; the model's tokenizer is loaded, its weights are not.

    `probes` are what an evaluation asks about.
    """
    fresh = recipe.model.fresh
    tokenizer = lms.load_tokenizer(recipe.model) if fresh is None else fit_tokenizer(all_texts(recipe), fresh)
    encoder = Encoder.from_recipe(tokenizer, recipe.data)
    return findings_of(recipe, records_by_side(recipe, encoder), encoder, probes)


def _base(recipe: Recipe) -> LM:
    if recipe.model.fresh is None:
        return lms.load(recipe.model, device=lms.device_of(recipe.device))
    return fresh_model(recipe.model.fresh, all_texts(recipe), recipe.seed)


def started(model: Model, start: Path | None) -> Model:
    """The settings of the model in a folder, if one is given, in place of the recipe's own."""
    if start is None:
        return model
    return model.model_copy(update={"model_name_or_path": str(start), "model_revision": None, "fresh": None})


def score_tokens(recipe: Recipe, lm: LM, records: Sequence[Record], cache: Path | None = None) -> pa.Table:
    """A row a record: its tokens with the score and weight that the recipe's first forget term gives them.

    Columns as `trace.SCHEMA`. Records without a scored token are left out. Scores that must be prepared are; their
    tables are kept in the folder `cache`, if one is given.
    """
    terms = build_terms(recipe.method)
    term = next(t for t in terms if t.on == "forget")
    encoder = Encoder.from_recipe(lm.tokenizer, recipe.data)
    looked_at: dict[Side, Sequence[Record]] = {"forget": records}
    if any(scorer.preparation.retain for scorer in prepared_in(term.score)):
        looked_at["retain"] = retain_of(recipe)
    encoded = {side: [e for e in encode_all(encoder, own) if e.scored] for side, own in looked_at.items()}
    data = Prepared(looked_at, encoded)
    filled = tables_of(recipe, lm, (term,), data, cache).fill("forget")
    scoring = Scoring(lm, term, recipe.seed, reference_of(recipe, lm, (term,), {"forget": filled}))
    try:
        return scoring.rows(filled, {r.id: r for r in records}, 0.0, Scored(lm.model))
    except ValueError as error:
        raise MethodError(f"score '{term.score}', select '{term.select}': {error}") from error


def tables_of(recipe: Recipe, lm: LM, terms: Sequence[Term], data: Prepared, folder: Path | None) -> ScoreTables:
    """The scores of these records that the terms need prepared, for the model as it is; kept in `folder`."""
    given = [text for side in data.records.values() for record in side for text in (record.prompt, record.body)]
    return ScoreTables(
        lm=lm,
        encoder=Encoder.from_recipe(lm.tokenizer, recipe.data),
        terms=tuple(terms),
        records=data.records,
        encoded=data.encoded,
        seed=recipe.seed,
        texts=lambda: all_texts(recipe) if recipe.data.forget is not None else given,
        others=recipe.model,
        folder=folder,
        bf16=recipe.train.bf16,
    )


def _likelihood() -> tuple[Term, ...]:
    return (build_term(TermSpec(objective="nll", on="retain", tokens="all"), Method()),)


def _sides(terms: Sequence[Term]) -> list[Side]:
    order: list[Side] = ["forget", "retain", "general"]
    return [side for side in order if any(term.on == side for term in terms)]


def _alternatives(
    recipe: Recipe, lm: LM, terms: Sequence[Term], data: Prepared, run: RunFolder
) -> dict[Side, Alternatives]:
    """The other answers of each side whose terms compare with one."""
    made = {
        side: alternatives_of(
            needs_of(terms, side).alternative, data.records[side], lm, recipe.data, recipe.seed,
            run.file(f"alternatives-{side}.jsonl"),
        )
        for side in _sides(terms)
    }  # fmt: skip
    return {side: found for side, found in made.items() if found is not None}


def _token_view(
    lm: LM,
    data: Prepared,
    terms: Sequence[Term],
    seed: int,
    run: RunFolder,
    reference: Reference | None,
    tables: ScoreTables,
    learned: Learned,
) -> Callable[[int, Scored], None]:
    term = next(t for t in terms if t.on == "forget")
    items = data.encoded["forget"]
    chosen = items[:: max(1, len(items) // _VIEWED)][:_VIEWED]
    records = {r.id: r for r in data.records["forget"]}

    def view(epoch: int, module: Scored) -> None:
        scoring = Scoring(lm, replace(term, state=learned.known), seed, reference)
        TokenView(scoring, tables.fill("forget", chosen), records, run)(epoch, module)

    return view


def _describe(run: RunFolder, lm: LM, data: Prepared) -> None:
    run.update(
        model={"name": lm.name, "hash": lms.content_hash(lm.model), "parameters": lm.model.num_parameters()},
        data={
            side: {"count": len(rs), "hash": runfolder.text_hash(r.text_hash for r in rs)}
            for side, rs in data.records.items()
        },
    )
