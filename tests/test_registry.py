"""Spec text and objects: grammar, suggestions, checks, plugins."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from expunge import registry
from expunge.errors import MethodError
from expunge.objectives.preference import NPO, SimNPO
from expunge.scorers.mix import Mix
from expunge.scorers.uncertainty import Confidence, Entropy
from expunge.weighting.chain import Chain
from expunge.weighting.selection import Threshold, Top


def test_a_spec_becomes_the_method_with_its_settings() -> None:
    assert registry.build("objective", "npo:beta=0.5") == NPO(beta=0.5)
    assert registry.build("objective", {"name": "simnpo", "beta": 2, "delta": "0.4"}) == SimNPO(beta=2.0, delta=0.4)
    assert registry.build("selector", " top : r = 0.5 ") == Top(r=0.5)
    assert registry.build("scorer", "entropy:") == Entropy()


def test_defaults_are_left_out_of_the_text() -> None:
    assert str(NPO()) == "npo"
    assert str(SimNPO(beta=4.5, delta=1)) == "simnpo:delta=1.0"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.5*confidence+0.5*entropy", ((0.5, Confidence()), (0.5, Entropy()))),  # a name that ends with e
        ("confidence+entropy", ((1.0, Confidence()), (1.0, Entropy()))),
        ("0.5*entropy:temperature=2.0+0.5*confidence", ((0.5, Entropy(2.0)), (0.5, Confidence()))),
        ("1e+1*entropy + 1e-05 * confidence:beta=1e+16", ((10.0, Entropy()), (1e-05, Confidence(1e16)))),
        ("-.5*entropy+2.*confidence", ((-0.5, Entropy()), (2.0, Confidence()))),
        ("2*entropy", ((2.0, Entropy()),)),
    ],
)
def test_scores_add(text: str, parts: tuple[tuple[float, Any], ...]) -> None:
    made = registry.build("scorer", text)
    assert made == Mix(parts)
    assert registry.build("scorer", str(made)) == made


def test_selectors_chain() -> None:
    made = registry.build("selector", "threshold:k=0.5>top:r=0.1")
    assert made == Chain((Threshold(k=0.5), Top(r=0.1)))
    assert str(made) == "threshold:k=0.5 > top:r=0.1"


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("objective", "npoo", "unknown objective 'npoo'. Did you mean: npo"),
        ("scorer", "0.5*entrpy+0.5*confidence", "unknown scorer 'entrpy'. Did you mean: entropy"),
        ("selector", "zzz", "unknown selector 'zzz'. There are: expand, fill, "),
        ("objective", "npo:bta=1", "unknown setting of objective 'npo' 'bta'. Did you mean: beta"),
        ("objective", "npo:beta", "objective 'npo:beta': expected key=value after ':', found 'beta'"),
        ("objective", "npo:beta=x", "objective 'npo': beta: .*valid number.* \\(got 'x'\\)"),
        ("objective", "npo:beta=-1", "objective 'npo': beta: .*greater than 0 \\(got '-1'\\)"),
        ("selector", "top:r=1.5", "selector 'top': r: .*less than or equal to 1"),
        ("selector", "raw:r=1", "selector 'raw' has no settings; found 'r'"),
        ("scorer", "", "empty scorer spec"),
        ("objective", {"beta": 1}, "needs the key 'name'; found \\['beta'\\]"),
        ("objective", "kl:direction=sideways", "objective 'kl': direction: .*'forward' or 'reverse'"),
        ("objective", "kl:positions=all,reduction=sum", "positions=all is a mean over positions"),
        ("scorer", "inf*entropy", "unknown scorer"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(kind: registry.Kind, spec: registry.Spec, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        registry.build(kind, spec)


def test_constructors_check_too_and_convert() -> None:
    assert isinstance(NPO(beta=1).beta, float)
    with pytest.raises(MethodError, match="objective 'npo': beta"):
        NPO(beta=0)
    with pytest.raises(MethodError, match="finite"):
        SimNPO(delta=float("nan"))
    assert dataclasses.replace(NPO(), beta="0.3") == NPO(beta=0.3)  # type: ignore[arg-type]


PLUGIN = '''
from dataclasses import dataclass
from expunge.core import NOTHING
from expunge.registry import method

@method("scorer", "plugged")
@dataclass(frozen=True)
class Plugged:
    """1 where the token is the first of its answer."""

    how: str
    note: str = "none"

    @property
    def needs(self):
        return NOTHING

    def __call__(self, forward, state):
        return (forward.mask.cumsum(-1) == 1) * forward.mask.float()
'''


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "_METHODS", {kind: dict(known) for kind, known in registry._METHODS.items()})
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    registry.load_plugin(file)
    return file


def test_a_plugin_adds_a_method(plugged: Path) -> None:
    assert "plugged" in registry.names("scorer")
    made = registry.build("scorer", "plugged:how=first")
    assert str(made) == "plugged:how=first"
    registry.load_plugin(plugged)  # a second time is no error


@pytest.mark.parametrize("text", ["a+b > c", 'say "no", now', " edges ", "1e+5", "", "x=y", "a:b"])
def test_text_settings_come_back_as_they_were(plugged: Path, text: str) -> None:
    made = registry.build("scorer", {"name": "plugged", "how": text})
    assert registry.build("scorer", str(made)) == made
    assert registry.build("scorer", f"0.5*{made}+0.5*entropy").parts[0] == (0.5, made)


def test_a_setting_without_default_must_be_given(plugged: Path) -> None:
    with pytest.raises(MethodError, match=r"scorer 'plugged' needs the setting 'how': write plugged:how=..."):
        registry.build("scorer", "plugged")


def test_two_modules_cannot_define_the_same_method(plugged: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(PLUGIN)
    with pytest.raises(MethodError, match="scorer 'plugged' is defined twice"):
        registry.load_plugin(other)


def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="is not a file"):
        registry.load_plugin(tmp_path / "none.py")
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(MethodError, match="is not a Python file"):
        registry.load_plugin(tmp_path / "text.txt")


def test_a_method_must_be_a_frozen_dataclass() -> None:
    with pytest.raises(TypeError, match="must be a frozen dataclass"):
        registry.method("scorer", "loose")(type("Loose", (), {}))
