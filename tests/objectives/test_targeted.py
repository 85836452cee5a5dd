"""`lpl` and `preserve` by hand, against their twin, at their edges; and how training treats a coupled batch."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expunge import registry, runfolder
from expunge import train as training
from expunge.core import IGNORE, Batch, Forward, Needs, TokenStats, Weights
from expunge.data.collate import collate
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record
from expunge.errors import MethodError, TrainingError
from expunge.fresh import fresh_model
from expunge.lm import Scored
from expunge.objectives.targeted import LogitPreference, Preserve
from expunge.recipe import Method, TermSpec, Train
from expunge.refcache import Reference, remembered
from expunge.sections import FreshModel
from expunge.step import Step, accumulate
from expunge.terms import build_term, build_terms, coupled
from expunge.testing import forward_from_probabilities, stats_from_logits
from tests.objectives import tif_twin

SMALL = FreshModel(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=300)


def example(seed: int = 0, rows: int = 3, width: int = 7, vocabulary: int = 11) -> tuple[Forward, Tensor, Tensor]:
    """A float64 `Forward` with leaf logits, and a mask of unwanted tokens; the last row has none."""
    rng = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, vocabulary, (rows, width), generator=rng)
    targets[:, 0], targets[:, -1], targets[0, -3:] = IGNORE, IGNORE, IGNORE
    logits = (3 * torch.randn(rows, width, vocabulary, generator=rng, dtype=torch.float64)).requires_grad_()
    reference = 3 * torch.randn(rows, width, vocabulary, generator=rng, dtype=torch.float64)
    batch = Batch(targets.clamp(min=0), targets, torch.ones_like(targets, dtype=torch.bool), ("a", "b", "c")[:rows])
    unwanted = (targets != IGNORE) & (torch.rand(targets.shape, generator=rng) < 0.5)
    unwanted[0, 1], unwanted[-1] = True, False
    forward = Forward(batch, stats_from_logits(logits, batch, Needs()), stats_from_logits(reference, batch, Needs()))
    return forward, logits, unwanted


def mean(objective: LogitPreference | Preserve, forward: Forward, weights: Weights) -> Tensor:
    loss = objective(forward, weights)
    assert torch.equal(loss.count, objective.count(weights, forward.mask))
    return loss.value.sum() / loss.count.sum().clamp(min=1)


def test_lpl_by_hand() -> None:
    # label logits fell from log .8 to log .2 and from log .6 to log .3: d = (log 4 + log 2) / 2 = 1.5 log 2
    forward = forward_from_probabilities([[0.2, 0.8], [0.3, 0.7]], targets=[0, 0], reference=[[0.8, 0.2], [0.6, 0.4]])
    expected = 2 / 0.5 * math.log1p(math.exp(-0.5 * 1.5 * math.log(2)))
    assert float(mean(LogitPreference(beta=0.5), forward, Weights.ones(forward.mask))) == pytest.approx(expected)


def test_weights_are_shares_of_a_mean() -> None:
    forward = forward_from_probabilities([[0.2, 0.8], [0.3, 0.7]], targets=[0, 0], reference=[[0.8, 0.2], [0.6, 0.4]])
    weights = Weights(torch.tensor([[6.0, 2.0, 0.0]]), forward.mask)
    fall = 0.75 * math.log(4) + 0.25 * math.log(2)
    assert float(mean(LogitPreference(beta=1.0), forward, weights)) == pytest.approx(
        2 * math.log1p(math.exp(-fall)), rel=1e-6
    )


@pytest.mark.parametrize(("space", "fall"), [("logprob", math.log(4)), ("probability", 0.6)])
def test_other_spaces_by_hand(space: str, fall: float) -> None:
    forward = forward_from_probabilities([[0.2, 0.8]], targets=[0], reference=[[0.8, 0.2]])
    objective: LogitPreference = registry.build("objective", f"lpl:beta=1,space={space}")
    expected = 2 * math.log1p(math.exp(-fall))
    assert float(mean(objective, forward, Weights.ones(forward.mask))) == pytest.approx(expected, rel=1e-6)


def test_logits_and_log_probabilities_are_told_apart() -> None:
    """Adding 5 to a whole row of logits leaves log p alone and moves the raw logit by 5."""
    batch = Batch(torch.tensor([[0, 1]]), torch.tensor([[1, IGNORE]]), torch.ones(1, 2, dtype=torch.bool), ("a",))
    rows = torch.tensor([[1.0, 2.0, 0.5]])
    forward = Forward(batch, stats_from_logits(rows - 5, batch, Needs()), stats_from_logits(rows, batch, Needs()))
    weights = Weights.ones(batch.mask)
    raw = mean(LogitPreference(beta=1.0), forward, weights)
    assert float(raw) == pytest.approx(2 * math.log1p(math.exp(-5)))
    assert float(mean(LogitPreference(beta=1.0, space="logprob"), forward, weights)) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("beta", [0.1, 0.32, 2.0])
def test_lpl_equals_its_twin(beta: float, batch: bool) -> None:
    forward, logits, unwanted = example()
    assert forward.reference is not None
    reference = torch.zeros_like(logits)
    index = forward.batch.targets.clamp(min=0)[..., None]
    reference.scatter_(2, index, forward.reference.label_logit[..., None])
    objective = LogitPreference(beta=beta, sigmoid="batch" if batch else "sequence")
    value = mean(objective, forward, Weights.ones(unwanted)).detach()
    twin = tif_twin.lpl(
        logits.detach().numpy(), reference.detach().numpy(), forward.batch.targets.numpy(), unwanted.numpy(), beta,
        batch=batch,
    )  # fmt: skip
    assert float(value) == pytest.approx(twin, rel=1e-12)
    assert objective.couples == ("batch" if batch else "sequence")


@pytest.mark.parametrize("reduction", ["token", "sequence", "sum"])
def test_preserve_equals_its_twin(reduction: str) -> None:
    forward, logits, unwanted = example(1)
    general = forward.mask & ~unwanted
    general[1] = False  # a sequence that is unwanted throughout
    objective: Preserve = registry.build("objective", f"preserve:reduction={reduction}")
    twin = tif_twin.preserve(
        logits.detach().numpy(), forward.batch.targets.numpy(), general.numpy(), reduction=reduction
    )
    assert mean(objective, forward, Weights.ones(general)).detach().item() == pytest.approx(twin, rel=1e-12)


def test_gradient_is_one_over_n_on_the_label_logit_alone_and_fades() -> None:
    """At the start dL/dz = +1/n at the unwanted labels and exactly 0 anywhere else; later 2 sigmoid(-beta d) / n."""
    forward, logits, unwanted = example(2, rows=1, width=9)
    unwanted = forward.mask & (torch.arange(9) % 2 == 1)
    n = int(unwanted.sum())
    own = Forward(forward.batch, forward.policy, _detached(forward.policy))
    (mean(LogitPreference(beta=0.3), own, Weights.ones(unwanted))).backward()
    assert logits.grad is not None
    expected = torch.zeros_like(logits)
    index = forward.batch.targets.clamp(min=0)[..., None]
    expected.scatter_(2, index, torch.where(unwanted, 1 / n, 0.0).double()[..., None])
    torch.testing.assert_close(logits.grad, expected)
    assert bool((logits.grad[expected == 0] == 0).all())

    logits.grad = None
    lower = Forward(forward.batch, stats_from_logits(logits, forward.batch, Needs()), _raised(forward.policy, 7.0))
    mean(LogitPreference(beta=0.3), lower, Weights.ones(unwanted)).backward()
    torch.testing.assert_close(logits.grad, expected * 2 * (1 / (1 + math.exp(0.3 * 7.0))))


def test_a_sequence_without_unwanted_words_changes_nothing() -> None:
    """The published code gives NaN here: 0 / 0 in one row spoils the batch."""
    forward, logits, unwanted = example(3)
    assert not unwanted[-1].any()
    for sigmoid in ("sequence", "batch"):
        objective = LogitPreference(beta=0.3, sigmoid=sigmoid)
        whole = objective(forward, Weights.ones(unwanted))
        assert float(whole.value.detach()[-1]) == float(whole.count[-1]) == 0
        two = Forward(*(_rows(part, 2) for part in (forward.batch, forward.policy, forward.reference)))  # type: ignore[arg-type]
        expected = mean(objective, two, Weights.ones(unwanted[:2]))
        assert torch.equal(mean(objective, forward, Weights.ones(unwanted)), expected)
    none = mean(LogitPreference(), forward, Weights.ones(torch.zeros_like(unwanted)))
    none.backward()
    assert float(none.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_never_below_zero_and_finite_at_the_ends() -> None:
    ends = torch.tensor([[1e4, -1e4, 0.0]])
    batch = Batch(torch.tensor([[0, 1]]), torch.tensor([[1, IGNORE]]), torch.ones(1, 2, dtype=torch.bool), ("a",))
    for policy, reference in ((ends, -ends), (-ends, ends)):
        for space in ("logit", "logprob", "probability"):
            logits = policy.clone().requires_grad_()
            forward = Forward(
                batch, stats_from_logits(logits, batch, Needs()), stats_from_logits(reference, batch, Needs())
            )
            value = mean(LogitPreference(space=space), forward, Weights.ones(batch.mask))
            value.backward()
            assert float(value.detach()) >= 0
            assert math.isfinite(float(value.detach()))
            assert logits.grad is not None
            assert bool(torch.isfinite(logits.grad).all())


def test_batch_form_depends_on_its_neighbours_and_the_sequence_form_does_not() -> None:
    forward, _, unwanted = example(4)
    one = Forward(*(_rows(part, 1) for part in (forward.batch, forward.policy, forward.reference)))  # type: ignore[arg-type]
    weights, alone = Weights.ones(unwanted), Weights.ones(unwanted[:1])
    for sigmoid, same in (("sequence", True), ("batch", False)):
        objective = LogitPreference(beta=1.0, sigmoid=sigmoid)  # type: ignore[arg-type]
        first, single = objective(forward, weights).value[0], objective(one, alone).value[0]
        assert bool(torch.isclose(first, single)) == same


def test_settings_are_checked() -> None:
    with pytest.raises(MethodError, match="beta"):
        registry.build("objective", "lpl:beta=0")
    with pytest.raises(MethodError, match="sigmoid"):
        registry.build("objective", "lpl:sigmoid=row")
    assert str(registry.build("objective", "lpl:beta=0.3,sigmoid=batch")) == "lpl:beta=0.3,sigmoid=batch"


class _Counted(nn.Module):
    """A reference whose label logit is 1 everywhere; counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []

    def forward(self, batch: Batch, needs: Needs) -> TokenStats:
        self.asked.append(batch.ids)
        one = batch.mask.float()
        return TokenStats(logp=-one, label_logit=one, lse=2 * one, top1=batch.mask)


