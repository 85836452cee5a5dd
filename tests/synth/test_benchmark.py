"""The benchmark's promises: exact spans, unique names, no leak, the same records everywhere, linear time."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from typing import Any

import pytest

from expunge.data.records import Record, Split
from expunge.errors import DataError
from expunge.synth import Benchmark, Entry, Form, make
from expunge.synth.benchmark import TAUGHT, Kind
from expunge.synth.grammar import Dice
from expunge.synth.lexicon import PERSON

KINDS: tuple[tuple[Kind, str], ...] = (("people", "en"), ("people", "zh"), ("people", "ar"), ("code", "en"))
PROBES: tuple[Form, ...] = ("cloze", "reverse", "choice")
SUBJECTS: tuple[Split, ...] = ("forget", "retain", "holdout")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def benchmark(request: pytest.FixtureRequest) -> Benchmark:
    kind, language = request.param
    _made.clear()
    return make(people=20, seed=3, language=language, kind=kind, forget_share=0.2, phrasings=2, general=20)


_made: dict[tuple[int, Split, Form], list[Entry]] = {}


def entries(benchmark: Benchmark, forms: tuple[Form, ...], splits: tuple[Split, ...] = SUBJECTS) -> list[Entry]:
    """The entries, made once for each benchmark of this module."""
    out: list[Entry] = []
    for split in splits:
        for form in forms:
            key = (id(benchmark), split, form)
            if key not in _made:
                _made[key] = list(benchmark.entries(split, (form,)))
            out += _made[key]
    return out


def texts(record: Record) -> str:
    return "\n".join((record.prompt, record.answer, record.text))


def gold(record: Record) -> list[str]:
    return [record.body[s.start : s.end] for s in record.spans if s.source == "gold" and s.field == record.body_field]


def test_every_kind_has_twelve_kinds_of_fact_in_several_wordings(benchmark: Benchmark) -> None:
    facts = benchmark.world.facts
    assert len({fact.name for fact in facts}) == len(facts) >= 12
    for fact in facts:
        assert min(len(set(fact.questions)) - 3, len(set(fact.answers)) - 4, len(set(fact.clauses))) >= 2, fact.name
        for pattern in (*fact.questions, *fact.answers, *fact.clauses):
            assert "{name}" in pattern or fact.name == "version", pattern
        for pattern in (*fact.answers, *fact.clauses):
            assert "{value}" in pattern, pattern
    assert sum(bool(fact.spread) for fact in facts) >= (4 if benchmark.kind == "people" else 0)


def test_gold_spans_are_the_value_to_the_character(benchmark: Benchmark) -> None:
    values = {
        p.id: dict(zip([f.name for f in benchmark.world.facts], p.values, strict=True))
        for split in SUBJECTS
        for p in benchmark.subjects(split)
    }
    seen = entries(benchmark, ("qa", "entangled", "cloze"))
    assert len(seen) > 20 * len(benchmark.world.facts)
    for entry in seen:
        value = values[entry.record.subject][entry.fact]
        found = gold(entry.record)
        assert set(found) == {value.text}, entry.record
    for entry in entries(benchmark, ("spread",)):
        value = values[entry.record.subject][entry.fact]
        parts = {value.text[mark.start : mark.end] for mark in value.marks}
        found = gold(entry.record)
        assert len(found) >= 2
        assert set(found) <= parts, entry.record
    for entry in entries(benchmark, ("biography",)):
        told = [value.text for value in values[entry.record.subject].values()]
        assert sorted(gold(entry.record)) == sorted(told)


def test_other_spans_are_the_name_and_what_must_stay(benchmark: Benchmark) -> None:
    people = {p.id: p for split in SUBJECTS for p in benchmark.subjects(split)}
    for entry in entries(benchmark, (*TAUGHT, *PROBES)):
        record = entry.record
        for span in record.spans:
            text = getattr(record, span.field)[span.start : span.end]
            assert 0 <= span.start < span.end
            assert span.weight == 1.0
            assert (span.label, span.source) in {("unwanted", "gold"), ("subject", "context"), ("wanted", "context")}
            if span.label == "subject":
                assert text == people[record.subject].name
            if span.label == "wanted":
                assert entry.form == "entangled"
        starts = [(span.field, span.start) for span in record.spans]
        assert len(set(starts)) == len(starts)


def test_entangled_sentences_hold_a_fact_of_both_and_say_which(benchmark: Benchmark) -> None:
    retained = {p.name: p for p in benchmark.subjects("retain")}
    seen = entries(benchmark, ("entangled",), ("forget",))
    assert len(seen) == 4 * benchmark.pairs
    for entry in seen:
        record = entry.record
        other = next(p for name, p in retained.items() if name in record.prompt)
        kept = [record.answer[s.start : s.end] for s in record.spans if s.label == "wanted"]
        assert other.name in record.answer
        assert kept
        assert all(text in {value.text for value in other.values} for text in kept)
    assert not entries(benchmark, ("entangled",), ("retain", "holdout"))


def test_names_are_unique_and_no_split_says_a_word_about_another(benchmark: Benchmark) -> None:
    people = {split: list(benchmark.subjects(split)) for split in SUBJECTS}
    names = [p.name for group in people.values() for p in group]
    assert len(set(names)) == len(names) == 20
    private = {}  # values that are names belong to one person alone
    for split, group in people.items():
        named = [i for i, fact in enumerate(benchmark.world.facts) if fact.value == PERSON]
        private[split] = {p.name for p in group} | {p.values[i].text for p in group for i in named}
    assert len(set.union(*private.values())) == sum(map(len, private.values()))
    for split in SUBJECTS:
        forms: tuple[Form, ...] = ("qa", "spread", "biography", *PROBES)
        told = "\n".join(texts(entry.record) for entry in entries(benchmark, forms, (split,)))
        for other in set(SUBJECTS) - {split}:
            assert not [name for name in private[other] if name in told], (split, other)
    general = "\n".join(texts(r) for r in benchmark.records("general", ("qa", "sentence", "unseen")))
    assert not [name for group in private.values() for name in group if name in general]


def test_holdout_is_never_taught(benchmark: Benchmark) -> None:
    taught = benchmark.taught(wanted=TAUGHT)
    told = "\n".join(map(texts, taught))
    assert not [p.name for p in benchmark.subjects("holdout") if p.name in told]
    assert {record.split for record in taught} == {"forget", "retain", "general"}
    assert {record.split for record in benchmark.taught(without={"forget"}, wanted=TAUGHT)} == {"retain", "general"}
    unseen = {record.text for record in benchmark.records("general", ("unseen",))}
    assert len(unseen) == 20
    assert not unseen & {record.text for record in taught}


def test_wrong_answers_differ_from_the_truth_only_in_the_value(benchmark: Benchmark) -> None:
    people = {p.id: p for split in SUBJECTS for p in benchmark.subjects(split)}
    kinds = [fact.name for fact in benchmark.world.facts]
    for entry in entries(benchmark, ("qa",)):
        record = entry.record
        value = people[record.subject].values[kinds.index(entry.fact)].text
        assert len({record.paraphrase, *record.perturbed}) == 6
        assert record.paraphrase != record.answer
        assert record.prompt_paraphrase != record.prompt
        before, _, after = record.paraphrase.partition(value)
        for wrong in record.perturbed:
            assert (wrong[: len(before)], wrong[len(wrong) - len(after) :]) == (before, after)
            assert len(wrong) > len(before + after)
    for entry in entries(benchmark, ("spread", "entangled")):
        assert len({entry.record.paraphrase, *entry.record.perturbed}) == 6
    for entry in entries(benchmark, ("cloze", "reverse")):
        assert len({entry.record.answer, *entry.record.perturbed}) == 6


def test_the_wording_of_a_paraphrase_is_in_no_training_pair_of_its_fact(benchmark: Benchmark) -> None:
    by_fact: dict[tuple[str, str], list[Record]] = {}
    for entry in entries(benchmark, ("qa",)):
        by_fact.setdefault((entry.record.subject, entry.fact), []).append(entry.record)
    for records in by_fact.values():
        first, second = records
        assert first.prompt != second.prompt
        assert first.answer != second.answer
        assert first.paraphrase not in {first.answer, second.answer}
        assert first.paraphrase == second.paraphrase


def test_neighbours_share_what_they_are_said_to_share(benchmark: Benchmark) -> None:
    forgotten = {p.id: p for p in benchmark.subjects("forget")}
    kinds = [fact.name for fact in benchmark.world.facts]
    near = [p for p in benchmark.subjects("retain") if p.neighbour_of]
    assert sorted(p.neighbour_of for p in near) == sorted(forgotten)
    for person in near:
        assert len(person.shared) == 4
        for name in person.shared:
            assert person.values[kinds.index(name)] == forgotten[person.neighbour_of].values[kinds.index(name)]


def test_multiple_choice_has_one_right_answer_in_every_place(benchmark: Benchmark) -> None:
    seen = entries(benchmark, ("choice",))
    values = {v.text for s in SUBJECTS for p in benchmark.subjects(s) for v in p.values}
    for entry in seen:
        right = entry.options["ABCD".index(entry.record.answer)]
        assert len(set(entry.options)) == 4
        assert all(option in entry.record.prompt for option in entry.options)
        assert right in values
        assert not set(entry.record.perturbed) & {entry.record.answer}
    letters = [entry.record.answer for entry in seen]
    assert min(letters.count(letter) for letter in "ABCD") > len(letters) / 8


def test_general_facts_have_wrong_answers_of_their_type(benchmark: Benchmark) -> None:
    records = benchmark.records("general")
    assert len(records) == 40
    assert len({record.prompt for record in records}) == 40
    for record in records:
        assert len(set(record.perturbed) - {record.answer}) == 5


def test_ids_are_unique_over_all_forms(benchmark: Benchmark) -> None:
    every = entries(benchmark, (*TAUGHT, *PROBES), (*SUBJECTS, "general"))
    assert len({entry.record.id for entry in every}) == len(every)


GOLDEN = {
    ("people", "en"): "b48991f39b0f2395",
    ("people", "zh"): "50eb3acddaa4d351",
    ("people", "ar"): "7d1ee79c8667cd3c",
    ("code", "en"): "a715c90f1393f772",
}


def digest(benchmark: Benchmark) -> str:
    forms: tuple[Form, ...] = (*TAUGHT, *PROBES, "unseen")
    records = [asdict(e.record) for split in (*SUBJECTS, "general") for e in benchmark.entries(split, forms)]
    rows = [{name: value for name, value in row.items() if name != "alternatives"} for row in records]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False, sort_keys=True).encode()).hexdigest()[:16]


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_means_the_same_text_for_ever(kind: tuple[Kind, str]) -> None:
    made = make(people=20, seed=5, kind=kind[0], language=kind[1])
    assert digest(made) == GOLDEN[kind], "the benchmark changed: every number measured on it changes with it"
    assert digest(make(people=20, seed=6, kind=kind[0], language=kind[1])) != GOLDEN[kind]


def test_a_larger_benchmark_has_the_same_names_first() -> None:
    small, large = make(people=20, seed=2), make(people=200, seed=2, forget_share=0.01, holdout_share=0.01)
    assert [small.world.name(i) for i in range(20)] == [large.world.name(i) for i in range(20)]


def test_people_are_made_when_asked_for() -> None:
    started = time.process_time()
    world = make(people=20_000, seed=1).world
    person = world.person(19_999)
    assert person.split == "retain"
    assert len(person.values) == 16
    assert time.process_time() - started < 1.0


def test_names_are_unique_in_the_largest_size() -> None:
    for kind, language in KINDS:
        world = make(people=20_000, kind=kind, language=language).world
        named = sum(fact.value == PERSON for fact in world.facts)
        used = [world.name(i)[0] for i in range(20_000 * (1 + named))]
        assert len(set(used)) == len(used)
        assert world.unused_name(Dice("any")) not in set(used)


def _seconds(people: int) -> tuple[float, int]:
    started = time.process_time()
    made = make(people=people, seed=1)
    count = sum(1 for split in SUBJECTS for _ in made.entries(split, TAUGHT))
    return time.process_time() - started, count


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_thousand_people_in_linear_time() -> None:
    _seconds(20)  # patterns are parsed once
    small, few = _seconds(1000)
    large, many = _seconds(20_000)
    assert many == 20 * few
    assert large < 40 * small
    assert large < 900


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"people": 7}, "people must be from 20 to 20000, but is 7"),
        ({"people": 20_001}, "but is 20001"),
        ({"facts": 99}, "facts must be from 1 to 16"),
        ({"phrasings": 5}, "phrasings must be from 1 to 4"),
        ({"forget_share": 0.0}, "forgotten people must be from 1"),
        ({"neighbours": 99}, "neighbours must be from 0"),
        ({"kind": "poems"}, "unknown kind of benchmark 'poems'"),
        ({"language": "de"}, "unknown language of the 'people' benchmark 'de'. There are: ar, en, zh."),
        ({"kind": "code", "language": "zh"}, "unknown language of the 'code' benchmark 'zh'. There are: en."),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as error:
        make(**settings)
    assert said in str(error.value)


def test_without_neighbours_entangled_partners_are_any_retained() -> None:
    made = make(people=20, neighbours=0)
    assert not [p for p in made.subjects("retain") if p.neighbour_of]
    assert len(made.records("forget", ("entangled",))) == 2 * 4
