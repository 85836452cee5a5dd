"""Models of many families as sources of token statistics: loading, refusing, saving, and the numbers themselves."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge import lm as lms
from expunge.core import IGNORE, Batch, Needs
from expunge.errors import ModelError
from expunge.lm import LM, Scored
from expunge.recipe import Model
from tests.contract import harness as h
from tests.fixtures.models import SUPPORTED, random_model, tiny
from tests.fixtures.tokenizers import bpe

families = pytest.mark.parametrize("family", SUPPORTED)
RECORDS = h.items(4)
BATCH, OTHERS = h.batch_of(RECORDS), h.batch_of(h.items(3, seed=8, prefix="r"))
NEEDS = Needs(second_moment=True, entropy=frozenset({1.0, 2.0}))


def by_hand(model: nn.Module, row: int) -> Tensor:
    """(T, V) float64 log-probabilities of one record by itself, from the logits that the model returns."""
    ids = torch.from_numpy(RECORDS[row].input_ids)[None]
    with torch.no_grad():
        out: Tensor = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return out


@pytest.mark.parametrize("naive", [False, True], ids=["fused", "naive"])
@families
def test_statistics_are_those_of_the_models_own_logits(family: str, naive: bool) -> None:
    """Of a padded batch, against each record by itself: so padding, alignment, scale, softcap and bias are right."""
    model = tiny(family)
    lms.self_test(model)
    stats = Scored(model, naive=naive)(BATCH, NEEDS)
    for row, item in enumerate(RECORDS):
        logp = by_hand(model, row)
        at = torch.from_numpy(item.targets != IGNORE)
        own = logp[at].gather(1, torch.from_numpy(item.targets)[at][:, None])[:, 0]
        mask = BATCH.mask[row]
        torch.testing.assert_close(stats.logp[row, mask].double(), own, rtol=1e-4, atol=1e-5)
        entropy = -(logp.exp() * logp).sum(-1)[at]
        torch.testing.assert_close(stats.entropy[1.0][row, mask].double(), entropy, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close((stats.label_logit - stats.lse)[row, mask].double(), own, rtol=1e-4, atol=1e-5)
    assert stats.second_moment is not None
    for values in (stats.logp, stats.label_logit, stats.lse, stats.entropy[2.0], stats.second_moment, stats.top1):
        assert not values[~BATCH.mask].any()


def test_reading_the_next_position_instead_would_be_noticed() -> None:
    """The break on purpose: the state that has already read the target says something else about it."""
    model = tiny("llama")
    logp = by_hand(model, 0)
    targets = torch.from_numpy(RECORDS[0].targets)
    at = torch.nonzero(targets != IGNORE)[:-1, 0]
    wrong = logp[at + 1, targets[at]]
    stats = Scored(model)(BATCH, NEEDS)
    assert (stats.logp[0, at].double() - wrong).abs().max() > 0.1


def test_what_stands_at_padding_does_not_matter() -> None:
    model = Scored(tiny("gpt2-tied-positions"))
    stats = model(BATCH, NEEDS)
    wide = h.batch_of(RECORDS, pad_to=BATCH.input_ids.shape[1] + 6)
    torch.testing.assert_close(model(wide, NEEDS).logp[:, :-6], stats.logp, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bert", "is not causal"),
        ("electra", "does not fit its final hidden states"),
        ("recurrent_gemma", "differs from its own logits"),
    ],
)
def test_an_unsupported_family_is_refused_with_the_reason(kind: str, reason: str) -> None:
    _, small = SUPPORTED["llama"]
    settings = {k: v for k, v in small.items() if k != "num_key_value_heads"}
    with pytest.raises(ModelError, match=reason):
        lms.self_test(random_model(kind, **settings))


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = tiny("llama")
    model.set_output_embeddings(nn.Sequential(nn.Linear(16, 64)))
    with pytest.raises(ModelError, match="output layer Sequential; expunge reads a linear head"):
        lms.head_of(model)


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [("gemma2-softcap", "final_logit_softcapping", None), ("cohere-scale", "logit_scale", 1.0)],
)
def test_the_self_test_notices_a_head_that_is_read_wrongly(family: str, key: str, value: object) -> None:
    model = tiny(family)

    keep, forward = model.config.to_dict()[key], model.forward

    def unchanged(*args: object, **named: object) -> object:
        """What the model computes stays; what its configuration says has changed."""
        setattr(model.config, key, keep)
        if key == "logit_scale":
            model.logit_scale = keep
        try:
            return forward(*args, **named)
        finally:
            setattr(model.config, key, value)

    model.forward = unchanged  # type: ignore[method-assign]
    setattr(model.config, key, value)
    with pytest.raises(ModelError, match="differs from its own logits"):
        lms.self_test(model)


def test_the_self_test_leaves_the_mode_alone() -> None:
    model = tiny("llama").train()
    lms.self_test(model)
    assert model.training


@pytest.mark.parametrize("training", [True, False])
def test_scoring_a_model_does_not_switch_its_dropout_on_or_off(training: bool) -> None:
    model = tiny("gpt2-tied-positions").train(training)
    module = Scored(model)
    assert module.training is model.training is training


@pytest.mark.parametrize(("at", "shift"), [("before", 0), ("own", 1)])
def test_hidden_states_are_those_before_or_after_the_token(at: str, shift: int) -> None:
    model = tiny("llama")
    needs = Needs(hidden=frozenset({(1, at), (0.5, at), (-1, at), (1.0, at)}))  # type: ignore[arg-type]
    stats = Scored(model)(BATCH, needs)
    ids = torch.from_numpy(RECORDS[2].input_ids)[None]
    with torch.no_grad():
        layers = model(input_ids=ids, output_hidden_states=True).hidden_states
    at_targets = torch.nonzero(BATCH.mask[2])[:, 0]
    for (layer, where), found in stats.hidden.items():
        index = {1: 1, 0.5: 1, -1: 2}[layer]
        assert where == at
        torch.testing.assert_close(found[2, at_targets], layers[index][0, at_targets + shift], rtol=1e-4, atol=1e-5)
        assert not found[~BATCH.mask].any()


@pytest.mark.parametrize("naive", [False, True], ids=["fused", "naive"])
@pytest.mark.parametrize(("at", "shift"), [("before", 0), ("own", 1)])
def test_gradient_of_a_hidden_state_reaches_the_layers_below_it_and_no_other(at: str, shift: int, naive: bool) -> None:
    """As autograd gives it from the model's own hidden states, also beside a gradient through the vocabulary head."""
    model, module = tiny("llama"), Scored(tiny("llama"), naive=naive)
    stats = module(BATCH, Needs(hidden=frozenset({(1, at)})))  # type: ignore[arg-type]
    stats.hidden[1, at].square().sum().backward()
    layers = model(
        input_ids=BATCH.input_ids, attention_mask=BATCH.attention_mask.long(), output_hidden_states=True
    ).hidden_states
    rows = torch.nonzero(BATCH.mask)
    layers[1][rows[:, 0], rows[:, 1] + shift].square().sum().backward()
    for (name, found), expected in zip(module.model.named_parameters(), model.parameters(), strict=True):
        below = "embed" in name or "layers.0." in name
        assert (found.grad is not None and bool(found.grad.abs().max() > 0)) == below, name
        if below:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="layer 3 was asked for; this model has hidden states 0 to 2"):
        Scored(tiny("llama"))(BATCH, Needs(hidden=frozenset({(3, "own")})))


