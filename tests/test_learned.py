"""What is learned beside the model: the peer's numbers, one move a step from the whole batch, the same after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge import recipe, registry, runs
from expunge.core import Scorer, Selector
from expunge.errors import Interrupted, MethodError, RecipeError
from expunge.learned import Duals, Update, loss_of
from expunge.recipe import Constraint, Method, Recipe, TermSpec
from expunge.terms import Term, build_term
from tests.test_runs import made, material, same, stop_at  # noqa: F401  a fixture

PDU: list[dict[str, Any]] = [
    {"objective": "flatten"},
    {"objective": "nll", "on": "retain", "constraint": {"at_most": 0.3, "start": 4.0, "rate": 0.5}},
]


def held(**settings: float) -> Term:
    score: Scorer = registry.build("scorer", "uniform")
    select: Selector = registry.build("selector", "raw")
    return Term(registry.build("objective", "nll"), "retain", score, select, constraint=Constraint(**settings))


def test_the_lagrangian_and_its_dual_variable_are_the_peers(shared: Path) -> None:
    with np.load(shared / "parity/golden/losses.npz") as file:
        golden = {key: file[f"loss/pdu_final/{key}"] for key in ("forget", "retain", "value", "preference_after")}
    free = Term(registry.build("objective", "ga"), "forget", *_plain())
    duals = Duals((free, held(at_most=0.3, start=1.0, rate=0.5)))
    for forget, retain, value, after in zip(*golden.values(), strict=True):
        assert loss_of(duals.bound(duals.terms), [forget, retain]) == pytest.approx(value, rel=1e-6)
        duals.update(seen([forget, retain]))
        assert duals.values[1] == pytest.approx(after, rel=1e-6)


def seen(means: list[float], epoch: float = 0.0) -> Update:
    return Update(1, 9, epoch, means, lambda side, needs: [])


def _plain() -> tuple[Scorer, Selector]:
    return registry.build("scorer", "uniform"), registry.build("selector", "raw")


def test_the_factor_rests_in_warm_up_and_never_falls_below_zero() -> None:
    duals = Duals((held(at_most=1.0, start=2.0, rate=1.0, warmup_epochs=2.0),))
    duals.update(seen([5.0], epoch=1.9))
    assert duals.values == {0: 2.0}
    duals.update(seen([5.0], epoch=2.0))
    assert duals.values == {0: 6.0}
    assert duals.update(seen([-99.0], epoch=3.0)) == {"duals": {"retain/nll": 6.0}}, "the one that the update had"
    assert duals.values == {0: 0.0}
    assert [t.coef for t in duals.bound(duals.terms)] == [0.0]


def test_a_constraint_finds_its_own_factor() -> None:
    spec = TermSpec(objective="nll", on="retain", coef=2.0, constraint=Constraint(at_most=0.3))
    with pytest.raises(MethodError, match="'nll' has a constraint, which finds its factor, and coef or retain_coef 2"):
        build_term(spec, Method())
    with pytest.raises(RecipeError, match="at_most"):
        recipe.load({"method": {"terms": [{"objective": "nll", "on": "retain", "constraint": {"start": 1}}]}})


def asked(material: Path, out: Path, **train: Any) -> Recipe:  # noqa: F811
    settings = {
        "num_train_epochs": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3, "save_steps": 2, **train,
    }  # fmt: skip
    return made(material, out, method={"preset": None, "terms": PDU}, train=settings)


def test_a_stopped_run_goes_on_with_its_dual_variable(material: Path, tmp_path: Path) -> None:  # noqa: F811
    straight = runs.unlearn(asked(material, tmp_path / "straight"))
    with pytest.raises(Interrupted):
        runs.unlearn(asked(material, tmp_path / "stopped"), on_step=stop_at(3))
    resumed = runs.unlearn(asked(material, tmp_path / "stopped"))
    assert same(resumed, straight)
    logs = [[line["duals"] for line in run.read_log()] for run in (resumed, straight)]
    assert logs[0] == logs[1], "to the bit"
    assert logs[0][0] == {"retain/nll": 4.0}
    values = [line["retain/nll"] for line in logs[0]]
    means = [line["terms"]["retain/nll"] for line in straight.read_log()]
    for k in range(1, len(values)):
        assert values[k] == pytest.approx(values[k - 1] + 0.5 * (means[k - 1] - 0.3), rel=1e-12)
    first = straight.read_log()[0]
    assert first["loss"] == pytest.approx(first["terms"]["forget/flatten"] + 4.0 * (means[0] - 0.3), rel=1e-9)


def test_accumulation_moves_it_once_a_step_from_the_whole_batch(material: Path, tmp_path: Path) -> None:  # noqa: F811
    logs = []
    for name, batch, steps in (("one", 6, 1), ("three", 2, 3)):
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
        terms = [{**PDU[0], "tokens": "all"}, PDU[1]]
        base = asked(material, tmp_path / name, **settings, learning_rate=1e-6)
        run = runs.unlearn(base.model_copy(update={"method": Method.model_validate({"terms": terms})}))
        logs.append([line["duals"]["retain/nll"] for line in run.read_log()])
    assert len(logs[0]) == len(logs[1]) == 2
    assert logs[0] == pytest.approx(logs[1], rel=0.05), "dropout differs, the number of moves does not"
    assert logs[0][1] > logs[0][0]
