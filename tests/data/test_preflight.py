"""Every planted defect gives its finding and no other; clean data give none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from expunge.data.encode import Encoder
from expunge.data.load import load
from expunge.data.preflight import Finding, check, require
from expunge.data.records import Record, Span
from expunge.errors import DataError
from expunge.recipe import Source

Tokenizers = Mapping[str, PreTrainedTokenizerBase]
PLACES = (
    "Kuwait",
    "Karachi",
    "Taipei",
    "Zürich",
    "São Paulo",
    "Kraków",
    "Tokyo",
    "Baku",
    "Lima",
    "Oslo",
    "Rome",
    "Bern",
)


@dataclass
class Case:
    """Clean data that a defect is planted in."""

    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        everyone = [
            Record(
                f"r{i}", f"Where was person {i} born?", f"{place} is the place of birth, in the year {1950 + 7 * i}."
            )
            for i, place in enumerate(PLACES)
        ]
        self.forget, self.retain, self.holdout = everyone[:4], everyone[4:8], everyone[8:]

    def findings(self) -> list[Finding]:
        return check(self.forget, self.retain, self.holdout, Encoder(self.tokenizer, **self.settings))  # type: ignore[arg-type]


def no_forget(case: Case) -> None:
    case.forget = []


def same_in_both(case: Case) -> None:
    case.retain[1] = replace(case.forget[2], id="x", answer=case.forget[2].answer.upper().replace(" ", "  "))


def same_in_holdout(case: Case) -> None:
    case.holdout[0] = replace(case.retain[0], id="x")


def nearly_the_same(case: Case) -> None:
    long = " ".join(record.answer for record in case.forget)
    case.forget[1] = replace(case.forget[1], answer=long)
    case.retain[1] = replace(case.forget[1], id="x", answer=long.replace("1950", "1951"))


def twice(case: Case) -> None:
    case.retain.append(replace(case.retain[0], id="x"))


def all_cut_off(case: Case) -> None:
    case.forget = [replace(record, prompt=record.prompt + " so" * 300) for record in case.forget]


def one_cut_off(case: Case) -> None:
    case.forget[0] = replace(case.forget[0], prompt=case.forget[0].prompt + " so" * 300)


def cut_short(case: Case) -> None:
    case.retain[0] = replace(case.retain[0], answer=case.retain[0].answer + " so" * 300)


def blank(case: Case) -> None:
    case.forget[3] = replace(case.forget[3], answer="")


def one_without_span(case: Case) -> None:
    case.forget = [replace(r, spans=(Span("answer", 0, 3),)) if i else r for i, r in enumerate(case.forget)]


def span_of_nothing(case: Case) -> None:
    case.forget = [replace(r, spans=(Span("answer", 0, 3),)) for r in case.forget]
    space = case.forget[2].answer.index(" ")
    general = Span("answer", 0, 3, label="general")
    case.forget[2] = replace(case.forget[2], spans=(Span("answer", space, space + 1), general))


def other_template(case: Case) -> None:
    case.settings["template"] = "Q: {prompt} A: {answer}"


def dated(case: Case) -> None:
    case.tokenizer.chat_template = "{{ strftime_now('%d %b') }}" + str(case.tokenizer.chat_template)


def glued(case: Case) -> None:
    case.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    case.forget[0] = replace(case.forget[0], prompt="Say: Ku", answer="wait City is it.")


def special(case: Case) -> None:
    case.holdout[2] = replace(case.holdout[2], answer="Rome<|eos|> it is")


@pytest.mark.parametrize(
    ("plant", "name", "severity", "examples"),
    [
        (no_forget, "empty-forget", "error", ()),
        (same_in_both, "forget-in-retain", "error", ("r2",)),
        (same_in_holdout, "holdout-seen", "warning", ("x",)),
        (nearly_the_same, "near-duplicate", "warning", ("r1",)),
        (twice, "repeated", "warning", ("x",)),
        (all_cut_off, "all-cut-off", "error", ("r0", "r1", "r2", "r3")),
        (one_cut_off, "cut-off", "warning", ("r0",)),
        (cut_short, "truncated", "warning", ("r4",)),
        (blank, "nothing-scored", "warning", ("r3",)),
        (one_without_span, "no-span", "warning", ("r0",)),
        (span_of_nothing, "span-without-token", "warning", ("r2",)),
        (other_template, "template-mismatch", "warning", ()),
        (dated, "template-date", "warning", ()),
        (glued, "shared-token", "warning", ("r0",)),
        (special, "special-token", "warning", ("r10",)),
    ],
)
def test_a_planted_defect_gives_one_finding(
    plant: Callable[[Case], None], name: str, severity: str, examples: tuple[str, ...], tokenizers: Tokenizers
) -> None:
    template = tokenizers["chat"].chat_template
    case = Case(tokenizers["chat"])
    assert case.findings() == []
    try:
        plant(case)
        findings = case.findings()
    finally:
        tokenizers["chat"].chat_template = template  # type: ignore[assignment]
    assert [(f.name, f.severity, f.examples) for f in findings] == [(name, severity, examples)]
    assert findings[0].count == (len(examples) or (0 if name == "empty-forget" else 12))


def test_errors_stop_a_run_all_at_once(tokenizers: Tokenizers) -> None:
    case = Case(tokenizers["chat"])
    case.retain = [replace(record, id=f"x{record.id}") for record in case.forget]
    all_cut_off(case)
    case.retain[0] = replace(case.forget[0], id="x")
    twice(case)
    findings = case.findings()
    assert [f.severity for f in findings] == sorted(f.severity for f in findings)
    with pytest.raises(DataError) as error:
        require(findings)
    assert str(error.value).splitlines() == [
        "the data cannot be used:",
        "  forget-in-retain: 1 records are to be forgotten and to be kept. Take them out of the retain set (r0)",
        "  all-cut-off: every answer of the forget set lies beyond max_length 512. Raise data.max_length "
        "(r0, r1, r2, r3)",
    ]
    require([f for f in findings if f.severity == "warning"])
    require([])


def test_examples_are_few(tokenizers: Tokenizers) -> None:
    case = Case(tokenizers["chat"], {"max_length": 60})
    case.forget = [replace(r, answer=r.answer * 30) for r in (*case.forget, *case.retain)]
    case.retain = []
    (finding,) = case.findings()
    assert (finding.count, len(finding.examples)) == (8, 5)
    assert str(finding).endswith("(r0, r1, r2, r3, r4, ...)")


def test_tofu_is_clean(shared: Path) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(shared / "models/tiny-english"))
    folder = shared / "data/tofu"
    forget = load(Source(path=str(folder / "forget01.json")), "forget")
    retain = load(Source(path=str(folder / "retain95.json"), limit=400), "retain")
    holdout = load(Source(path=str(folder / "forget05.json"), limit=40), "holdout")
    assert check(forget, retain, holdout, encoder) == []


def many(name: str, sentence: str, count: int = 30) -> list[Record]:
    nouns = ("river", "harbour", "teacher", "garden", "winter", "letter", "bridge")
    return [
        Record(f"{name}{i}", f"Who is {name}{i}?", sentence.format(nouns[i % 7], f"{name}{i}x{i * i}"))
        for i in range(count)
    ]


def test_holdout_records_nearly_seen_and_probes_nearly_taught(tokenizers: Tokenizers) -> None:
    long = "The {0} of {1} lies at the end of a long road that nobody has taken since the year of the flood."
    forget, retain, holdout = (many(name, long, 2) for name in "fgh")
    encoder = Encoder(tokenizers["chat"])
    assert check(forget, retain, holdout, encoder, many("p", "What {0} is, {1} knows.", 2)) == []
    near = replace(retain[0], id="x", answer=retain[0].answer.replace("road", "path"))
    (finding,) = check(forget, retain, [*holdout, near], encoder)
    assert (finding.name, finding.examples) == ("holdout-near", ("x",))
    (finding,) = check(forget, retain, holdout, encoder, [near])
    assert (finding.name, finding.examples) == ("probe-near", ("x",))


def test_drift_in_length_and_in_words(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["chat"])
    forget, same = many("f", "The {0} of {1}."), many("h", "The {0} of {1}.")
    assert check(forget, [], same, encoder) == []
    longer = many("h", "The {0} of {1} the of the of the of the of the of the of.")
    assert [f.name for f in check(forget, [], longer, encoder)] == ["length-drift"]
    other = many("h", "Das {0} von {1}.")
    assert [f.name for f in check(forget, [], other, encoder)] == ["style-drift"]
