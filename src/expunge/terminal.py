"""What the command line shows: tables, coloured tokens, plans and errors. Nothing is computed here."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from expunge.comparison import Arm, in_words, legend
from expunge.comparison import Comparison as ArmComparison
from expunge.evals.attacked import Result
from expunge.evals.attacked import summary as summary_of_attacks
from expunge.explain import FieldHelp, value_at
from expunge.presets import Preset
from expunge.recipe import Recipe
from expunge.report import heat
from expunge.report.naming import metric

if TYPE_CHECKING:
    from expunge.attacks.suite import Planned
    from expunge.context import Prepared
    from expunge.data.preflight import Finding
    from expunge.evals.agreement import Comparison
    from expunge.evals.diagnose import Sign
    from expunge.evals.verdict import Verdict
    from expunge.identifiers import Summary
    from expunge.ledger.chain import Entry
    from expunge.plan import Plan, Stage
    from expunge.reproduce import Reproduction
    from expunge.studies.sheets import Sheet


_REFERENCES = {
    "nothing": "not needed",
    "numbers": "its numbers at the scored tokens are remembered; no second model is kept",
    "copied": "a second model, frozen",
    "adapter off": "the model without its adapter; no second model is kept",
}
_LABELS = {"given": "an annotation", "gold": "gold spans", "not-general": "an annotation with general words"}
_SHOWN = 5
_CAUTION = "Memory and time are estimates; the time is that of training alone."


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the house style."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def methods(kind: str, classes: Mapping[str, type]) -> Table:
    """Name and first line of each method of a kind; of scorers also what they need."""
    out = table(f"{kind}s", "", *(["needs"] if kind == "scorer" else []))
    for name, cls in classes.items():
        told = [escape(needs(cls()))] if kind == "scorer" and _has_defaults(cls) else []
        out.add_row(escape(name), escape(summary(cls)), *told)
    return out


def presets(found: Mapping[str, Preset]) -> Table:
    """Name, summary and source of each preset."""
    out = table("presets", "", "source")
    for name, preset in found.items():
        out.add_row(escape(name), escape(preset.summary), escape(preset.source))
    return out


def summary(cls: type) -> str:
    """The first line of a method's docstring."""
    return (inspect.getdoc(cls) or "").split("\n")[0]


def method_page(kind: str, name: str, cls: type) -> Iterable[Text | Table]:
    """Docstring, settings and needs of one method."""
    yield Text(f"{name}  ({kind}, {cls.__module__})", style="bold")
    yield Text((inspect.getdoc(cls) or "").strip())
    fields = [f for f in dataclasses.fields(cls) if f.init]
    settings = table("setting", "type", "default")
    for field in fields:
        default = "must be given" if field.default is dataclasses.MISSING else repr(field.default)
        settings.add_row(escape(field.name), escape(str(field.type)), escape(default))
    yield settings if fields else Text("No settings.")
    if kind in ("scorer", "objective") and _has_defaults(cls):
        yield Text(f"Needs: {needs(cls())}")


def needs(method: Any) -> str:
    """What a method reads beside the probabilities of the tokens, in words."""
    from expunge.context import Prepared

    if isinstance(method, Prepared):
        return _preparation(method)
    found = method.needs
    if not found.policy:
        return (
            ", ".join(_LABELS[name.partition("@")[0]] for name in sorted(found.labels))
            or "no model: known before the forward pass"
        )
    names = [f.name for f in dataclasses.fields(found) if f.name != "policy" and getattr(found, f.name)]
    return ", ".join(names) if names else "nothing beside the probabilities of the tokens"


def _preparation(method: Prepared) -> str:
    """What is read before training starts: 'before training: 2 passes of the model'."""
    from expunge.context import together

    plan = method.preparation
    passes = together([plan]).passes
    reads = [] if passes == 0 else [f"at most {passes:g} scoring pass{'es' * (passes != 1)}"]
    reads += ["a second model"] if plan.model is not None else []
    reads += ["a corpus (the run's own records if none is named)"] if plan.corpus is not None else []
    reads += ["the retain records"] if plan.retain else []
    return f"before training: {', '.join(reads) or 'the texts, no model'}"


def _has_defaults(cls: type) -> bool:
    return all(field.default is not dataclasses.MISSING for field in dataclasses.fields(cls) if field.init)


