"""Losses on hidden states, by hand: the distance to a random direction and to the reference, with weights."""

from __future__ import annotations

import math

import pytest
import torch

from expunge import registry
from expunge.core import Weights
from expunge.errors import MethodError
from expunge.objectives.representation import RMU, ActivationDistance
from expunge.testing import forward_from_states

STATES = [[1.0, 2.0], [3.0, -1.0], [0.0, 4.0]]
HELD = [[1.0, 0.0], [0.0, -1.0], [3.0, 0.0]]
# squared distances over D = 2: 4 / 2, 9 / 2, 25 / 2
APART = [2.0, 4.5, 12.5]


def weights(*values: float) -> Weights:
    value = torch.tensor([[*values, 0.0]])
    return Weights(value, torch.tensor([[True] * len(values) + [False]]))


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [((1.0, 1.0, 1.0), sum(APART) / 3), ((0.0, 2.0, 1.0), (2 * 4.5 + 12.5) / 3), ((0.0, 1.0, 0.0), 4.5)],
)
def test_the_weighted_mean_of_squared_distances(chosen: tuple[float, ...], expected: float) -> None:
    f = forward_from_states(ActivationDistance().place, STATES, HELD)
    loss = ActivationDistance()(f, weights(*chosen))
    assert float(loss.value / loss.count) == pytest.approx(expected)


def test_a_direction_is_uniform_scaled_to_its_length_and_depends_on_the_seed_alone() -> None:
    plain = torch.rand(5, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    found = RMU(steering_coeff=6.5, seed=3).target(5)
    torch.testing.assert_close(found, 6.5 * plain / plain.norm())
    assert float(found.norm()) == pytest.approx(6.5)
    assert (found >= 0).all()
    assert not torch.equal(RMU(seed=4).target(5), RMU(seed=3).target(5))


def test_rmu_is_the_distance_to_that_direction() -> None:
    """A state on it is at distance 0; one that stands at k times it is at (k - 1)^2 c^2 / D."""
    made = RMU(steering_coeff=3.0)
    target = made.target(2)
    f = forward_from_states(made.place, [target.tolist(), (4 * target).tolist()])
    assert float(made(f, weights(1.0, 1.0)).value) == pytest.approx(9 * 9 / 2 / 2)
    assert float(made(f, weights(1.0, 0.0)).value) == pytest.approx(0.0, abs=1e-10)


def test_broadcast_divides_every_sum_by_every_length() -> None:
    """Sums 2 + 4.5 and 12.5, lengths 2 and 1: mean of sums 9.5 times mean of inverse lengths 3 / 4."""
    one = forward_from_states(ActivationDistance().place, STATES, HELD)
    both = Weights(
        torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]),
        torch.tensor([[True, True, False, False], [False, False, True, False], [False] * 4]),
    )
    made = ActivationDistance(mean="broadcast")
    assert made.couples == "batch"
    assert ActivationDistance().couples == "sequence"
    loss = made(one, both)
    assert loss.count.tolist() == [1.0, 1.0, 0.0]
    assert float(loss.value.sum() / loss.count.sum()) == pytest.approx(9.5 * 0.75)
    plain = ActivationDistance()(one, both)
    assert float(plain.value.sum() / plain.count.sum()) == pytest.approx((6.5 / 2 + 12.5) / 2)


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ("rmu", (0.375, "own")), ("rmu:depth=0.5,at=before", (0.5, "before")), ("rmu:layer=7", (7, "own")),
        ("rmu:depth=1", (-1, "own")), ("rmu:layer=1", (1, "own")), ("activation:layer=-2", (-2, "own")),
    ],
)  # fmt: skip
def test_a_layer_is_named_by_index_or_by_depth(spec: str, place: tuple[float, str]) -> None:
    made = registry.build("objective", spec)
    assert made.needs.hidden == {place}
    assert [type(layer) for layer, _ in made.needs.hidden] == [type(place[0])]
    assert registry.build("objective", str(made)) == made


def test_wrong_settings_are_named() -> None:
    for spec in ("rmu:depth=1.5", "rmu:steering_coeff=0", "rmu:seed=-1", "rmu:mean=batch"):
        with pytest.raises(MethodError, match=spec.split(":")[1].split("=")[0]):
            registry.build("objective", spec)


def test_a_reference_of_another_width_is_refused() -> None:
    f = forward_from_states(ActivationDistance().place, [[1.0, 2.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(MethodError, match="the model's are 2 wide, the reference's 3"):
        ActivationDistance()(f, weights(1.0))


def test_distances_are_computed_in_float32_at_least() -> None:
    """In bfloat16 256 + 1 is 256, so a distance of 257 would lose its last unit."""
    f = forward_from_states(ActivationDistance().place, [[16.0, 1.0]], [[0.0, 0.0]])
    states = {place: rows.bfloat16() for place, rows in f.policy.hidden.items()}
    object.__setattr__(f.policy, "hidden", states)
    assert float(ActivationDistance()(f, weights(1.0)).value) == 257 / 2


def test_gradient_by_hand() -> None:
    """d/dh of w ||h - x||^2 / (D sum w) = 2 w (h - x) / (D sum w)."""
    f = forward_from_states(ActivationDistance().place, STATES, HELD)
    states = f.policy.hidden[0.375, "own"].requires_grad_()
    ActivationDistance()(f, weights(1.0, 0.0, 3.0)).value.sum().backward()
    assert states.grad is not None
    assert states.grad[0, :3].tolist() == [[0.0, 0.5], [0.0, 0.0], [-2.25, 3.0]]
    assert math.isclose(float(states.grad[0, 3].abs().sum()), 0.0)
