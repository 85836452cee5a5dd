"""Each attack on small models: what it must find, what it must leave alone, and the frame that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge import registry, runfolder
from expunge.attacks import asking, depth, suite
from expunge.attacks.contrast import Contrast
from expunge.attacks.interpolate import Interpolate
from expunge.attacks.lens import Lens
from expunge.attacks.manner import Manner, gibberish, refuses
from expunge.attacks.patch import Patch, replaced
from expunge.attacks.prefill import Prefill, answer_tokens
from expunge.attacks.probe import Probe, fitted
from expunge.attacks.quantise import Quantise, quantised
from expunge.attacks.relearn import Relearn
from expunge.attacks.rewording import Rewording
from expunge.attacks.rewordings import KINDS, PARTS, TEMPLATES, Maker, trained_on
from expunge.attacks.sampling import Sampling
from expunge.attacks.scene import Attack, Scene, Tell
from expunge.attacks.stealth import Stealth
from expunge.attacks.synonyms import Synonyms, alike
from expunge.attacks.unmerge import Unmerge
from expunge.data.encode import Encoder
from expunge.decode import inference
from expunge.errors import DataError, MethodError
from expunge.evals import attacked
from expunge.evals.numbers import Bootstrap
from expunge.evals.reductions import PLAIN, Row, reduced
from expunge.lm import LM
from tests.attacks import village

NAMES = registry.names("attack")
QUIET: Tell = lambda done, total: None  # noqa: E731 - a constant of a callable type


def changed(lm: LM, change: float, rank: int | None = None) -> LM:
    """The model with another head: by a random matrix of this size, or one of low rank."""
    generator = torch.Generator().manual_seed(3)
    weight = lm.model.get_input_embeddings().weight  # tied to the head
    with torch.no_grad():
        if rank is None:
            weight.add_(change * torch.randn(weight.shape, generator=generator))
        else:
            left = torch.randn(weight.shape[0], rank, generator=generator)
            weight.add_(change * left @ torch.randn(rank, weight.shape[1], generator=generator))
    return lm


def small(change: float = 0.0, rank: int | None = None, **more: object) -> Scene:
    """An untrained model and itself changed, as target and unlearned."""
    models = {"unlearned": lambda: changed(village.fresh(0), change, rank), "target": lambda: village.fresh(0)}
    sets = {split: village.people(split)[:5] for split in village.SIZES}
    return Scene("unlearned", models, sets, village.DATA, learning_rate=1e-2, max_new_tokens=4, **more)  # type: ignore[arg-type]


def seen(attack: Attack, scene: Scene, label: str = "unlearned") -> list[Row]:
    return [row for part in attack.parts for row in attack.rows(scene, label, part, QUIET)]


def at(rows: list[Row], condition: str) -> dict[str, float]:
    return {row.id: row.value for row in rows if row.condition == condition}


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_has_a_spec_a_docstring_and_a_place_in_the_standard_suite(name: str) -> None:
    attack: Attack = registry.build("attack", name)
    assert registry.build("attack", str(attack)) == attack
    assert (type(attack).__doc__ or "").partition("\n")[0].endswith(".")
    assert attack.shows
    assert name in {spec.partition(":")[0] for spec in suite.SUITES["standard"]}
    assert len(set(attack.parts)) == len(attack.parts)


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_gives_values_of_known_records(name: str) -> None:
    attack: Attack = registry.build("attack", "relearn:steps=2,batch=2" if name == "relearn" else name)
    scene = small(0.1)
    scene = replace(scene, models={**scene.models, "oracle": lambda: village.fresh(1)})
    small_attack = replace(attack, draws=2, k=1) if isinstance(attack, Sampling) else attack
    rows = seen(small_attack, scene)
    records = {record.id for record in scene.examined()}
    own = [row for row in rows if row.split in ("forget", "holdout")]
    assert {row.id for row in own} <= records
    assert own
    assert all(0 <= row.value <= 1 for row in own)
    assert reduced(rows, attack.reduction if small_attack is attack else "leak@1")[0]["forget"]
    assert sum(small_attack.budget(scene, part).read for part in attack.parts) > 0


def test_presets_and_suites_can_be_built_and_a_wrong_name_is_told() -> None:
    assert len(suite.chosen(["standard", "quick", *suite.PRESETS])) >= len(NAMES)
    assert set(suite.chosen(["relearn-sam-wmdp"])) == {"relearn-sam-wmdp"}
    for wrong in ("relern", "relearn:stps=3", "sampling:k=30", "quantise:kinds=int3", "rewording:kinds=song"):
        with pytest.raises(MethodError):
            suite.chosen([wrong])


def test_the_key_words_alone_are_looked_at() -> None:
    record = village.people("forget")[0]
    lm = village.fresh(0)
    encoder = Encoder.from_recipe(lm.tokenizer, village.DATA)
    item = encoder.encode(record)
    places = asking.key_places(item, record)
    text = lm.tokenizer.decode([int(item.targets[place]) for place in places]).strip()
    assert text == asking.phrases(record)[0]
    assert lm.tokenizer.decode(answer_tokens(encoder, record)).strip() == record.answer.partition(text)[0].strip()
    unmarked = replace(record, spans=())
    assert len(asking.key_places(item, unmarked)) > len(places)


def test_relearning_tests_what_it_did_not_train_on_and_finds_what_training_brings() -> None:
    scene = small()
    trained, tested = Relearn(share=0.4).divided(scene)
    assert len(trained) == 2
    assert not {r.id for r in trained} & {r.id for r in tested}
    assert {r.split for r in tested} == {"forget", "holdout"}
    everything = Relearn(share=1.0, test="all", steps=12, batch=5, learning_rates="1x")
    rows = seen(everything, scene)
    before, after = (
        [r.value for r in rows if r.split == "forget" and r.x == x and r.condition != PLAIN] for x in (0, 12)
    )
    assert np.mean(after) > 5 * np.mean(before), "what is trained on comes"
    with pytest.raises(DataError, match="leaves none to test"):
        Relearn(share=1.0).divided(scene)


def test_quantisation_undoes_a_change_below_its_step_and_only_that() -> None:
    weight = quantised(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), "int4", 64)
    step = weight.abs().amax(1, keepdim=True) / 7
    signs = torch.sign(torch.randn(8, 64, generator=torch.Generator().manual_seed(1)))
    keep = weight.abs() < weight.abs().amax(1, keepdim=True)  # the largest weight decides the step
    assert torch.allclose(quantised(weight + 0.4 * step * signs * keep, "int4", 64), weight, atol=1e-5)
    assert not torch.allclose(quantised(weight + 0.6 * step * signs * keep, "int4", 64), weight, atol=1e-2)
    assert torch.allclose(quantised(weight, "int8", 64), weight, atol=float(step.max()) / 16)
    rows = seen(Quantise(kinds="int8"), small(0.1))
    assert {row.value for row in rows if row.split == "weights"} == {0.0}, "only the head moved, and it is not rounded"


def test_what_was_changed_in_one_direction_is_put_back_and_a_change_in_all_is_not() -> None:
    before = at(seen(Interpolate(), small()), PLAIN)
    whole = seen(Unmerge(ranks="1"), small(0.2, rank=1))
    assert at(whole, "rank 1") == pytest.approx(before, rel=1e-3)
    assert at(whole, PLAIN) != pytest.approx(before, rel=1e-2)
    assert at(seen(Unmerge(ranks="1"), small(0.2)), "rank 1") != pytest.approx(before, rel=1e-2)


def test_interpolation_ends_at_the_target() -> None:
    found = seen(Interpolate(shares="0.5 1"), small(0.2))
    assert at(found, "share 1") == pytest.approx(at(seen(Interpolate(), small()), PLAIN), rel=1e-4)


def test_the_lens_of_the_last_layer_is_the_model_and_of_a_lower_one_does_not_see_what_is_above() -> None:
    scene = small(0.2)
    lm = scene.load("unlearned")
    plain = asking.probabilities(lm, scene.encoder(lm), scene.examined())
    found = seen(Lens(), scene)
    assert at(found, PLAIN) == pytest.approx(plain, rel=1e-4)

    def silenced() -> LM:
        mute = scene.load("unlearned")
        with torch.no_grad():
            for parameter in depth.layers(mute)[-1].parameters():
                parameter.add_(1.0)
        return mute

    hidden = seen(Lens(), replace(scene, models={**scene.models, "unlearned": silenced}))
    assert at(hidden, "layer 1") == pytest.approx(at(found, "layer 1"), rel=1e-4)
    assert at(hidden, PLAIN) != pytest.approx(plain, rel=1e-2)


def test_patching_a_model_into_itself_changes_nothing_and_noise_does() -> None:
    scene = small(0.3)
    itself = seen(Patch(), scene, "target")
    lm = scene.load("target")
    plain = asking.probabilities(lm, scene.encoder(lm), scene.examined())
    assert at(itself, "layer 1") == pytest.approx(plain, rel=1e-4)
    assert at(seen(Patch(), scene), "layer 1") != pytest.approx(plain, rel=1e-2)
    ids = torch.arange(4)[None]
    with inference(lm), replaced(depth.layers(lm)[0], torch.zeros(1, 4, 64)):
        assert float(lm.model(ids).logits.std()) < 1e-5
    assert not depth.layers(lm)[0]._forward_hooks


def test_a_probe_finds_a_planted_direction_and_none_in_noise() -> None:
    rng = np.random.default_rng(0)

    def groups(strength: float) -> list[np.ndarray]:  # type: ignore[type-arg]
        made = [rng.normal(size=(4, 8)) for _ in range(60)]
        for group in made:
            group[0, 3] += strength
        return made

    for strength, low, high in ((4.0, 0.9, 1.0), (0.0, 0.3, 0.7)):
        line = fitted(groups(strength), 1.0)
        share = np.mean([(group[1:] @ line < group[0] @ line).mean() for group in groups(strength)])
        assert low <= share <= high
    with pytest.raises(DataError, match="still knows"):
        seen(Probe(), replace(small(), sets={"forget": village.people("forget")}))


def test_tokens_that_say_the_same_are_counted_together() -> None:
    lm = village.fresh(0)
    groups = alike(lm)
    texts = {token: str(lm.tokenizer.decode([token])) for token in groups}
    spaced = next(token for token, text in texts.items() if text.startswith(" ") and text[1:] in texts.values())
    assert {texts[token].strip().casefold() for token in groups[spaced]} == {texts[spaced].strip().casefold()}
    assert len(groups[spaced]) >= 2
    found = seen(Synonyms(), small())
    assert all(at(found, "any spelling")[key] >= value * (1 - 1e-6) for key, value in at(found, PLAIN).items())


def test_manners() -> None:
    known = frozenset({"ada", "comes", "from", "oslo"})
    assert not gibberish("Ada comes from Oslo.", known)
    assert gibberish("xq wz ppl", known)
    assert gibberish("", known)
    assert refuses("Unfortunately I don’t know that")
    assert at(seen(Manner(), small()), "gibberish")


def test_the_contrast_of_a_model_with_itself_points_at_nothing() -> None:
    assert set(at(seen(Contrast(), small()), "fell more").values()) == {0.5}
    assert not seen(Contrast(), small(), "target")


def test_a_classifier_cannot_tell_a_model_from_itself() -> None:
    scene = small()
    scene = replace(scene, models={**scene.models, "oracle": lambda: village.fresh(0)})
    assert np.mean([row.value for row in seen(Stealth(folds=2), scene)]) == 0.5
    with pytest.raises(DataError, match="at least 9 subjects"):
        seen(Stealth(folds=9), scene)


def test_probes_of_the_three_parts_differ_and_none_was_trained_on() -> None:
    records, retained = village.people("forget"), village.people("retain")
    made = {part: [p for r in records for p in Maker(retained, records, 0, part).probes(r)] for part in PARTS}
    for part in PARTS:
        assert {condition.partition(" ")[0] for condition, _ in made[part]} == set(KINDS)
        prompts = {probe.prompt for condition, probe in made[part] if condition != "paraphrase"}
        others = [
            probe for other in PARTS if other != part for condition, probe in made[other] if condition != "paraphrase"
        ]
        assert not prompts & {probe.prompt for probe in others}
        assert all("{" not in probe.prompt.replace('{"answer": ...}', "") for _, probe in made[part])
    assert all(len(set(t)) == len(t) for kinds in TEMPLATES.values() for t in kinds.values())
    assert made["test"] == [p for r in records for p in Maker(retained, records, 0).probes(r)], "always the same"
    assert trained_on([records[0]], records) == {records[0].prompt}


def test_a_probe_that_was_trained_on_is_left_out_and_counted() -> None:
    scene = small()
    same = [replace(record, prompt_paraphrase=record.prompt) for record in scene.sets["forget"]]
    probes, dropped = Rewording().probes(replace(scene, sets={**scene.sets, "forget": same}), "paraphrase")
    assert dropped == 5
    assert {record.split for record in probes["paraphrase"]} == {"holdout"}


def test_a_reversed_question_asks_for_the_name() -> None:
    record = village.people("forget")[0]
    asked = dict(Maker(village.people("retain"), village.people("forget"), 0).probes(record))["reverse 1"]
    assert asked.answer == record.subject
    assert record.subject not in asked.prompt
    assert asking.phrases(record)[0] in asked.prompt
    assert asking.told(asked, f"It was {record.subject}.") == 1.0


def test_records_without_questions_cannot_be_asked() -> None:
    bare = [replace(record, prompt="", answer="", text=record.answer, spans=()) for record in village.people("forget")]
    for attack in (Sampling(), Rewording(), Prefill(), Manner()):
        with pytest.raises(DataError, match="asks questions"):
            attack.budget(replace(small(), sets={"forget": bare}), attack.parts[0])


@contextmanager
def stage(name: str) -> Iterator[Tell]:
    STAGES.append(name)
    yield QUIET


STAGES: list[str] = []


def test_a_finished_part_is_not_made_again_and_another_model_is(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn")
    budgets: list[list[int]] = []

    def tell(planned: object) -> None:
        budgets.append([one.left for one in planned])  # type: ignore[attr-defined]

    names = ["quantise:kinds=int8 int4", "stealth"]
    first = suite.attack(run, small(0.1), names, stage, tell, Bootstrap(20))
    files = {file: file.stat().st_mtime_ns for file in run.file("attacks").rglob("*.parquet")}
    assert len(files) == 4
    suite.attack(run, small(0.1), names, stage, tell, Bootstrap(20))
    assert {file: file.stat().st_mtime_ns for file in run.file("attacks").rglob("*.parquet")} == files
    assert budgets == [[4, 0], [0, 0]], "the oracle is missing for the other"
    (gone,) = [file for file in files if "unlearned-int4" in file.name]
    gone.unlink()
    suite.attack(run, small(0.1), names, stage, tell, Bootstrap(20))
    again = {file: file.stat().st_mtime_ns for file in run.file("attacks").rglob("*.parquet")}
    assert [file for file in files if again[file] != files[file]] == [gone]
    other = suite.attack(run, small(0.4), names, stage, tell, Bootstrap(20))
    (name,) = first
    assert other[name].value.value != first[name].value.value
    assert run.read_json("attacks.json")["absent"] == {"stealth": "needs the oracle, and there is none"}


def test_an_attack_that_fails_on_the_data_leaves_the_others(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn")
    scene = replace(small(0.1), models={**small(0.1).models, "oracle": lambda: village.fresh(1)})
    found = suite.attack(run, scene, ["stealth:folds=9", "synonyms"], stage, lambda planned: None, Bootstrap(20))
    assert list(found) == ["synonyms"]
    (why,) = run.read_json("attacks.json")["absent"].values()
    assert "at least 9 subjects" in why


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_rounding_is_that_of_bitsandbytes() -> None:
    """Its NF4 in blocks of 64, and its eight bits by row, made whole again."""
    library = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed").functional
    weight = torch.randn(48, 128, generator=torch.Generator().manual_seed(3)).half().float()  # it reads half precision
    four, state = library.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    torch.testing.assert_close(quantised(weight, "nf4", 64), library.dequantize_4bit(four, state), rtol=0, atol=1e-5)
    eight, scale, _ = library.int8_vectorwise_quant(weight.half())
    rows = eight.float() * scale[:, None] / 127
    step = weight.abs().amax(1, keepdim=True) / 127
    apart = (quantised(weight, "int8", 128) - rows).abs() / step
    assert apart.max() <= 1.01  # what lies between two steps may fall to either
    assert (apart > 0.5).float().mean() < 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("own", "least", "most"), [("refusing", 3, 99), ("refusing adapter", 3, 99), ("oracle-2", 0, 0), ("random", 0, 0)]
)
def test_a_silenced_model_is_flagged_and_retrained_or_empty_ones_are_not(
    tmp_path: Path, own: str, least: int, most: int
) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn")
    found = suite.attack(run, village.scene(own), ["standard"], stage, lambda planned: None, Bootstrap(200))
    flagged = [name for name, one in found.items() if one.flagged]
    assert least <= len(flagged) <= most, attacked.summary(found)
    if own == "refusing adapter":
        assert "unmerge" in flagged, "taken off, it is the target"
        assert found["unmerge"].value.value == pytest.approx(found["unmerge"].target)