def test_bf16_multiplies_in_bfloat16_and_agrees_with_float32_to_its_precision() -> None:
    model = tiny("llama")
    found = {}
    for naive in (False, True):
        for bf16 in (False, True):
            module = Scored(model, naive=naive, bf16=bf16)
            module.zero_grad()
            stats = module(BATCH, NEEDS)
            assert stats.logp.dtype == stats.entropy[1.0].dtype == torch.float32
            (stats.logp.sum() / BATCH.mask.sum()).backward()
            grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            found[naive, bf16] = (stats.logp.detach(), grads)
    exact, exact_grads = found[False, False]
    rounded, rounded_grads = found[False, True]
    assert 0 < float((rounded - exact).abs().max()) < 0.1
    torch.testing.assert_close(found[True, True][0], rounded, rtol=1e-5, atol=1e-5)
    for name, g in rounded_grads.items():
        assert g.dtype == torch.float32
        assert float((g - exact_grads[name]).norm() / exact_grads[name].norm()) < 0.05, name
        twin = found[True, True][1][name]
        assert float((g - twin).norm() / twin.norm()) < 0.01, f"{name}: head in forward and backward must agree"


# Folders


def saved(folder: Path, family: str = "llama", **more: object) -> Path:
    lms.save(LM(tiny(family, **{"vocab_size": 420, **more}), bpe(), "tiny"), folder)
    return folder


def load(folder: Path | str, **more: object) -> LM:
    return lms.load(Model.model_validate({"model_name_or_path": str(folder), **more}))


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gpt2-tied-positions"])
def test_a_model_comes_back_as_it_was_saved(tmp_path: Path, family: str) -> None:
    model = tiny(family, vocab_size=420)
    lms.save(LM(model, bpe(), "tiny"), tmp_path / "model")
    back = load(tmp_path / "model")
    assert lms.content_hash(back.model) == lms.content_hash(model)
    assert not back.model.training
    assert back.tokenizer.get_vocab() == bpe().get_vocab()
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in (tmp_path / "model").iterdir())


