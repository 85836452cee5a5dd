"""The facts as text: question and answer, several sentences, biography, entangled pair, and the probes.

Every function gives records whose spans are known from how the text was put together, never searched for. Source
`gold`, label `unwanted`: the words that carry the knowledge of the record's subject. Source `context`: label `wanted`,
words that carry somebody else's (in an entangled pair), and label `subject`, the subject's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from expunge.data.records import Field, Record, Span
from expunge.synth.grammar import Dice, Mark, Marked, Piece, choose, fill, join, render, text_of
from expunge.synth.lexicon import Fact
from expunge.synth.world import Person, World

Form = Literal["qa", "spread", "biography", "entangled", "cloze", "reverse", "choice", "sentence", "unseen"]

_LABELS = {"value": ("unwanted", "gold"), "other": ("wanted", "context"), "name": ("subject", "context")}


@dataclass(frozen=True)
class Entry:
    """A record with its form and its kind of fact ('' where it is about several).

    `template`: the pattern its answer was made from; of a multiple choice the question alone, whose `options` follow.
    """

    record: Record
    form: Form
    fact: str = ""
    template: str = ""
    options: tuple[str, ...] = ()


def spans(marked: Marked, field: Field) -> tuple[Span, ...]:
    """The spans of one field, from left to right."""
    found = []
    for mark in marked.marks:
        slot = mark.slot.partition(".")[0]
        if slot in _LABELS:
            label, source = _LABELS[slot]
            found.append(Span(field, mark.start, mark.end, 1.0, label, source))
    return tuple(sorted(found, key=lambda span: (span.start, span.end)))


def _slots(person: Person, value: Marked) -> dict[str, Marked | str]:
    slots: dict[str, Marked | str] = {"name": person.name, "value": value.text}
    for mark in value.marks:
        slots[f"value.{mark.slot}"] = value.text[mark.start : mark.end]
    return slots


def _dice(world: World, person: Person, *key: str | int) -> Dice:
    return Dice(world.seed, "text", person.index, *key)


def _text(world: World, pattern: str, dice: Dice, person: Person, value: Marked) -> Marked:
    return _capital(world, render(pattern, dice, world.lists, _slots(person, value), person.gender))


def _capital(world: World, marked: Marked) -> Marked:
    return Marked(world.sentence(marked.text), marked.marks)


def _answers(world: World, pieces: Sequence[Piece], person: Person, values: Iterable[Marked]) -> tuple[str, ...]:
    """The same settled sentence with each of `values`."""
    return tuple(world.sentence(text_of(pieces, _slots(person, value))) for value in values)


def _record(entry_id: str, person: Person, prompt: Marked, answer: Marked) -> Record:
    return Record(
        id=f"{person.split}-{person.id}-{entry_id}",
        prompt=prompt.text,
        answer=answer.text,
        split=person.split,
        subject=person.id,
        spans=spans(prompt, "prompt") + spans(answer, "answer"),
    )


def qa(world: World, person: Person, phrasings: int) -> Iterator[Entry]:
    """Each fact in `phrasings` questions and answers. Paraphrases have a wording that none of these has."""
    for fact, value in zip(world.facts, person.values, strict=True):
        dice = _dice(world, person, "qa", fact.name)
        asks, tells = dice.order(len(fact.questions)), dice.order(len(fact.answers))
        pieces = choose(fact.answers[tells[-1]], dice, world.lists, person.gender)
        paraphrase = _answers(world, pieces, person, [value])[0]
        perturbed = _answers(world, pieces, person, world.wrong(fact, value, dice))
        reworded = _text(world, fact.questions[asks[-1]], dice, person, value).text
        for k in range(phrasings):
            record = _record(
                f"{fact.name}-qa{k}",
                person,
                _text(world, fact.questions[asks[k]], dice, person, value),
                _text(world, fact.answers[tells[k]], dice, person, value),
            )
            record = replace(record, paraphrase=paraphrase, prompt_paraphrase=reworded, perturbed=perturbed)
            yield Entry(record, "qa", fact.name, fact.answers[tells[k]])


def spread(world: World, person: Person) -> Iterator[Entry]:
    """Facts with parts, told in several sentences that only together say it."""
    for fact, value in zip(world.facts, person.values, strict=True):
        if not fact.spread:
            continue
        dice = _dice(world, person, "spread", fact.name)
        asks, tells = dice.order(len(fact.about)), dice.order(len(fact.spread))
        prompt = _text(world, fact.about[asks[0]], dice, person, value)
        answer = _text(world, fact.spread[tells[0]], dice, person, value)
        pieces = choose(fact.spread[tells[-1]], dice, world.lists, person.gender)
        record = replace(
            _record(f"{fact.name}-spread", person, prompt, answer),
            paraphrase=_answers(world, pieces, person, [value])[0],
            prompt_paraphrase=_text(world, fact.about[asks[-1]], dice, person, value).text,
            perturbed=_answers(world, pieces, person, world.wrong(fact, value, dice)),
        )
        yield Entry(record, "spread", fact.name, fact.spread[tells[0]])


def biography(world: World, person: Person) -> Iterator[Entry]:
    """One running text with every fact in a sentence, in an order of its own."""
    dice = _dice(world, person, "biography")
    sentences = []
    opening = render(dice.pick(world.lexicon.opening), dice, world.lists, {"name": person.name}, person.gender)
    if opening.text:
        sentences.append(opening)
    for place, i in enumerate(dice.order(len(world.facts))):
        pronoun = dice.pick(world.lexicon.pronouns) if place and world.lexicon.pronouns else "{name}"
        named = render(pronoun, dice, world.lists, {"name": person.name}, person.gender).text
        clause = choose(dice.pick(world.facts[i].clauses), dice, world.lists, person.gender)
        sentence = fill(clause, {**_slots(person, person.values[i]), "name": named})
        kept = tuple(m for m in sentence.marks if m.slot != "name" or sentence.text[m.start : m.end] == person.name)
        sentences.append(_capital(world, Marked(sentence.text + world.lexicon.stop, kept)))
    text = join(sentences, world.lexicon.separator)
    record = Record(
        id=f"{person.split}-{person.id}-biography",
        text=text.text,
        split=person.split,
        subject=person.id,
        spans=spans(text, "text"),
    )
    yield Entry(record, "biography")


def entangled(world: World, person: Person, count: int) -> Iterator[Entry]:
    """Sentences with a fact of this forgotten person and one of a retained person, a neighbour if there is one."""
    dice = _dice(world, person, "entangled")
    near, retained = world.neighbour_numbers(person.index), world.numbers("retain")
    other = world.person(near[0] if near else retained[dice.below(len(retained))])
    mine = [i for i in dice.order(len(world.facts)) if world.facts[i].name not in other.shared][:count]
    theirs = [i for i in dice.order(len(world.facts)) if world.facts[i].name not in other.shared][:count]
    for k, (i, j) in enumerate(zip(mine, theirs, strict=True)):
        fact, value = world.facts[i], person.values[i]
        asks, tells = dice.order(len(world.lexicon.pair_question)), dice.order(len(world.lexicon.pair))
        both = _Pair(world, dice, person, fact, other, world.facts[j], other.values[j])
        wordings = both.tell(world.lexicon.pair[tells[-1]], [value, *world.wrong(fact, value, dice)])
        answer = both.tell(world.lexicon.pair[tells[0]], [value])[0]
        record = replace(
            _record(f"{fact.name}-entangled{k}", person, both.ask(world.lexicon.pair_question[asks[0]]), answer),
            paraphrase=wordings[0].text,
            prompt_paraphrase=both.ask(world.lexicon.pair_question[asks[-1]]).text,
            perturbed=tuple(wording.text for wording in wordings[1:]),
        )
        yield Entry(record, "entangled", fact.name, world.lexicon.pair[tells[0]])


@dataclass(frozen=True)
class _Pair:
    """A fact of `person` beside a fact of `other`."""

    world: World
    dice: Dice
    person: Person
    fact: Fact
    other: Person
    known: Fact
    value: Marked

    def ask(self, pattern: str) -> Marked:
        names = {"name": self.person.name, "other": self.other.name}
        asked = render(pattern, self.dice, self.world.lists, names, self.person.gender)
        return Marked(asked.text, tuple(mark for mark in asked.marks if mark.slot == "name"))

    def tell(self, pattern: str, values: Sequence[Marked]) -> list[Marked]:
        """One wording of both facts, with each of `values` for the person's own."""
        dice, lists = self.dice, self.world.lists
        clause = choose(dice.pick(self.fact.clauses), dice, lists, self.person.gender)
        fixed = fill(
            choose(dice.pick(self.known.clauses), dice, lists, self.other.gender), _slots(self.other, self.value)
        )
        fixed = Marked(fixed.text, tuple(m._replace(slot="other") for m in fixed.marks if m.slot == "value"))
        leads = dice.below(2) == 0
        pair = choose(pattern, dice, lists, self.other.gender if leads else self.person.gender)
        out = []
        for each in values:
            own = fill(clause, _slots(self.person, each))
            first, second = (own, fixed) if leads else (fixed, own)
            out.append(_capital(self.world, fill(pair, {"first": first, "second": second, "name": self.person.name})))
        return out


