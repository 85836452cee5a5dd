"""Adapters: they begin as nothing, only they train, they fold into the weights, the reference is what is beneath."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from expunge import adapters, checkpoint, recipe, runs
from expunge import lm as lms
from expunge.core import Needs
from expunge.errors import Interrupted, ModelError, RecipeError, TrainingError
from expunge.evals.verdict import Evidence, decide
from expunge.fused import Head
from expunge.lm import LM, Scored, head_of, self_test
from expunge.recipe import Recipe
from expunge.refcache import Reference
from expunge.report import card
from expunge.runs import reference_of
from expunge.sections import Adapter
from expunge.terms import build_terms
from tests.contract import harness as h
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe
from tests.test_runs import made, material, stop_at, weights

__all__ = ["material"]  # a fixture
IDS = torch.arange(12)[None] * 3 % 50


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def moved(settings: Adapter, family: str = "llama") -> PreTrainedModel:
    """A tiny model with an adapter that has learnt something."""
    model = tiny(family)
    adapters.attach(model, settings, 1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("family", ["llama", "gpt2-tied-positions", "phi-bias", "gemma2-softcap"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_an_adapter_begins_as_nothing_and_only_it_trains(family: str, dora: bool) -> None:
    model = tiny(family)
    before = logits(model)
    adapters.attach(model, Adapter(r=2, use_dora=dora), 1)
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    other, third = tiny(family), tiny(family)
    adapters.attach(other, Adapter(r=2, use_dora=dora), 1)
    adapters.attach(third, Adapter(r=2, use_dora=dora), 2)
    mine, same, unlike = (dict(m.named_parameters()) for m in (model, other, third))
    assert all(torch.equal(mine[name], same[name]) for name in mine)
    assert any(not torch.equal(mine[name], unlike[name]) for name in trained)
    with pytest.raises(ModelError, match="has an adapter already"):
        adapters.attach(model, Adapter(), 1)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_folded_the_model_is_the_same_and_an_ordinary_one(dora: bool, tmp_path: Path) -> None:
    model = moved(Adapter(r=2, use_dora=dora, modules_to_save=("lm_head",)))
    before, names = logits(model), set(dict(tiny("llama").named_parameters()))
    next(p for p in model.parameters() if p.requires_grad).requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    assert (before - logits(tiny("llama"))).abs().max() > 0.1
    with adapters.switched_off(model):
        torch.testing.assert_close(logits(model), logits(tiny("llama")), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    assert [p.requires_grad for p in model.parameters()] == flags
    adapters.fold(model)
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-4)
    assert set(dict(model.named_parameters())) == names
    assert not adapters.attached(model)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").is_file()
    assert not (tmp_path / adapters.CONFIG).exists()


def test_a_fold_that_changes_the_model_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora.layer import Linear

    monkeypatch.setattr(Linear, "merge", lambda self, safe_merge: None)
    with pytest.raises(ModelError, match=r"gives other logits than beside them.*train\.adapter\.save=adapter"):
        adapters.fold(moved(Adapter(r=2)))


def test_an_adapter_on_the_head_is_read_with_it() -> None:
    model = moved(Adapter(r=2, target_modules=r".*(lm_head|down_proj)"))
    self_test(model)  # our reading of the head against the model's own logits
    head = head_of(model)
    bare: Any = model.get_output_embeddings()
    assert (head.weight - bare.weight).abs().max() > 0.01
    head.logits(torch.randn(3, head.weight.shape[1])).sum().backward()
    assert bare.lora_B[adapters.NAME].weight.grad.abs().max() > 0
    with adapters.switched_off(model):
        torch.testing.assert_close(head_of(model).weight, bare.weight, rtol=0, atol=0)
    whole = moved(Adapter(r=2, modules_to_save=("lm_head",)))
    self_test(whole)
    with pytest.raises(ModelError, match="DoRA and dropout are not"):
        head_of(moved(Adapter(r=2, target_modules=r".*lm_head", use_dora=True)))


def test_a_head_whose_adapter_is_overlooked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = moved(Adapter(r=2, target_modules=r".*lm_head"))
    bare: Any = model.get_output_embeddings()
    monkeypatch.setattr(lms, "head_of", lambda model: Head(bare.weight, None, 1.0, None))
    with pytest.raises(ModelError, match="our reading of its vocabulary head differs"):
        self_test(model)


RECORDS = h.items(4)
BATCH = h.batch_of(RECORDS)


def with_dropout(**more: Any) -> PreTrainedModel:
    return tiny("gpt2-tied-positions", resid_pdrop=0.5, **more)


def test_the_reference_is_the_model_without_its_adapter_and_no_second_one() -> None:
    """The numbers are those of a frozen copy, in training mode too, and no parameter is there twice."""
    copied = Scored(copy.deepcopy(with_dropout()).eval().requires_grad_(False))
    model = with_dropout()
    adapters.attach(model, Adapter(r=2), 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3
    policy, bare = Scored(model.train()), Scored(model, bare=True)
    assert {id(p) for p in bare.parameters()} == {id(p) for p in policy.parameters()}
    needs = Needs(reference=True, hidden=frozenset({(1, "own")}))
    ours, theirs = (Reference(m).stats(BATCH, needs.hidden) for m in (bare, copied))
    torch.testing.assert_close(ours.logp, theirs.logp, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.hidden[1, "own"], theirs.hidden[1, "own"], rtol=1e-5, atol=1e-5)
    assert model.training
    assert not torch.allclose(policy(BATCH, Needs()).logp, theirs.logp, atol=1e-2)


@pytest.mark.parametrize("preset", ["npo", "graddiff-kl", "undial", "asu", "rmu"])
def test_losses_and_gradients_are_those_beside_a_frozen_copy(preset: str, material: Path, tmp_path: Path) -> None:
    """`reference: live` and `adapter-off` give the log of one another, and so does what auto chooses."""
    logs = []
    for mode in ("live", "adapter-off", "auto"):
        train = {"adapter": {"r": 2}, "max_steps": 3, "trainable": None}
        asked = made(material, tmp_path / mode, preset, train=train, reference=mode)
        logs.append([(line["loss"], line["grad_norm"]) for line in runs.unlearn(asked).read_log()])
    assert len({loss for loss, _ in logs[0]}) == 3
    for other in logs[1:]:
        assert other == [tuple(pytest.approx(value, rel=2e-5, abs=1e-6) for value in line) for line in logs[0]]


def run_with(material: Path, out: Path, preset: str = "npo", **more: Any) -> Recipe:
    train: Mapping[str, Any] = {"adapter": {"r": 2, **more}}
    return made(material, out, preset, train=train)


def test_a_merged_run_leaves_an_ordinary_model_and_small_checkpoints(material: Path, tmp_path: Path) -> None:
    asked = run_with(material, tmp_path / "run")
    with pytest.raises(Interrupted):
        runs.unlearn(asked, on_step=stop_at(3))
    found, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    saved = load_file(found.folder / "model.safetensors")
    assert saved
    assert all("lora_" in name for name in saved)
    run = runs.unlearn(asked)
    straight = runs.unlearn(run_with(material, tmp_path / "straight"))
    for name, weight in weights(straight).items():
        assert torch.equal(weight, weights(run)[name]), name
    before = lms.load(asked.model).model.state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in weights(run).items())
    assert not (run.file("model") / adapters.CONFIG).exists()
    assert "removable_adapter" not in run.manifest


def test_an_adapter_saved_alone_loads_beside_its_base_and_is_flagged(material: Path, tmp_path: Path) -> None:
    merged = runs.unlearn(run_with(material, tmp_path / "merged"))
    run = runs.unlearn(run_with(material, tmp_path / "alone", save="adapter"))
    folder = run.file("model")
    assert not (folder / "config.json").exists()
    assert Path(json.loads((folder / adapters.CONFIG).read_text())["base_model_name_or_path"]).is_absolute()
    alone = lms.load(recipe.Model(model_name_or_path=str(folder)))
    whole = lms.load(recipe.Model(model_name_or_path=str(merged.file("model"))))
    torch.testing.assert_close(logits(alone.model), logits(whole.model), rtol=1e-4, atol=1e-4)
    assert alone.tokenizer.get_vocab() == whole.tokenizer.get_vocab()

    assert run.manifest["removable_adapter"] is True
    assert "whoever takes the adapter off" in " ".join(card.write(run.path).read_text().split())
    assert "whoever takes the adapter off" not in " ".join(card.write(merged.path).read_text().split())

    again = made(material, tmp_path / "again", model={"model_name_or_path": str(folder)})
    assert not (runs.unlearn(again).file("model") / adapters.CONFIG).exists()
    second = run_with(material, tmp_path / "second", save="adapter").model_copy(update={"model": again.model})
    with pytest.raises(ModelError, match="would have no base to stand on"):
        runs.unlearn(second)


def test_the_verdict_fails_a_claim_beyond_suppression_where_the_adapter_comes_off(
    material: Path, tmp_path: Path
) -> None:
    from expunge.evals import verdict
    from expunge.gate import Gate

    run = runs.unlearn(run_with(material, tmp_path / "run", save="adapter"))
    conditions = [
        {"metric": "extraction_strength", "at_most": 0.1},
        {"metric": "retain_Q_A_Prob", "at_least": 0.5},
    ]
    for claim, outcome in (("suppression", "PASS"), ("non-extraction", "FAIL")):
        gate = Gate.model_validate({"claim": claim, "conditions": conditions})
        [found] = verdict._removable(gate, run)
        assert (found.outcome, "can be taken off" in found.reason) == (outcome, True)
    run.update(removable_adapter=None)
    assert not list(verdict._removable(gate, run))
    assert decide(gate, Evidence({}, {}, {}, {}, {}))[0].condition


def test_what_cannot_be_is_refused(material: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"adapter-off needs train\.adapter"):
        made(material, tmp_path, reference="adapter-off")
    with pytest.raises(RecipeError, match="reference_model names another"):
        made(material, tmp_path, train={"adapter": {}}, reference="adapter-off", reference_model="x")
    with pytest.raises(RecipeError, match="nothing can be merged into weights in nf4"):
        made(material, tmp_path, train={"adapter": {}}, model={"quantization": "nf4"})
    with pytest.raises(ModelError, match=r"target_modules='nowhere' does not fit.*linear layers look like"):
        runs.unlearn(run_with(material, tmp_path / "a", target_modules="nowhere"))
    terms = build_terms(recipe.Method(preset="npo"))
    lm = lms.load(made(material, tmp_path).model)
    assert reference_of(made(material, tmp_path, "npo"), lm, terms, {}) is not None


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, material: Path) -> Path:
    """A model as wide as a block of four-bit weights."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    model = tiny("llama", vocab_size=420, hidden_size=128, intermediate_size=128, max_position_embeddings=128)
    lms.save(LM(model, bpe(), "x"), folder)
    return folder


