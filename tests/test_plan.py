"""Plans: steps as the loop takes them, tokens as the encoder counts them, parameters as the model has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expunge import plan as plans
from expunge import recipe
from expunge.plan import Amount, Shape
from expunge.recipe import FreshModel, Model, Train
from expunge.starter import starter


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "forget.jsonl"
    file.write_text("".join(json.dumps({"question": "a" * 20, "answer": "b" * 20}) + "\n" for _ in range(10)))
    (tmp_path / "keep.jsonl").write_text(json.dumps({"question": "c" * 40, "answer": "d" * 40}) + "\n")
    return file


def made(rows: Path, *overrides: str) -> plans.Plan:
    tree = {
        "model": {"model_name_or_path": "x/y-2B"},
        "data": {"forget": {"path": str(rows)}, "retain": {"path": str(rows.parent / "keep.jsonl")}},
        "method": {"preset": "etw"},
        "train": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 3},
    }
    return plans.plan(recipe.load(tree, overrides), flops_a_second=1e12)


def test_steps_tokens_and_time_by_hand(rows: Path) -> None:
    found = made(rows)
    (stage,) = found.stages
    assert (stage.steps, stage.steps_per_epoch) == (Amount(9), 3)  # 10 records, 4 a step, 3 epochs
    assert found.sides["forget"].tokens == Amount(100, exact=False)  # 40 characters a record, 4 a token
    assert found.sides["retain"].tokens == Amount(20, exact=False)
    # 30 rows of 10 + 20 tokens, 6 operations a parameter and token, at 0.4 of the speed
    assert stage.seconds == pytest.approx(6 * 2e9 * 30 * 30 / (1e12 * 0.4))
    assert not found.needs_reference
    assert found.terms == ("0.1 * ga on forget, score entropy, select normalised", "1 * nll on retain")


def test_a_reference_costs_memory_and_time(rows: Path) -> None:
    plain, npo = made(rows).stages[0], made(rows, "method.preset=npo").stages[0]
    assert npo.memory["reference"] == npo.memory["weights"] == 8_000_000_000
    assert npo.seconds == pytest.approx(plain.seconds * 8 / 6)  # type: ignore[operator]


def test_controls_that_are_matched_cost_what_they_hold(rows: Path) -> None:
    plain = made(rows).stages[0]
    apart = made(rows, "method.control=grad-matched").stages[0]
    paired = made(rows, "method.control=update-matched", "method.paired_run=x").stages[0]
    one = plain.memory["weights"]
    assert set(apart.memory.items()) - set(plain.memory.items()) == {("gradients kept apart", 2 * one)}
    assert set(paired.memory.items()) - set(plain.memory.items()) == {("parameters before the step", one)}
    # forward 2, back over the forget batch twice and over the retain batch once, as if both were of one length
    assert apart.seconds == pytest.approx(plain.seconds * 8 / 6)  # type: ignore[operator]
    assert paired.seconds == plain.seconds


def test_max_steps_wins(rows: Path) -> None:
    assert made(rows, "train.max_steps=5").stages[0].steps == Amount(5)


def test_fine_tuning_is_planned_before(rows: Path) -> None:
    found = made(rows, "finetune.train.num_train_epochs=1", "finetune.train.per_device_train_batch_size=1")
    assert [(stage.name, stage.steps.value) for stage in found.stages] == [
        ("fine-tune the target", 3),  # 11 records, 4 a step
        ("fine-tune the oracle", 1),
        ("unlearn", 9),
    ]
    assert len(made(rows, "finetune.oracle=false").stages) == 2


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("open-unlearning/tofu_Llama-3.1-8B-Instruct_full", 8_000_000_000),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_500_000_000),
        ("locuslab/tofu_ft_phi-1.5", 1_400_000_000),
        ("my/own-model", None),
        ("my/3Bears", None),
    ],
)
def test_sizes_guessed_from_names(name: str, parameters: int | None) -> None:
    assert plans.shape_of(Model(model_name_or_path=name)).parameters == Amount(parameters, exact=False)


@pytest.mark.parametrize("tied", [True, False])
def test_the_size_of_a_fresh_model_is_its_size(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    fresh = FreshModel(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, vocab_size=99,
        tie_word_embeddings=tied,
    )  # fmt: skip
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    config = LlamaConfig(**{name: getattr(fresh, name) for name in names}, tie_word_embeddings=tied)
    assert plans.shape_of(Model(fresh=fresh)).parameters.value == LlamaForCausalLM(config).num_parameters()


def test_a_model_on_disk_is_measured_without_weights(shared: Path, tmp_path: Path) -> None:
    folder = shared / "models" / "tiny-english"
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    shape = plans.shape_of(Model(model_name_or_path=str(tmp_path)))
    assert shape == Shape(Amount(10_059_840), 320, 6)


def test_tokens_are_counted_where_the_tokenizer_is_here(shared: Path, rows: Path) -> None:
    found = made(rows, f"model.model_name_or_path={shared / 'models' / 'tiny-english'}")
    assert found.sides["forget"].tokens.exact
    assert found.stages[0].memory["activations"] > 0


def test_checkpointing_saves_memory() -> None:
    shape = Shape(Amount(1000), 10, 2)
    sizes = [
        plans.memory(shape, "float32", Train(gradient_checkpointing=on), 8, False)["activations"]
        for on in (False, True)
    ]
    assert sizes == [17 * 8 * 10 * 2 * 4, 8 * 10 * 2 * 4]


def test_speed_is_measured() -> None:
    assert plans.measure_speed(seconds=0.01) > 1e8


def test_the_starter_recipe_takes_small_steps_for_few_records(rows: Path) -> None:
    text = starter("m", str(rows), None, "x")
    assert "per_device_train_batch_size: 2\n" in text
    assert "# 10 records" in text
