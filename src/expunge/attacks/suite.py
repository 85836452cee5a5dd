"""The attacks of a suite on one run: budgets first, then table by table, then what they say together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import pyarrow as pa

from expunge import keyed, registry
from expunge import lm as lms
from expunge.attacks.scene import Attack, Budget, Scene, Tell
from expunge.errors import DataError, MethodError, ModelError, unknown
from expunge.evals import attacked
from expunge.evals.attacked import DESCRIPTION, Description, Result, home_of, table_path
from expunge.evals.numbers import Bootstrap
from expunge.evals.reductions import MEASURES
from expunge.runfolder import ATTACKS, RunFolder

_FORMAT = "1"
Stage = Callable[[str], AbstractContextManager[Tell]]
"""Shows one stage of the work."""

PRESETS: Mapping[str, str] = {
    "relearn-neighbours": "relearn:on=neighbours",
    "relearn-unrelated": "relearn:on=unrelated",
    "relearn-short": "relearn:steps=20,learning_rates=3x",
    "relearn-openunlearning": "relearn:share=1,epochs=1,batch=32,learning_rates=2e-5,test=all",
    "relearn-sam-wmdp": "relearn:share=1,samples=60,steps=15,batch=4,learning_rates=1e-5,test=all",
    "relearn-sam-books": "relearn:share=1,steps=100,batch=4,learning_rates=1e-5,test=all",
    "relearn-sam-news": "relearn:share=1,steps=150,batch=4,learning_rates=1e-5,test=all",
}
"""Attacks under a name of their own. OpenUnlearning's meta-evaluation: an epoch on the forget set at 2e-5. SAM: WMDP
60 samples in 15 steps, MUSE up to 100 (Books) and 150 (News) steps, all at 1e-5 in batches of 4."""

SUITES: Mapping[str, tuple[str, ...]] = {
    "quick": ("quantise", "prefill", "synonyms", "lens", "relearn-short"),
    "standard": (
        "relearn", "relearn-neighbours", "relearn-unrelated", "quantise", "sampling", "rewording", "prefill",
        "interpolate", "unmerge", "lens", "probe", "patch", "synonyms", "contrast", "manner", "stealth",
    ),
}  # fmt: skip
"""quick: minutes, without long generation. standard: every attack."""


@dataclass(frozen=True)
class Planned:
    """One attack that will be made: its name in the run folder, and what it takes for all models together.

    `absent`: why it cannot be made here; empty if it can. `left`: parts whose tables are not there yet.
    """

    name: str
    attack: Attack
    budget: Budget
    seconds: float
    left: int = 0
    absent: str = ""


def chosen(names: Sequence[str]) -> dict[str, Attack]:
    """The attacks of suites, presets and specs by the name that each has in a run folder.

    An attack with its defaults goes by its own name, one with settings by that and a digest of them.

    >>> [name[:9] for name in chosen(["sampling", "sampling:k=5"])]
    ['sampling', 'sampling-']
    """
    found: dict[str, Attack] = {}
    for name in names:
        for part in SUITES.get(name, (name,)):
            attack = _built(part)
            spec = str(attack)
            plain = spec.partition(":")[0]
            own = part if part in PRESETS else plain if spec == plain else f"{plain}-{attacked.digest(spec)[:4]}"
            found.setdefault(own, attack)
    return found


def plan(run: RunFolder, scene: Scene, attacks: Mapping[str, Attack]) -> list[Planned]:
    """What will be done, and what it takes; nothing is done yet."""
    return [_planned(run, scene, name, attack) for name, attack in attacks.items()]


def make(run: RunFolder, scene: Scene, planned: Sequence[Planned], stage: Stage) -> dict[str, str]:
    """Why attacks could not be made, by name; of the others the tables that were not there yet are, each when whole.

    Tables of target and oracle are kept in their own run folders where they have one, so that several methods share
    them. A table is made anew where the model, the records or the settings are others.
    """
    absent = {one.name: one.absent for one in planned if one.absent}
    todo = [one for one in planned if not one.absent]
    weights = {label: lms.content_hash(scene.load(label).model) for label in scene.models} if todo else {}
    for one in todo:
        try:
            _tables(run, scene, one, weights, stage)
        except (DataError, ModelError) as error:
            absent[one.name] = str(error)
            run.file(f"{ATTACKS}/{one.name}/{DESCRIPTION}").unlink(missing_ok=True)
    return absent


def _tables(run: RunFolder, scene: Scene, one: Planned, weights: Mapping[str, str], stage: Stage) -> None:
    """Description and tables of one attack."""
    about = _description(one, scene)
    run.write_json(f"{ATTACKS}/{one.name}/{DESCRIPTION}", {**asdict(about), "tables": dict(about.tables)})
    for label in scene.models:
        home = home_of(run, label)
        with stage(f"{one.name}: {label}") as tell:
            for part, ending in about.tables.items():
                path = table_path(one.name, label, part, ending)
                key = {"format": _FORMAT, "model": weights[label], "others": _others(one.attack, weights, label)}
                if keyed.key_of(home.file(path)) != key:
                    rows = [row._asdict() for row in one.attack.rows(scene, label, part, tell)]
                    home.write_table(path, keyed.with_key(pa.Table.from_pylist(rows, schema=MEASURES), key))
        if home.path != run.path:
            home.seal()
    _sweep(run, scene, one, about)


def attack(
    run: RunFolder,
    scene: Scene,
    names: Sequence[str],
    stage: Stage,
    tell_plan: Callable[[Sequence[Planned]], None],
    how: Bootstrap | None = None,
) -> dict[str, Result]:
    """The judged attacks of a run; its attacks.json and seal are new. `tell_plan` sees the budgets before the start."""
    planned = plan(run, scene, chosen(names))
    tell_plan(planned)
    absent = make(run, scene, planned, stage)
    found = attacked.write(run, how, absent)
    if run.manifest["status"] == "finished":
        run.seal()
    return found


def _built(text: str) -> Attack:
    if text in PRESETS:
        return _built(PRESETS[text])
    known = [*registry.names("attack"), *SUITES, *PRESETS]
    name = text.partition(":")[0].strip()
    if name not in known:
        raise MethodError(unknown("attack or suite", name, known))
    made: Attack = registry.build("attack", text)
    return made


def _planned(run: RunFolder, scene: Scene, name: str, attack: Attack) -> Planned:
    missing = [label for label in attack.needs if label not in scene.models]
    if missing:
        return Planned(name, attack, Budget(), 0.0, absent=f"needs the {missing[0]}, and there is none")
    about = _description(Planned(name, attack, Budget(), 0.0), scene)
    left = [
        (label, part)
        for label in scene.models
        for part, ending in about.tables.items()
        if not home_of(run, label).file(table_path(name, label, part, ending)).is_file()
    ]
    try:
        budget = sum((attack.budget(scene, part) for _, part in left), Budget())
    except DataError as error:
        return Planned(name, attack, Budget(), 0.0, absent=str(error))
    return Planned(name, attack, budget, budget.seconds(scene.speed), len(left))


def _description(one: Planned, scene: Scene) -> Description:
    attack = one.attack
    decided = [_FORMAT, str(attack), str(scene.seed), str(scene.max_new_tokens), str(scene.learning_rate)]
    decided += [f"{name} {attacked.digest(*map(repr, scene.sets[name]))}" for name in sorted(scene.sets)]
    decided.append(scene.data.model_dump_json(include={"template", "system_prompt", "date_string", "max_length"}))
    tables = {part: attacked.digest(*decided, part) for part in attack.parts}
    return Description(one.name, str(attack), attack.reduction, attack.leak, attack.shows, tables)


def _others(attack: Attack, weights: Mapping[str, str], label: str) -> str:
    """The other models that decide a table of this one."""
    return " ".join(weights[name] for name in attack.needs if name != label)


def _sweep(run: RunFolder, scene: Scene, one: Planned, about: Description) -> None:
    """Removes the run's own tables of earlier settings."""
    kept = {table_path(one.name, label, part, end) for label in scene.models for part, end in about.tables.items()}
    for file in run.file(f"{ATTACKS}/{one.name}").glob("*.parquet"):
        if f"{ATTACKS}/{one.name}/{file.name}" not in kept:
            file.unlink()