@pytest.mark.parametrize("how", ["int8", "nf4"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_adapter_is_trained_beside_quantised_weights(how: str, wide: Path, material: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model = {"model_name_or_path": str(wide), "quantization": how}
    asked = made(material, tmp_path / "run", "npo", model=model, train={"adapter": {"r": 2, "save": "adapter"}})
    run = runs.unlearn(asked)
    first, *_, last = (line["loss"] for line in run.read_log())
    assert last < first
    found = lms.load(recipe.Model(model_name_or_path=str(run.file("model"))))
    assert (logits(found.model) - logits(lms.load(recipe.Model(model_name_or_path=str(wide))).model)).abs().max() > 1e-4
    with pytest.raises(TrainingError, match=r"quantised weights cannot be trained. Set train\.adapter"):
        runs.unlearn(made(material, tmp_path / "whole", model=model))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_widths_that_four_bits_cannot_pack_on_a_cpu_are_told(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    lms.save(LM(tiny("llama", vocab_size=420, hidden_size=32), bpe(), "x"), tmp_path / "narrow")
    with pytest.raises(ModelError, match=r"model\.quantization=nf4 here: .*multiples of 64 for nf4; use int8"):
        lms.load(recipe.Model(model_name_or_path=str(tmp_path / "narrow"), quantization="nf4"))


@pytest.mark.parametrize("how", ["int8", "nf4"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_quantised_head_is_read_as_the_weights_that_it_stands_for_or_refused(how: str, tmp_path: Path) -> None:
    """On a CPU four bits are packed anew by the first pass, and cannot be read any more: the self-test sees it."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    whole = tiny("llama", vocab_size=448, hidden_size=128, intermediate_size=128)
    whole.save_pretrained(tmp_path)
    kind = {"int8": {"load_in_8bit": True}, "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}[how]
    settings = BitsAndBytesConfig(**kind, bnb_4bit_compute_dtype=torch.float32, llm_int8_skip_modules=["none"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings)
    assert type(model.get_output_embeddings()) is not torch.nn.Linear
    apart = (head_of(model).weight - whole.get_output_embeddings().weight).abs().max()
    assert 0 < apart < 0.2
    if how == "int8":
        self_test(model)  # against the model's own logits
    else:
        with pytest.raises(ModelError, match="our reading of its vocabulary head differs"):
            self_test(model)
