"""What the model is taught beside the subjects: general facts near and far, and plain sentences."""

from __future__ import annotations

from collections.abc import Iterator

from expunge.data.records import Record
from expunge.synth.forms import Entry
from expunge.synth.grammar import Dice, render
from expunge.synth.lexicon import Topic
from expunge.synth.world import WRONG, World


def facts(world: World, near: bool, count: int) -> Iterator[Entry]:
    """At most `count` questions with short answers: about the subjects' towns (`near`) or about the wide world."""
    every = [(t, i) for t in world.lexicon.topics if t.near == near for i in range(len(_things(world, t)))]
    for k in Dice(world.seed, "general", int(near)).order(len(every))[:count]:
        topic, i = every[k]
        yield _fact(world, topic, i)


def _things(world: World, topic: Topic) -> tuple[str, ...]:
    return tuple(thing for thing, _ in topic.pairs) if topic.pairs else world.lists[topic.things]


def _fact(world: World, topic: Topic, index: int) -> Entry:
    dice = Dice(world.seed, "topic", topic.name, index)
    thing = _things(world, topic)[index]
    if topic.pairs:
        others = tuple(dict.fromkeys(value for _, value in topic.pairs))
        value = topic.pairs[index][1]
        wrong = [others[i] for i in dice.order(len(others)) if others[i] != value][:WRONG]
    else:
        value = render(topic.value, dice, world.lists).text
        drawn: dict[str, None] = {}
        while len(drawn) < WRONG:
            other = render(topic.value, dice, world.lists).text
            if other != value:
                drawn[other] = None
        wrong = list(drawn)
    asks = dice.order(len(topic.questions))
    questions = [world.sentence(render(topic.questions[i], dice, world.lists, {"subject": thing}).text) for i in asks]
    record = Record(
        id=f"general-{topic.name}-{index:03d}",
        prompt=questions[0],
        answer=value,
        split="general",
        subject=topic.name,
        prompt_paraphrase=questions[-1],
        perturbed=tuple(wrong),
    )
    return Entry(record, "qa", topic.name)


def sentences(world: World, count: int) -> tuple[list[Entry], list[Entry]]:
    """`count` plain sentences to be taught and as many others, never to be trained on; no two are the same."""
    dice = Dice(world.seed, "sentences")
    found: dict[str, None] = {}
    while len(found) < 2 * count:
        found[world.sentence(render(dice.pick(world.lexicon.sentences), dice, world.lists).text)] = None
    records = [
        Record(id=f"general-sentence-{k:05d}", text=text, split="general", subject="language")
        for k, text in enumerate(found)
    ]
    taught = [Entry(record, "sentence") for record in records[:count]]
    return taught, [Entry(record, "unseen") for record in records[count:]]