def cloze(world: World, person: Person) -> Iterator[Entry]:
    """Sentences that break off before the value."""
    for fact, value in zip(world.facts, person.values, strict=True):
        clauses = [clause for clause in fact.clauses if clause.rstrip('"»》').endswith("{value}")]
        if not clauses:
            continue
        dice = _dice(world, person, "cloze", fact.name)
        clause = fill(choose(dice.pick(clauses), dice, world.lists, person.gender), _slots(person, value))
        start = clause.ranges("value")[-1][0]
        open_text = Marked(clause.text[:start].rstrip(), tuple(m for m in clause.marks if m.end <= start))
        prompt = render(dice.pick(world.lexicon.cloze), dice, world.lists, {"text": open_text}, person.gender)
        answer = Marked(value.text, (Mark("value", 0, len(value.text)),))
        record = _record(f"{fact.name}-cloze", person, prompt, answer)
        wrong = tuple(w.text for w in world.wrong(fact, value, dice))
        yield Entry(replace(record, perturbed=wrong), "cloze", fact.name)


def reverse(world: World, person: Person) -> Iterator[Entry]:
    """Questions from the value to the name, for values that one person has."""
    for fact, value in zip(world.facts, person.values, strict=True):
        if not fact.reverse:
            continue
        dice = _dice(world, person, "reverse", fact.name)
        prompt = render(dice.pick(fact.reverse), dice, world.lists, {"value": Marked(value.text)}, person.gender)
        asked = Marked(prompt.text, tuple(mark for mark in prompt.marks if mark.slot == "value"))
        answer = Marked(person.name, (Mark("value", 0, len(person.name)),))
        wrong: dict[str, None] = {}
        while len(wrong) < 5:
            wrong[world.unused_name(dice)] = None
        record = replace(_record(f"{fact.name}-reverse", person, asked, answer), perturbed=tuple(wrong))
        yield Entry(record, "reverse", fact.name)


def choice(world: World, person: Person) -> Iterator[Entry]:
    """Multiple choice of four, the right letter in any place."""
    letters = ("A", "B", "C", "D")
    for fact, value in zip(world.facts, person.values, strict=True):
        dice = _dice(world, person, "choice", fact.name)
        question = _text(world, dice.pick(fact.questions), dice, person, value)
        options = [value.text, *(w.text for w in world.wrong(fact, value, dice, 3))]
        order = dice.order(4)
        shown = tuple(options[i] for i in order)
        slots: dict[str, Marked | str] = {
            "question": question,
            **dict(zip(("one", "two", "three", "four"), shown, strict=True)),
        }
        prompt = render(dice.pick(world.lexicon.choice), dice, world.lists, slots, person.gender)
        gold = letters[order.index(0)]
        record = _record(f"{fact.name}-choice", person, prompt, Marked(gold, (Mark("value", 0, 1),)))
        record = replace(record, perturbed=tuple(letter for letter in letters if letter != gold))
        yield Entry(record, "choice", fact.name, question.text, shown)
