"""Attention at another temperature: the numbers of a model whose queries are smaller, and nothing left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.attention import attentions, smoothed
from expunge.core import Needs, Smoothing
from expunge.errors import MethodError, ModelError
from expunge.lm import Scored
from expunge.objectives.retain import KL
from expunge.recipe import Method, TermSpec
from expunge.terms import build_terms
from tests.contract import harness as h
from tests.fixtures.models import SUPPORTED, tiny

BATCH = h.batch_of(h.items(3))


def rows(model: PreTrainedModel, smoothing: Smoothing | None) -> Tensor:
    needs = Needs(smoothing=frozenset() if smoothing is None else frozenset({smoothing}))
    return Scored(model).reference_rows(BATCH, needs).hidden


def with_smaller_queries(family: str, temperature: float, layers: int) -> PreTrainedModel:
    """The naive twin: the weights that make queries, divided."""
    model = copy.deepcopy(tiny(family))
    for attention in attentions(model)[:layers]:
        with torch.no_grad():
            for name, parameter in attention.named_parameters():
                if name.startswith("q_proj"):
                    parameter.div_(temperature)
                if name.startswith("c_attn"):
                    parameter[..., : parameter.shape[-1] // 3].div_(temperature)
    return model


@pytest.mark.parametrize("family", ["llama", "mistral-sliding", "qwen2", "phi-bias", "gpt2-tied-positions", "stablelm"])
@pytest.mark.parametrize(("share", "layers"), [(1.0, 2), (0.5, 1)])
def test_smoothing_is_dividing_the_queries(family: str, share: float, layers: int) -> None:
    found = rows(tiny(family), (2.4, share))
    torch.testing.assert_close(found, rows(with_smaller_queries(family, 2.4, layers), None), rtol=1e-4, atol=1e-5)
    wrong = rows(with_smaller_queries(family, 2.4, 3 - layers), None)
    assert float((found - wrong).abs().max()) > 1e-3


@pytest.mark.parametrize("family", SUPPORTED)
def test_every_family_notices_and_is_as_before_afterwards(family: str) -> None:
    model = tiny(family)
    before = rows(model, None)
    assert float((rows(model, (2.4, 1.0)) - before).abs().max()) > 1e-4
    assert torch.equal(rows(model, None), before)


def test_an_error_inside_leaves_the_model_as_it_was() -> None:
    model = tiny("llama")
    scaling = [layer.scaling for layer in attentions(model)]

    def fail() -> None:
        with smoothed(model, (2.0, 1.0)):
            assert [layer.scaling for layer in attentions(model)] == [s / 2 for s in scaling]
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [layer.scaling for layer in attentions(model)] == scaling


def test_a_model_whose_attention_cannot_be_read_is_refused() -> None:
    model = tiny("llama")
    model.model.layers[0].self_attn = nn.Identity()
    with pytest.raises(ModelError, match="LlamaForCausalLM has 2 layers, of which 1 could be read"):
        attentions(model)


def test_the_divergence_names_its_teacher_and_two_teachers_on_a_side_are_refused() -> None:
    assert KL().needs.smoothing == frozenset()
    assert KL(attention=2.0, layers=0.5).needs.smoothing == {(2.0, 0.5)}
    both = (TermSpec(objective="kl:attention=2"), TermSpec(objective="undial"))
    with pytest.raises(MethodError, match=r"kl:attention=2\.0 and undial on forget read the reference"):
        build_terms(Method(terms=both))
    apart = (both[0], TermSpec(objective="kl", on="retain"))
    assert len(build_terms(Method(terms=apart))) == 2