def preset_page(name: str, preset: Preset) -> Iterable[Text | Table]:
    """Summary, source and terms of one preset."""
    yield Text(f"{name}  (preset)", style="bold")
    yield Text(preset.summary)
    yield Text(f"Source: {preset.source}")
    if preset.differs:
        yield Text(f"Differs: {preset.differs}")
    yield Text(f"Parity: {preset.parity}")
    terms = table("terms of the loss", "")
    for term in preset.terms:
        terms.add_row("-", escape(", ".join(f"{key}: {value}" for key, value in term.items())))
    yield terms
    if preset.published:
        settings = table("published settings", "", "source")
        for found in preset.published:
            said = ", ".join(f"{key}={value}" for key, value in found.recipe(name).items())
            settings.add_row(escape(found.name(name)), escape(said), escape(found.source))
        yield settings


def attack_plan(planned: Sequence[Planned]) -> Table:
    """What each attack will take, for all models beside which it is made."""
    out = table("attack", "tokens read", "written", "trained", "expected", title="Budget")
    for one in planned:
        budget = one.budget
        counts = (f"{count:,.0f}" for count in (budget.read, budget.written, budget.trained))
        when = one.absent or ("already made" if not one.left else f"about {one.seconds:,.0f} s")
        out.add_row(escape(one.name), *counts, escape(when))
    return out


def attacks(found: Mapping[str, Result]) -> Iterable[Text | Table]:
    """What each attack brought back, the worst first, and the answer to 'robust?'."""
    out = table("attack", "before", "attacked", "oracle", "target", "above what was never known", "p (Holm)", "")
    for name, one in found.items():
        gap = "n/a" if one.gap is None else f"{one.gap.value:.3f} [{one.gap.low:.3f}, {one.gap.high:.3f}]"
        sides = (one.plain, one.value.value, one.oracle, one.target)
        cells = ("" if value is None else f"{value:.3f}" for value in sides)
        mark = "" if one.flagged is None else "LEAKS" if one.flagged else "holds"
        out.add_row(escape(name), *cells, gap, "" if one.p_holm is None else f"{one.p_holm:.2g}", mark)
    yield out
    told = summary_of_attacks(found)
    yield Text(f"Robust? {told['outcome']}: {len(told['flagged'])} of {len(told['tried'])} attacks flagged.")


def explanation(fields: Sequence[FieldHelp], recipe: Recipe | None) -> Iterable[Text]:
    """Two lines a field, as YAML that can be copied; with a recipe its values, bold where they are not the default.

    Fields of a section that is not set are left out if a recipe is given, and of list items.
    """
    closed: str | None = None
    for field in fields:
        if closed is not None and field.path.startswith(closed):
            continue
        value = field.default if recipe is None else value_at(recipe, field.path)
        closed = f"{field.path}." if field.section and recipe is not None and value == "null" else None
        if recipe is not None and "[]" in field.path:
            continue
        yield _field_line(field, value)
        yield Text(f"    {field.meaning}", style="dim")


def _field_line(field: FieldHelp, value: str) -> Text:
    line = Text(f"{field.path}:", style="bold" if field.section else "")
    if field.section and value != "null":
        return line.append(f"  ({field.kind})", style="not bold dim")
    changed = value != field.default
    line.append(f" {value}", style="bold yellow" if changed else "not bold")
    default = f"default {field.default}; " if changed else "" if field.default else "must be given; "
    return line.append(f"  ({default}{field.kind})", style="not bold dim")


def plan_page(plan: Plan) -> Iterable[Text | Table]:
    """What is loaded, what is trained, and what that takes."""
    facts = table("", "")
    facts.add_row("model", escape(plan.model))
    facts.add_row("parameters", str(plan.shape.parameters))
    for name, side in plan.sides.items():
        facts.add_row(name, escape(f"{side.where}: records {side.records}, tokens {side.tokens}"))
    facts.add_row("loss", escape("\n".join(plan.terms)))
    facts.add_row("reference", f"{_REFERENCES[plan.reference.kept]} ({plan.reference.why})")
    facts.add_row("evaluation", escape(plan.evaluation))
    facts.add_row("run folder", escape(plan.output_dir))
    yield facts
    if plan.groundwork:
        work = table("beside the training", "tokens read, at most", "time on this machine")
        for one in plan.groundwork:
            work.add_row(escape(one.name), str(one.tokens), duration(one.seconds))
        yield work
    stages = table("training", "steps", "memory", "disk", "time on this machine")
    for stage in plan.stages:
        stages.add_row(stage.name, _steps(stage), _memory(stage), _disk(stage), duration(stage.seconds))
    yield stages
    yield Text(f"{memory_line(plan)}{_CAUTION}", style="dim")


