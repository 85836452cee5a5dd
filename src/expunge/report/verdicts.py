"""The verdict as the first screen says it: what the gate found of each run, or that there was no gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.report.collect import View, number

CLAIMS = {
    "suppression": "asked, it does not answer",
    "non-extraction": "it does not answer, and beginnings do not bring it back either",
    "indistinguishable": "it cannot be told from models that were retrained without the forget set",
}
"""What PASS says about a model."""
_CSS = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "undecided"}  # nosec B105 - a class name, no password
_NONE = "no gate was written before the run"


@dataclass(frozen=True)
class Finding:
    """One condition of a gate."""

    outcome: str
    condition: str
    reason: str


@dataclass(frozen=True)
class Said:
    """A run's verdict in words; `outcome` is '' and `findings` empty where there is none."""

    run: str
    outcome: str
    css: str
    text: str
    gate: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Verdicts:
    """The verdicts of the runs that are drawn, and one sentence on all of them where these are several."""

    runs: tuple[Said, ...]
    summary: str


def collect(drawn: Sequence[View], seen: Sequence[View]) -> Verdicts:
    """What is said of the runs that are drawn; the summary counts all that the page is about."""
    return Verdicts(tuple(map(said, drawn)), _summary([said(view).outcome for view in seen]))


def said(view: View) -> Said:
    """The verdict on one run."""
    found, gate = view.verdict, view.manifest.get("gate")
    outcome = str(found.get("outcome") or "")
    if outcome not in _CSS:
        why = "its gate was written before the run, and has not been applied yet" if gate else _NONE
        return Said(view.name, "", "none", f"No verdict: {why}.", "")
    findings = tuple(
        Finding(str(one.get("outcome")), str(one.get("condition")), str(one.get("reason")))
        for one in found.get("findings") or ()
        if isinstance(one, Mapping)
    )
    late = "The gate was given after the run: whoever set it may have seen the numbers."
    kept = "The gate was written before the run, and its hash was kept with it."
    return Said(
        view.name, outcome, _CSS[outcome], _told(outcome, found, findings), kept if found.get("registered") else late,
        findings,
    )  # fmt: skip


def _told(outcome: str, found: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """'Misses 1 of 3 conditions, each decided at 95 % confidence. The claim was: ...'."""
    total, of = len(findings), Counter(finding.outcome for finding in findings)
    confidence = number(found.get("confidence"))
    conditions = f"{total} condition{'' if total == 1 else 's'}"
    text = {
        "PASS": f"Meets {'its condition' if total == 1 else f'all {conditions}'}",
        "FAIL": f"Misses {of['FAIL']} of {conditions}",
        "INCONCLUSIVE": f"{of['INCONCLUSIVE']} of {conditions} undecided",
    }[outcome]
    sure = "" if confidence is None else f", each bound at {100 * confidence:g} % confidence"
    claim = str(found.get("claim") or "")
    meant = f" ({CLAIMS[claim]})" if claim in CLAIMS else ""
    return f"{text}{sure}. Claim: {claim}{meant}."


def _summary(outcomes: Sequence[str]) -> str:
    if len(outcomes) < 2:
        return ""
    counts = Counter(outcomes)
    if counts[""] == len(outcomes):
        return "No gate was written before these runs, so none of them has a verdict."
    told = [f"{counts[name]} {name}" for name in _CSS if counts[name]]
    without = [f"{counts['']} without a verdict"] if counts[""] else []
    return f"Of {len(outcomes)} runs: {', '.join(told + without)}."
