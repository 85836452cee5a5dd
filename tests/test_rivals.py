"""Rival methods from recipe to model: stopped and resumed to the same weights, and a task vector subtracted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from expunge import presets, runs
from expunge.errors import Interrupted, MethodError
from expunge.recipe import Method
from expunge.terms import build_terms, negation_of, worded
from tests.test_runs import made, material, same, stop_at, weights  # noqa: F401  a fixture

METHODS: dict[str, dict[str, Any]] = {
    "jensun": {"preset": "jensun"},
    "undial": {"preset": "undial"},
    "asu": {"preset": "asu"},
    "sago": {"preset": "graddiff", "combine": "sago"},
    "task-vector": {"preset": "task-vector"},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on_to_the_same_model(material: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    straight = runs.unlearn(made(material, tmp_path / "straight", method=METHODS[name]))
    with pytest.raises(Interrupted):
        runs.unlearn(made(material, tmp_path / "stopped", method=METHODS[name]), on_step=stop_at(3))
    resumed = runs.unlearn(made(material, tmp_path / "stopped", method=METHODS[name]))
    assert same(resumed, straight)


def test_a_task_vector_is_subtracted_from_where_the_model_began(material: Path, tmp_path: Path) -> None:  # noqa: F811
    terms = {"preset": None, "terms": [{"objective": "nll"}]}
    tuned = weights(runs.unlearn(made(material, tmp_path / "tuned", method=terms)))
    turned = weights(runs.unlearn(made(material, tmp_path / "turned", method={**terms, "negate": 0.5})))
    start = load_file(material / "model/model.safetensors")
    for name, end in tuned.items():
        torch.testing.assert_close(turned[name], start[name] - 0.5 * (end - start[name]), rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(turned[name], start[name]) for name in turned)


def test_the_factor_is_the_recipes_or_the_presets() -> None:
    assert negation_of(Method(preset="task-vector")) == presets.get("task-vector").negate == 1.0
    assert negation_of(Method(preset="task-vector", negate=0.3)) == 0.3
    assert negation_of(Method(preset="ga")) == 0.0


def test_a_refusal_becomes_the_tokens_that_the_models_tokenizer_makes_of_it() -> None:
    (unworded, _) = build_terms(Method(preset="jensun"))
    (term, _) = worded((unworded, unworded), lambda text: [len(text), 3])
    assert str(term.objective) == "jensun:ids=7 3"
    given = build_terms(Method(terms=({"objective": "jensun:ids=5"},)))  # type: ignore[arg-type]
    assert worded(given, lambda text: [1]) == given
    with pytest.raises(MethodError, match="token ids with spaces between"):
        build_terms(Method(terms=({"objective": "jensun:ids=No"},)))  # type: ignore[arg-type]