def memory_line(plan: Plan) -> str:
    """What the largest training of a plan takes, part by part; '' where that is not known."""
    peak = max(plan.stages, key=lambda stage: sum(stage.memory.values()))
    parts = ", ".join(f"{name} {size(count)}" for name, count in peak.memory.items())
    without = "" if "activations" in peak.memory else ", and activations"
    return f"Memory to {peak.name}: {_memory(peak)} ({parts}{without}). " if parts else ""


def tokens(row: Mapping[str, Any]) -> Iterable[Text]:
    """Prompt and answer of one row of a token table; the more red a token the more weight, gold ones underlined."""
    yield Text(f"{row['id']}  {row['prompt']}", style="dim")
    gold = [weight > 0 for weight in row["gold"]]
    yield heat.sentence(row["tokens"], row["weight"], gold if any(gold) else None, marks=not Console().is_terminal)
    yield Text("")


def findings(found: Sequence[Finding]) -> Iterable[Text]:
    """One line a finding, errors in red; a line that says so if there is none."""
    for finding in found:
        style = "bold red" if finding.severity == "error" else "yellow"
        yield Text(f"{finding.severity}: ", style=style).append(str(finding), style="default not bold")
    if not found:
        yield Text("Nothing found that would spoil the numbers.")


def annotated(made: Summary) -> Table:
    """What a run of `annotate` did, and the first phrases that are not in the text."""
    facts: dict[str, Any] = {
        "annotation": made.path,
        "records": f"{made.records}, of {made.texts} different texts",
        "texts": f"{made.new} new, {made.resumed} from an earlier run, {made.kept} kept as they were",
        "spans": f"{made.spans}; {made.without} records without one",
        "unwanted": f"{made.share:.1%} of the characters",
        **made.counts,
    }
    if made.missing:
        shown = "; ".join(f"{record}: {phrase}" for record, phrase in made.missing[:_SHOWN])
        facts["not in the text"] = shown + ("; ..." if len(made.missing) > _SHOWN else "")
    return pairs(facts)


def agreement(compared: Sequence[Comparison]) -> Table:
    """A row a unit: the shares that both mark, and how far they agree, with intervals over records or subjects."""
    first, second = compared[0].first, compared[0].second
    names = list(compared[0].pooled)
    out = table("unit", "marked", *names, title=f"{first} held against {second} ({compared[0].records} records)")
    for one in compared:
        cells = [
            f"{one.pooled[name].value:.3f}\n[{one.pooled[name].low:.3f}, {one.pooled[name].high:.3f}]" for name in names
        ]
        out.add_row(one.unit, f"{one.share[0]:.1%}\n{one.share[1]:.1%}", *map(escape, cells))
    return out


def comparison(found: ArmComparison) -> Table:
    """A row an arm, a column a metric: value, interval, and whether it differs from what it is compared with."""
    out = Table(box=box.SIMPLE_HEAD, caption=Text(legend(found)), caption_justify="left", pad_edge=False)
    out.add_column("", no_wrap=True)
    for name in found.metrics:
        out.add_column(escape(metric(name).title), justify="right")
    for arm in found.arms:
        label = Text(f"  {arm.name}" if arm.controls else arm.name, style="dim" if arm.columns[0].role != "run" else "")
        out.add_row(label, *(_arm_cell(found, arm, name) for name in found.metrics))
    return out


def _arm_cell(found: ArmComparison, arm: Arm, name: str) -> Text:
    number, _, interval = in_words(found, arm, name).partition(" ")
    tested = found.contrasts.get((arm.name, name))
    same = tested is not None and not tested.distinguishable
    text = Text(number, style="dim" if same else "bold" if arm.columns[0].role == "run" else "")
    return text.append(f"\n{interval}" if interval else "", style="dim not bold")


def pairs(facts: Mapping[str, Any]) -> Table:
    """Names and values in two columns."""
    out = table("", "")
    for name, value in facts.items():
        out.add_row(escape(name), escape(str(value)))
    return out


