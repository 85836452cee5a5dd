"""Plans: steps as the loop takes them, tokens as the encoder counts them, parameters as the model has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expunge import footprint, recipe
from expunge import plan as plans
from expunge.footprint import Amount, Shape
from expunge.groundwork import Work
from expunge.recipe import Model, Train
from expunge.sections import FreshModel
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
    assert found.reference.kept == "nothing"
    assert not found.groundwork
    assert found.terms == ("0.1 * ga on forget, score entropy, select normalised", "1 * nll on retain")


def test_a_reference_is_copied_only_where_more_is_read_than_its_scored_tokens(rows: Path) -> None:
    assert made(rows, "method.preset=graddiff-kl").reference.kept == "numbers"
    terms = "method.terms=[{objective: ga}, {objective: 'kl:positions=all', on: retain}]"
    plain, kl = made(rows), made(rows, "method.preset=null", terms)
    assert kl.reference.kept == "copied"
    assert kl.stages[0].memory["reference"] == kl.stages[0].memory["weights"] == 8_000_000_000
    assert kl.stages[0].seconds == pytest.approx(plain.stages[0].seconds * 8 / 6)  # type: ignore[operator]
    assert not kl.groundwork


@pytest.mark.parametrize("preset", ["npo", "tif"])
def test_numbers_of_a_reference_cost_one_pass_and_no_copy(rows: Path, preset: str) -> None:
    plain, found = made(rows), made(rows, f"method.preset={preset}")
    assert found.reference.kept == "numbers"
    assert found.stages[0].memory == plain.stages[0].memory
    # 100 tokens, two operations a parameter and token
    seconds = pytest.approx(2 * 2e9 * 100 / (1e12 * 0.4))
    assert found.groundwork == (Work("numbers of the reference remembered", Amount(100, exact=False), seconds),)


def test_prepared_scores_are_counted_in_passes_over_the_forget_set(rows: Path) -> None:
    (work,) = made(rows, "method.preset=tokenunlearn-hard").groundwork
    assert work.name == "scores of forget prepared: masking, frozen"
    assert work.tokens == Amount(200, exact=False), "one plain pass for both, one with the subject hidden"
    term = "{objective: ga, score: '0.5*masking:hide=context,refresh=2+0.5*base-surprise:model=base', select: top}"
    first, again = made(rows, "method.preset=null", f"method.terms=[{term}]").groundwork
    assert first.tokens == Amount(350, exact=False), "2.5 for the one, 1 of the other model"
    assert again.name == "scores of forget made anew every 2 steps"
    assert again.tokens == Amount(4 * 250, exact=False), "before steps 2, 4, 6 and 8 of 9, without the other model"


def test_answers_that_the_model_must_write_are_counted_at_their_longest(rows: Path) -> None:
    found = made(rows, "method.preset=altpo", "data.alternatives.per_record=3", "data.alternatives.max_new_tokens=50")
    assert found.groundwork[0].name == "other answers to forget written"
    assert found.groundwork[0].tokens == Amount(10 * 3 * (10 + 50), exact=False)
    assert found.reference.kept == "numbers"


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
    assert footprint.shape_of(Model(model_name_or_path=name)).parameters == Amount(parameters, exact=False)


@pytest.mark.parametrize("tied", [True, False])
def test_the_size_of_a_fresh_model_is_its_size(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    fresh = FreshModel(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, vocab_size=99,
        tie_word_embeddings=tied,
    )  # fmt: skip
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    config = LlamaConfig(**{name: getattr(fresh, name) for name in names}, tie_word_embeddings=tied)
    assert footprint.shape_of(Model(fresh=fresh)).parameters.value == LlamaForCausalLM(config).num_parameters()


def test_a_model_on_disk_is_measured_without_weights(shared: Path, tmp_path: Path) -> None:
    folder = shared / "models" / "tiny-english"
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    shape = footprint.shape_of(Model(model_name_or_path=str(tmp_path)))
    # seven linear layers in each of 6: four of 320, three of 320 by 864
    assert shape == Shape(Amount(10_059_840), 320, 6, 6 * (4 * 640 + 3 * (320 + 864)), 864, 8192)


def test_tokens_are_counted_where_the_tokenizer_is_here(shared: Path, rows: Path) -> None:
    found = made(rows, f"model.model_name_or_path={shared / 'models' / 'tiny-english'}")
    assert found.sides["forget"].tokens.exact
    assert found.stages[0].memory["activations"] > 0


def test_checkpointing_saves_memory() -> None:
    shape = Shape(Amount(1000), 10, 2, inner=30)
    sizes = [
        footprint.memory(shape, Model(), Train(gradient_checkpointing=on), 8, False)["activations"]
        for on in (False, True)
    ]
    assert sizes == [(19 * 10 + 4 * 30) * 8 * 2 * 4, 8 * 10 * 2 * 4]


def test_logits_are_those_of_the_answers_and_never_more_than_chunks() -> None:
    for vocabulary, rows in ((100, 3 * 200 * 100), (2**20, 3 * 2**25)):
        shape = Shape(Amount(1000), 10, 2, inner=30, vocabulary=vocabulary)
        assert footprint.memory(shape, Model(), Train(), 300, False)["logits"] == 4 * rows


def test_an_adapter_alone_has_gradients_and_state() -> None:
    shape = Shape(Amount(1000), widths=50)
    sizes = footprint.memory(shape, Model(quantization="int8"), Train.model_validate({"adapter": {"r": 2}}), 0, True)
    assert sizes == {
        "weights": 1000, "gradients": 400, "AdamW": 800, "start, for the drift": 400, "adapter": 400, "reference": 1000,
    }  # fmt: skip


def test_speed_is_measured() -> None:
    assert footprint.measure_speed(seconds=0.01) > 1e8


def test_the_starter_recipe_takes_small_steps_for_few_records(rows: Path) -> None:
    text = starter("m", str(rows), None, "x")
    assert "per_device_train_batch_size: 2\n" in text
    assert "# 10 records" in text