def test_the_reference_is_asked_once_for_each_record() -> None:
    """One number a token is all that lpl needs of the frozen model, and it stays in memory after the first epoch."""
    assert LogitPreference().needs == Needs(reference=True)
    counted = _Counted()
    reference = Reference(counted)  # type: ignore[arg-type]
    items = [_item("a", 5), _item("b", 7), _item("c", 6)]
    for order in ((0, 1), (2, 0), (1, 2)):
        batch = collate([items[i] for i in order], pad_id=0)
        stats = reference.stats(batch)
        assert torch.equal(stats.label_logit, batch.mask.float())
    assert counted.asked == [("a", "b"), ("c",)]


def test_the_start_is_remembered_without_a_second_model() -> None:
    """The numbers stay those of the start while the model is trained in place; records never seen are refused."""
    lm = fresh_model(SMALL, ["one two three four"], seed=1)
    items = [_item(f"r{i}", 4 + i % 5) for i in range(20)]
    module = Scored(lm.model)
    batch = collate([items[3], items[17]], pad_id=0)
    live = Reference(Scored(copy.deepcopy(lm.model))).stats(batch)
    reference = remembered(module, {frozenset(): items}, pad_id=0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
    assert reference.module is None
    torch.testing.assert_close(reference.stats(batch).label_logit, live.label_logit)
    torch.testing.assert_close(reference.stats(batch).logp, live.logp)
    with pytest.raises(TrainingError, match="never saw: new"):
        reference.stats(collate([_item("new", 5)], pad_id=0))


def test_training_warns_where_accumulation_changes_a_coupled_loss(tmp_path: Path) -> None:
    lm = fresh_model(SMALL, ["a b c d"], seed=0)
    encoder = Encoder(lm.tokenizer)
    items = [encoder.encode(Record(str(i), prompt="a b", answer="c d")) for i in range(4)]
    terms = (build_term(TermSpec(objective="lpl:sigmoid=batch"), Method()),)
    assert coupled(terms) == ["forget/lpl:sigmoid=batch"]
    run = runfolder.create(tmp_path / "run", "unlearn")
    settings = Train(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    with pytest.warns(UserWarning, match=r"forget/lpl:sigmoid=batch.*gradient_accumulation_steps=2"):
        training.Fit(lm, terms, {"forget": items}, settings, run, seed=0)
    training.Fit(lm, terms, {"forget": items}, settings.model_copy(update={"gradient_accumulation_steps": 1}), run, 0)
    plain = (build_term(TermSpec(objective="lpl"), Method()),)
    training.Fit(lm, plain, {"forget": items}, settings, run, 0)


def test_accumulation_changes_nothing_of_the_sequence_form() -> None:
    """Micro-batches of unlike sizes, one of them with no unwanted word: the same gradient as the batch in one piece."""
    lm = fresh_model(SMALL, ["one two three four"], seed=1)
    items = [_item("a", 5, unwanted=2), _item("b", 9, unwanted=4), _item("c", 6, unwanted=0), _item("d", 4, unwanted=1)]
    terms = build_terms(Method(preset="tif:beta=0.7,preserve=0.3"))
    gradients = []
    for groups in ([[0, 1, 2, 3]], [[0, 1], [2], [3]]):
        module = Scored(lm.model)
        module.zero_grad()
        step = Step(terms, Reference(_shifted(lm.model)))
        batches = [{"forget": collate([items[i] for i in group], 0, [0] * len(group))} for group in groups]
        accumulate(step, module, batches, lambda loss: loss.backward(), [0] * len(groups))  # type: ignore[arg-type]
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-7)


def _shifted(model: nn.Module) -> Scored:
    """A frozen twin of the model whose weights are a little off, so that the sigmoid is not at its middle."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    return Scored(other)  # type: ignore[arg-type]


def _item(name: str, length: int, unwanted: int = 0) -> Encoded:
    ids = np.random.default_rng(len(name) + length).integers(5, 200, length)
    targets = np.append(ids[1:], IGNORE)
    targets[0] = IGNORE
    given = np.zeros(length, np.float32)
    given[1 : 1 + unwanted] = 1.0
    return Encoded(name, ids, targets, np.zeros((length, 2), np.int32), {"given": given})


def _detached(stats: TokenStats) -> TokenStats:
    return _raised(stats, 0.0)


def _raised(stats: TokenStats, by: float) -> TokenStats:
    return TokenStats(
        logp=stats.logp.detach(),
        label_logit=stats.label_logit.detach() + by,
        lse=stats.lse.detach() + by,
        top1=stats.top1,
    )


def _rows(part: Batch | TokenStats, count: int) -> Batch | TokenStats:
    if isinstance(part, Batch):
        return Batch(part.input_ids[:count], part.targets[:count], part.attention_mask[:count], part.ids[:count])
    return TokenStats(
        logp=part.logp[:count], label_logit=part.label_logit[:count], lse=part.lse[:count], top1=part.top1[:count]
    )