def signs(found: Sequence[Sign]) -> Table | Text:
    """Each failure signature with what shows it and what to do."""
    if not found:
        return Text("No sign of collapse, under-forgetting, over-forgetting or an inconsistent identifier.")
    out = table("sign", "what shows it", "what to do")
    for sign in found:
        out.add_row(Text(sign.name, style="bold red"), escape(sign.seen), escape(sign.advice))
    return out


def verdict(found: Verdict) -> Iterable[Text | Table]:
    """The outcome with its claim, each condition with its reason, and whether the gate came before the run."""
    colours = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}  # nosec B105
    title = Text(found.outcome, style=colours[found.outcome])
    yield title.append(f"  {found.claim}, each bound at {found.confidence:.0%} confidence", style="not bold default")
    out = table("", "condition", "why")
    for one in found.findings:
        out.add_row(Text(one.outcome, style=colours[one.outcome]), escape(one.condition), escape(one.reason))
    yield out
    tried = ", ".join(f"{name} {outcome}" for name, outcome in found.attacks.items())
    yield Text(f"Attacks: {tried or 'none was made; expunge attack makes them'}.")
    before = "was kept in the run before it began" if found.registered else "is not the one the run began with"
    yield Text(f"Gate {found.gate_hash[:16]} {before}.", style="" if found.registered else "yellow")


def reproduction(found: Reproduction) -> Iterable[Text | Table]:
    """Whether the numbers came out again, those that did not, and what else was not the same."""
    count = f"{found.compared} numbers, {len(found.changes)} further apart than {found.tolerance:g}"
    yield Text("SAME" if found.same else "DIFFERENT", style="bold green" if found.same else "bold red").append(
        f"  {count}", style="not bold default"
    )
    groups = (("numbers", found.changes), ("data and models", found.inputs), ("environment", found.environment))
    for title, changes in groups:
        if changes:
            out = table(title, "before", "now")
            for one in changes:
                cells = ("–" if value is None else str(value) for value in (one.before, one.after))
                out.add_row(escape(f"{one.model} {one.what}".strip()), *map(escape, cells))
            yield out
    yield Text(f"Second run: {found.folder}")


def sheet(found: Sheet) -> Iterable[Text | Table]:
    """The tables of a study, each interval under its value, and its notes."""
    for one in found.tables:
        out = table(*map(escape, one.columns), title=escape(one.title))
        for row in one.rows:
            out.add_row(*(escape(cell.replace(" [", "\n[", 1)) for cell in row))
        yield out
    for note in found.notes:
        yield Text(note)


def ledger(entries: Sequence[Entry]) -> Table:
    """A row an entry: request, what was removed, model before and after, verdict, and the requests tested again."""
    out = table("", "request", "removed", "model", "verdict", "tested again")
    for entry in entries[entries[0].kind == "ledger" :]:
        body = entry.body
        told = ["(a model tested)", "", str(body.get("model")), ""]
        if entry.kind == "request":
            marks = body["records"]
            removed = f"{len(marks)} records, {sum(mark['spans'] for mark in marks)} spans"
            weights = f"{body['before']['weights']}\n{body['after']['weights']}"
            told = [body["request"], removed, weights, body["verdict"]["outcome"]]
        again = "\n".join(f"{one['request']} {one['outcome']}" for one in body["retests"])
        out.add_row(*map(escape, (f"{entry.number}\n{entry.time[:10]}", *told, again)))
    return out


def error(message: str, console: Console) -> None:
    """'Error:' and the message, its line breaks kept."""
    console.print(Text("Error: ", style="bold red").append(Text(message, style="default not bold")), soft_wrap=True)


def size(count: int) -> str:
    """Bytes in words.

    >>> size(1_500_000), size(20_000_000_000)
    ('1.5 MB', '20.0 GB')
    """
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def duration(seconds: float | None) -> str:
    """Seconds in words.

    >>> duration(45.2), duration(600), duration(90000), duration(None)
    ('45 s', '10 min', '25.0 h', 'unknown here')
    """
    if seconds is None:
        return "unknown here"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _steps(stage: Stage) -> str:
    return f"{stage.steps}" + (f" ({stage.steps_per_epoch} an epoch)" if stage.steps_per_epoch else "")


def _disk(stage: Stage) -> str:
    return size(stage.disk) if stage.disk else "unknown here"


def _memory(stage: Stage) -> str:
    return size(sum(stage.memory.values())) if stage.memory else "unknown here"
