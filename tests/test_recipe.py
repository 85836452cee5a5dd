"""The recipe: precedence, all faults at once, suggestions, cross-field checks, and nothing but RecipeError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expunge import recipe
from expunge.errors import RecipeError
from expunge.recipe import Method, Recipe


def faults_of(source: Any, overrides: tuple[str, ...] = (), **more: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipe.load(source, overrides, **more)
    return caught.value.faults


def test_defaults_then_file_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("train: {learning_rate: 2e-5, num_train_epochs: 3}\nname: 007\n", encoding="utf-8")
    got = recipe.load(file, ["train.learning_rate=3e-5", "--evaluation.generate=no", "train.report_to=a, b"])
    assert got.train.learning_rate == 3e-5
    assert got.train.num_train_epochs == 3.0
    assert got.train.weight_decay == Recipe().train.weight_decay
    assert got.name == "007"
    assert got.evaluation.generate is False
    assert got.train.report_to == ("a", "b")


def test_a_mapping_is_not_changed_by_overrides() -> None:
    source = {"train": {"learning_rate": 1e-4}}
    assert recipe.load(source, ["train.learning_rate=1"]).train.learning_rate == 1.0
    assert source == {"train": {"learning_rate": 1e-4}}


def test_dump_reads_back_equal() -> None:
    first = recipe.load(
        {
            "name": "null",
            "model": {"fresh": {}},
            "data": {"forget": {"path": "a", "columns": {"prompt": "q"}}},
            "method": {"terms": [{"objective": {"name": "npo", "beta": 0.1}}, {"objective": "nll", "on": "retain"}]},
            "finetune": {"train": {"learning_rate": 1e-3}},
        }
    )
    assert first.method.terms[0].objective == "npo:beta=0.1"
    assert recipe.load(yaml.safe_load(recipe.dump(first))) == first


def test_dump_reads_back_equal_from_a_file(tmp_path: Path) -> None:
    first = recipe.load(None, ["name='1e-5'", "model.model_revision=no", "train.learning_rate=1e-5"])
    (tmp_path / "r.yaml").write_text(recipe.dump(first), encoding="utf-8")
    assert recipe.load(tmp_path / "r.yaml") == first


def test_all_faults_come_at_once() -> None:
    faults = faults_of(
        {"trian": {}, "train": {"learning_rate": -1, "bf16": "perhaps"}, "data": {"forget": {}}},
        ("seed=x", "nonsense", "model.dtype=int4"),
    )
    assert len(faults) == 7
    text = "\n".join(faults)
    for part in (
        "trian: unknown key; did you mean 'train'?",
        "train.learning_rate: should be greater than 0 (got -1)",
        "train.bf16: should be a valid boolean",
        "data.forget: give either path",
        "seed: should be a valid integer",
        "override 'nonsense': expected key=value",
        "model.dtype: should be 'float32', 'bfloat16' or 'float16' (got 'int4')",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("trian.learning_rate=1", "'train'"),
        ("train.learning_rat=1", "'train.learning_rate'"),
        ("learning_rate=1", "'train.learning_rate'"),
        ("--model.learning-rate=1", "'train.learning_rate'"),
        ("train.lr=1", "'train.learning_rate'"),
        ("method.gamma=1", "'method.forget_coef'"),
        ("model.fresh.hiden_size=8", "'model.fresh.hidden_size'"),
        ("data.forgot.path=x", "'data.forget'"),
        ("data.forget.annotation=x", "'data.forget.annotations'"),
    ],
)
def test_suggestions(override: str, suggestion: str) -> None:
    (fault,) = faults_of(None, (override,))[:1]
    assert f"did you mean {suggestion}?" in fault


def test_without_a_near_name_the_keys_are_listed() -> None:
    (fault,) = faults_of({"method": {"zzz": 1}})
    assert "There are: preset, forget_coef, retain_coef, terms, negate, combine, control" in fault


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"method": {"preset": "ga", "terms": [{"objective": "ga"}]}}, "method: give either a preset or terms"),
        ({"method": {"forget_coef": 2}}, "method: forget_coef and retain_coef replace a preset's factors"),
        ({"model": {"model_name_or_path": "x", "fresh": {}}}, "model: give either model_name_or_path or fresh"),
        ({"model": {"fresh": {"hidden_size": 30}}}, "multiple of 2 * num_attention_heads"),
        ({"model": {"fresh": {}}, "data": {"max_length": 1024}}, "data.max_length: 1024 is beyond"),
        ({"data": {"forget": {"path": "a", "dataset_name": "b"}}}, "data.forget: give either path"),
        ({"data": {"forget": {"path": "a", "dataset_config": "b"}}}, "dataset_config belongs to dataset_name"),
        ({"data": {"forget": {"path": "a"}, "retain": {"path": "a"}}}, "data.retain: reads the same records"),
        ({"data": {"template": "{prompt}"}}, "data: template must be auto, chat"),
        ({"train": {"max_steps": 0}}, "train: max_steps must be -1 or at least 1"),
        ({"train": {"num_train_epochs": 1, "warmup_epochs": 2}}, "train: warmup_epochs must not be beyond"),
        ({"finetune": {"train": {"trainable": "("}}}, "finetune.train: trainable is not a regular expression"),
        ({"train": {"bf16": True}, "model": {"dtype": "float16"}}, "train.bf16: mixed precision"),
        ({"device": "gpu"}, "device: String should match pattern"),
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate: should be a finite number"),
        ({"method": {"terms": [{"objective": {"beta": 1}}]}}, "needs the key 'name'"),
        ({"method": {"terms": [{"on": "forget"}]}}, "method.terms.0.objective: must be given"),
        ({"method": {"terms": {"objective": "ga"}}}, "method.terms: should be a list"),
        ({"data": 5}, "data: should be a mapping of settings (got 5)"),
    ],
)
def test_cross_field_and_range_checks(source: Any, fault: str) -> None:
    assert any(fault in line for line in faults_of(source))


def test_faults_of_methods_join_those_of_the_schema() -> None:
    def also(method: Method, plugins: tuple[str, ...]) -> list[str]:
        return [f"method.preset: no '{method.preset}' in {plugins}"]

    assert faults_of({"method": {"preset": "etww"}, "seed": -1, "plugins": "a.py, b.py"}, also=also) == [
        "seed: should be greater than or equal to 0 (got -1)",
        "method.preset: no 'etww' in ('a.py', 'b.py')",
    ]


def test_missing_names_what_each_verb_needs() -> None:
    empty = Recipe()
    assert [line.partition(":")[0] for line in recipe.missing(empty, "run")] == [
        "model.model_name_or_path",
        "data.forget",
        "method",
    ]
    fresh = recipe.load({"model": {"fresh": {}}, "data": {"forget": {"path": "a"}}, "method": {"preset": "ga"}})
    assert [line.partition(":")[0] for line in recipe.missing(fresh, "run")] == ["model.fresh"]
    assert recipe.missing(fresh, "finetune") == []


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(RecipeError, match=r"nofile\.yaml: 1 fault\n  there is no file 'nofile\.yaml'"):
        recipe.load("nofile.yaml")


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
KEYS = st.one_of(
    st.sampled_from(
        ["train", "data", "forget", "path", "method", "terms", "model", "fresh", "columns", "seed", "name"]
    ),
    st.text(max_size=6),
    st.integers(),
    st.none(),
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
FUZZ = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=60
)


@FUZZ
@given(st.dictionaries(KEYS, TREES, max_size=4))
def test_arbitrary_trees_give_a_recipe_or_a_recipe_error(tree: dict[Any, Any]) -> None:
    try:
        got = recipe.load(tree)
    except RecipeError as error:
        assert error.faults
    else:
        assert recipe.load(yaml.safe_load(recipe.dump(got))) == got


@FUZZ
@given(TREES)
def test_arbitrary_yaml_files_give_a_recipe_or_a_recipe_error(tmp_path: Path, tree: Any) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    try:
        recipe.load(file)
    except RecipeError as error:
        assert error.faults


@FUZZ
@given(st.lists(st.text(max_size=30) | st.from_regex(r"[a-z_]{1,8}(\.[a-z0-9_]{1,8}){0,3}=.{0,10}"), max_size=4))
def test_arbitrary_overrides_give_a_recipe_or_a_recipe_error(overrides: list[str]) -> None:
    try:
        recipe.load(None, overrides)
    except RecipeError as error:
        assert error.faults


@pytest.mark.slow
@settings(FUZZ, max_examples=5000)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_recipe_or_a_recipe_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "fuzz.yaml"
    file.write_bytes(content)
    try:
        recipe.load(file)
    except RecipeError as error:
        assert error.faults


def test_an_alias_bomb_is_reported_in_few_words(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    file = tmp_path / "bomb.yaml"
    file.write_text("\n".join(levels) + "\nname: *a11\n", encoding="utf-8")
    faults = faults_of(file)
    assert len("\n".join(faults)) < 5000


def test_arms_and_seeds_become_single_runs_that_share_target_and_oracle() -> None:
    whole = recipe.load(
        {
            "name": "study", "seed": 3, "seeds": 2, "output_dir": "out", "finetune": {"output_dir": "models"},
            "arms": {"a": ["method.preset=ga"], "b": ["method.preset=etw", "train.learning_rate=1e-3"]},
        }
    )  # fmt: skip
    runs = recipe.variants(whole)
    assert [(r.name, r.seed, Path(r.output_dir).as_posix()) for r in runs] == [
        ("a", 3, "out/a-3"), ("a", 4, "out/a-4"), ("b", 3, "out/b-3"), ("b", 4, "out/b-4"),
    ]  # fmt: skip
    assert {r.finetune.seed for r in runs if r.finetune} == {3}
    assert [r.train.learning_rate for r in runs] == [1e-5, 1e-5, 1e-3, 1e-3]
    assert all(not r.arms and r.seeds == 1 for r in runs)


def test_a_recipe_without_arms_and_seeds_is_its_own_variant() -> None:
    single = recipe.load({"name": "one", "finetune": {}})
    assert recipe.variants(single) == [single]
    assert [Path(r.output_dir).name for r in recipe.variants(single.model_copy(update={"seeds": 2}))] == [
        "seed-0", "seed-1"
    ]  # fmt: skip


def test_faults_of_all_arms_come_at_once() -> None:
    whole = recipe.load({"arms": {"a": ["train.lr=1"], "b": ["seed=-1"], "c": []}})
    with pytest.raises(RecipeError) as caught:
        recipe.variants(whole)
    assert len(caught.value.faults) == 2
    assert caught.value.faults[0].startswith("arms.a: train.lr")
    with pytest.raises(RecipeError, match="not a folder name"):
        recipe.load({"arms": {"../up": []}})
