"""How predictable the wording around the facts is: a bigram model and a first-word rule, tried on unseen subjects.

If structure words were free (the same after every first word), any score that follows a model's surprise would find the
facts, and a benchmark could not tell a good score from a trivial one.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from expunge.data.records import Record

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")
"""Words; single characters where a script sets no spaces."""
_FOLDS = 5


@dataclass(frozen=True)
class Sentence:
    """An answer as words; `structure[i]`: the i-th is a word outside every span, without capitals.

    `gold[i]`: it belongs to an unwanted span; `asked[i]`: it stands in the question too. `group` is left out of
    training together; `context` is what the rules may know beside the words (the kind of fact); `template` names the
    pattern that the answer was made from, where known; `opening` is the first word in lower case, or "_" if in a span.
    """

    words: tuple[str, ...]
    structure: tuple[bool, ...]
    group: str
    context: str = ""
    template: str = ""
    opening: str = ""
    gold: tuple[bool, ...] = ()
    asked: tuple[bool, ...] = ()

    @property
    def skeleton(self) -> tuple[str, ...]:
        """The words with everything that is not structure replaced by a gap."""
        return tuple(word if kept else "_" for word, kept in zip(self.words, self.structure, strict=True))


@dataclass(frozen=True)
class Variety:
    """Shares in [0, 1], bits per word. Every number is of sentences whose subjects the rule had not seen.

    `bigram_top1`, `bigram_bits`: structure words that are the likeliest after the word before, and their mean
    surprise. `first_word`: answers whose template is the commonest one after their first word (and of their kind of
    fact); `no_word`: the same without knowing the first word. `first_word_whole`: answers whose whole wording around
    the facts the first word tells. `skeletons`: different whole wordings per answer. `frequency_auc`: how well rare
    words tell the words of the facts from all others (0.5 is chance), and `novel_auc`, rare words that the question
    does not contain: what any cleverer score has to beat; NaN without spans.
    """

    answers: int
    words: float
    structure_share: float
    bigram_top1: float
    bigram_bits: float
    first_word: float
    no_word: float
    first_word_whole: float
    skeletons: float
    frequency_auc: float
    novel_auc: float


def sentence(record: Record, context: str = "", template: str = "") -> Sentence:
    """The answer (or text) of a record as words, with its spans as non-structure."""
    field = "text" if record.text else "answer"
    spans = [span for span in record.spans if span.field == field]
    question = {word.lower() for word in _WORD.findall(record.prompt)}
    words: list[str] = []
    structure: list[bool] = []
    gold: list[bool] = []
    opening = ""
    for match in _WORD.finditer(record.text or record.answer):
        labels = {span.label for span in spans if span.start < match.end() and match.start() < span.end}
        word = match.group()
        opening = opening or ("_" if labels else word.lower())
        words.append(word)
        structure.append(not labels and word.isalpha() and word == word.lower())
        gold.append("unwanted" in labels)
    asked = tuple(word.lower() in question for word in words)
    return Sentence(tuple(words), tuple(structure), record.subject, context, template, opening, tuple(gold), asked)


def measure(sentences: Sequence[Sentence], by_context: bool = False) -> Variety:
    """What a bigram model and a first-word rule can predict, by cross-validation over groups; `by_context`: one bigram
    model for each context."""
    groups = {group: k % _FOLDS for k, group in enumerate(dict.fromkeys(s.group for s in sentences))}
    hits = bits = counted = 0.0
    rules = [0, 0, 0]
    ranked: list[tuple[float, float, bool]] = []
    for fold in range(_FOLDS):
        seen = [s for s in sentences if groups[s.group] != fold]
        unseen = [s for s in sentences if groups[s.group] == fold]
        hit, bit, n = _bigram(seen, unseen, by_context)
        hits, bits, counted = hits + hit, bits + bit, counted + n
        for k, (first, whole) in enumerate(((True, False), (False, False), (True, True))):
            rules[k] += _agree(seen, unseen, first, whole)
        ranked += _surprise(seen, unseen)
    total, words = len(sentences), sum(len(s.words) for s in sentences)
    return Variety(
        answers=total,
        words=words / total,
        structure_share=counted / words,
        bigram_top1=hits / max(counted, 1),
        bigram_bits=bits / max(counted, 1),
        first_word=rules[0] / total,
        no_word=rules[1] / total,
        first_word_whole=rules[2] / total,
        skeletons=len({s.skeleton for s in sentences}) / total,
        frequency_auc=_auc((rare, gold) for rare, _, gold in ranked),
        novel_auc=_auc((new, gold) for _, new, gold in ranked),
    )


def _pairs(item: Sentence, by_context: bool) -> Iterable[tuple[tuple[str, str], str, bool]]:
    before = "<start>"
    for word, kept in zip(item.words, item.structure, strict=True):
        yield (item.context if by_context else "", before), word, kept
        before = word


def _bigram(seen: Sequence[Sentence], unseen: Sequence[Sentence], by_context: bool) -> tuple[float, float, float]:
    """Top-1 hits, bits and number of structure words; probabilities mix bigram and unigram (Witten-Bell)."""
    after: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    alone: Counter[str] = Counter()
    for item in seen:
        for key, word, _ in _pairs(item, by_context):
            after[key][word] += 1
            alone[word] += 1
    best = {key: _likeliest(counts) for key, counts in after.items()}
    sums = {key: sum(counts.values()) for key, counts in after.items()}
    total, floor = sum(alone.values()), 1.0 / (len(alone) + 1)
    hits = bits = n = 0.0
    for item in unseen:
        for key, word, kept in _pairs(item, by_context):
            if not kept:
                continue
            counts: Mapping[str, int] = after.get(key, Counter())
            single = (alone[word] + len(alone) * floor) / (total + len(alone))
            types, mass = len(counts), sums.get(key, 0)
            p = (counts.get(word, 0) + types * single) / (mass + types) if mass else single
            hits += best.get(key) == word
            bits -= math.log2(p)
            n += 1
    return hits, bits, n


def _agree(seen: Sequence[Sentence], unseen: Sequence[Sentence], first: bool, whole: bool) -> int:
    """Answers of `unseen` whose template (or whole wording) is the commonest of `seen` under what the rule knows."""
    tables: defaultdict[Hashable, Counter[str]] = defaultdict(Counter)
    for item in seen:
        tables[item.context, item.opening if first else ""][" ".join(item.skeleton) if whole else item.template] += 1
    best = {key: _likeliest(counts) for key, counts in tables.items()}
    return sum(
        best.get((item.context, item.opening if first else "")) == (" ".join(item.skeleton) if whole else item.template)
        for item in unseen
    )


def _likeliest(counts: Counter[str]) -> str:
    """The commonest item; the first in alphabetical order among equals."""
    return min(counts, key=lambda item: (-counts[item], item))


def _surprise(seen: Sequence[Sentence], unseen: Sequence[Sentence]) -> list[tuple[float, float, bool]]:
    """Of every word of `unseen`: how rare it is in `seen`, the same but 0 if it was asked, and whether it is gold."""
    counts = Counter(word.lower() for item in seen for word in item.words)
    return [
        (rare := -float(counts[word.lower()]), -math.inf if asked else rare, gold)
        for item in unseen
        for word, gold, asked in zip(item.words, item.gold, item.asked, strict=True)
        if word[0].isalnum()
    ]


def _auc(scored: Iterable[tuple[float, bool]]) -> float:
    """P(a gold word scores higher than another), ties half: the area under the ROC curve."""
    blocks: defaultdict[float, list[int]] = defaultdict(lambda: [0, 0])
    for score, gold in scored:
        blocks[score][gold] += 1
    below = hits = golds = 0.0
    for score in sorted(blocks):
        others, gold_here = blocks[score]
        hits += gold_here * (below + others / 2)
        below, golds = below + others, golds + gold_here
    return hits / (golds * below) if golds and below else math.nan