def test_the_content_hash_sees_every_value_name_and_type() -> None:
    model = tiny("llama")
    before = lms.content_hash(model)
    assert lms.content_hash(tiny("llama")) == before != lms.content_hash(tiny("llama", seed=1))
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-6
    assert lms.content_hash(model) != before
    assert lms.content_hash(tiny("llama").to(torch.bfloat16)) != before


def damage(folder: Path, how: str) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    up = "model.layers.1.mlp.up_proj.weight"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "garbage":
        weights.write_bytes(b"x" * 50)
    elif how == "incomplete":
        save_file({k: v for k, v in tensors.items() if k != up}, weights, {"format": "pt"})
    elif how == "misshapen":
        save_file({**tensors, up: torch.zeros(3, 3)}, weights, {"format": "pt"})
    elif how == "not finite":
        tensors[up][0, 0] = float("nan")
        save_file(tensors, weights, {"format": "pt"})
    elif how == "no weights":
        weights.unlink()
    elif how == "no configuration":
        (folder / "config.json").unlink()
    elif how == "half a configuration":
        (folder / "config.json").write_text("{")
    elif how == "no causal model":
        (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    elif how == "unknown type":
        (folder / "config.json").write_text(json.dumps({"model_type": "nosuch"}))
    elif how == "pickle":
        torch.save(tensors, folder / "pytorch_model.bin")
        weights.unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "could not be read as a causal language model"),
        ("garbage", "could not be read as a causal language model"),
        ("incomplete", "its weights are not complete, model.layers.1.mlp.up_proj.weight would be random"),
        ("misshapen", "could not be read as a causal language model"),
        ("not finite", "its logits are not finite"),
        ("no weights", "holds a configuration but no weights"),
        ("no configuration", "is not a model folder: it has no config.json. It holds: generation_config.json"),
        ("half a configuration", "not a valid JSON file"),
        ("no causal model", "Unrecognized configuration class"),
        ("unknown type", "nosuch"),
        ("pickle", r"holds its weights in a pickle file \(pytorch_model.bin\).*allow_pickle=true"),
    ],
)
def test_a_folder_that_is_no_good_model_says_why(tmp_path: Path, how: str, message: str) -> None:
    damage(saved(tmp_path / "model"), how)
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "model")


def test_pickle_weights_are_read_if_asked_for(tmp_path: Path) -> None:
    damage(saved(tmp_path / "model"), "pickle")
    back = load(tmp_path / "model", allow_pickle=True)
    assert lms.content_hash(back.model) == lms.content_hash(tiny("llama", vocab_size=420))


def test_safetensors_are_preferred_to_a_pickle_beside_them(tmp_path: Path) -> None:
    (saved(tmp_path / "model") / "pytorch_model.bin").write_bytes(b"not even a pickle")
    load(tmp_path / "model")


def test_a_name_that_leads_nowhere_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder with a model"):
        load(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is not a folder with a model"):
        load(tmp_path / "file")
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        load("someone/some-model-that-is-nowhere")
    with pytest.raises(ModelError, match="no model was given"):
        lms.load(Model())
    shutil.rmtree(tmp_path)


def test_types_and_padding_ids(tmp_path: Path) -> None:
    lm = load(saved(tmp_path / "model"), dtype="bfloat16")
    assert lm.model.dtype == torch.bfloat16
    assert lm.pad_id == lm.tokenizer.pad_token_id
    lm.tokenizer.pad_token = None
    assert lm.pad_id == 0
    assert lms.device_of("cpu") == "cpu"
    assert lms.device_of("auto") in ("cpu", "cuda", "mps")


def test_a_batch_everywhere_reads_prompt_and_padding_too() -> None:
    kl = next(o for o in h.OBJECTIVES if o.needs.everywhere)
    model, other = Scored(tiny("llama")), Scored(tiny("llama", seed=1))
    stats = model(BATCH, kl.needs, other.reference_rows(BATCH, kl.needs))
    (values,) = stats.vocab.values()
    assert (values > 0).all()
    assert not stats.logp[~BATCH.mask].any()
    assert isinstance(BATCH, Batch)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            "You are trying to access a gated repo.\nMake sure to have access to it at https://huggingface.co/x/y.\n"
            "401 Client Error. (Request ID: Root=1-a)",
            "cannot load 'x/y': it is gated or private: accept its terms on the hub and set HF_TOKEN",
        ),
        (
            "We couldn't connect to 'https://huggingface.co' to load the files, and it is not cached.",
            "cannot load 'x/y': the hub cannot be reached from here. Give the folder of a local copy",
        ),
        ("x/y does not appear to have a file named config.json.", "does not appear to have a file named config.json"),
    ],
    ids=["gated", "no network", "no model"],
)
def test_what_the_hub_refuses_is_said_in_our_words(raised: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(raised)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(lms.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=re.escape(said)):
        lms.load(Model(model_name_or_path="x/y"))
