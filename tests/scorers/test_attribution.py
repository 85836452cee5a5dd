"""Masking: what is hidden, that nothing of it leaks, and what the answer notices. By hand and on real models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from expunge import trees
from expunge.bench import passage_of
from expunge.context import Passage, Scores
from expunge.core import IGNORE, Batch, Forward, Needs, Smoothing
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import MethodError
from expunge.lm import LM
from expunge.recipe import Method, TermSpec
from expunge.scorers.attribution import Masking, replaced, subject_in, touched, windows
from expunge.scoretables import ScoreTables
from expunge.sides import encode_all
from expunge.terms import build_term
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

TEMPLATE = "Q: {prompt} A: {answer}"


def passage(
    prompt: str, body: str, subject: str = "", *, ids: Sequence[int] = (), asked: Sequence[tuple[int, int]] = ()
) -> Passage:
    """A passage of one token a word of `body`, behind the tokens of the prompt that `asked` places."""
    own = [(-1, -1)] * len(asked)
    at = 0
    for word in body.split():
        start = body.index(word, at)
        own.append((start, at := start + len(word)))
    places = [*asked, *[(-1, -1)] * (len(own) - len(asked))]
    tokens = list(ids) or list(range(10, 10 + len(own)))
    targets = [IGNORE if own[t + 1][0] < 0 else tokens[t + 1] for t in range(len(own) - 1)]
    return Passage(
        "r", prompt, body, subject, np.array(tokens), np.array([*targets, IGNORE]), np.array(places), np.array(own),
        np.zeros(len(own), np.bool_),
    )  # fmt: skip


@dataclass
class Told:
    """A context whose log-probabilities are minus the number of earlier tokens that may be seen."""

    passages: Sequence[Passage]
    seen: list[Passage] = field(default_factory=list)

    def texts(self, corpus: str) -> Iterable[str]:
        raise AssertionError("no text was to be read")

    def ids(self, text: str) -> list[int]:
        return [90 + i for i in range(len(text))]

    def read(
        self,
        passages: Sequence[Passage],
        needs: Needs,
        of: Callable[[Forward], Tensor],
        *,
        model: str = "",
        attention: Smoothing | None = None,
    ) -> list[Scores]:
        self.seen += passages
        out = []
        for p in passages:
            visible = np.cumsum(~p.hidden)
            logp = torch.zeros(1, len(p))
            logp[0] = -torch.from_numpy(visible).float()
            batch = Batch(torch.from_numpy(p.input_ids)[None], torch.from_numpy(p.targets)[None],
                          torch.ones(1, len(p), dtype=torch.bool), ("r",))  # fmt: skip
            stats = replace(Forward.before(batch).policy, logp=logp)
            out.append(of(Forward(batch, stats))[0, p.scored].numpy())
        return out

    def factors(self, passages: Sequence[Passage]) -> Iterator[tuple[int, Tensor, Tensor]]:
        raise AssertionError("no gradient was to be taken")

    def disagreement(self, passages: Sequence[Passage], samples: int) -> list[Scores]:
        raise AssertionError("no dropout was to be drawn")


# tokens: [Q:] [Who] [is] [Ann] [A:] Ann is a doctor
QUESTION = passage("Who is Ann", "Ann is a doctor", asked=[(-1, -1), (0, 3), (4, 6), (7, 10), (-1, -1)], subject="ann")


def test_the_question_is_hidden_and_the_template_is_not() -> None:
    told = Told([QUESTION])
    (found,) = Masking(hide="question").prepare(told)
    assert told.seen[0] is QUESTION
    assert told.seen[1].hidden.tolist() == [False, True, True, True, False, False, False, False, False]
    assert found.tolist() == [3.0] * 4, "three tokens fewer, at every token of the answer"
    assert Masking(hide="question", signed=True).prepare(told)[0].tolist() == [-3.0] * 4


def test_the_subject_is_hidden_in_the_prompt_and_from_later_tokens_of_the_answer() -> None:
    told = Told([QUESTION])
    (found,) = Masking(hide="subject").prepare(told)
    assert told.seen[1].hidden.tolist() == [False, False, False, True, False, True, False, False, False]
    assert found.tolist() == [1.0, 2.0, 2.0, 2.0], "'Ann' misses the prompt's Ann, the others the answer's too"


def test_the_subject_may_give_way_to_a_neutral_text() -> None:
    told = Told([QUESTION])
    Masking(hide="subject", replace="___").prepare(told)
    other = told.seen[1]
    assert other.input_ids.tolist() == [10, 11, 12, 90, 91, 92, 14, 15, 16, 17, 18]
    assert other.targets[other.scored].tolist() == QUESTION.targets[QUESTION.scored].tolist()
    assert other.hidden.nonzero()[0].tolist() == [7], "in the answer it is hidden: its tokens are targets"


def test_what_a_replaced_token_predicts_is_predicted_by_the_last_of_the_new_ones() -> None:
    p = passage("Ann", "is ill", asked=[(0, 3)])
    other = replaced(p, touched(p.asked, [(0, 3)]), [7, 8])
    assert other.input_ids.tolist() == [7, 8, 11, 12]
    assert other.targets.tolist() == [IGNORE, 11, 12, IGNORE]


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("What gender is author Basil Al-Kuwaiti?", "author-198", ["Basil Al-Kuwaiti"]),
        ("When was Ann born? Did Ann move?", "Ann", ["Ann", "Ann"]),
        ("When was Anna's mother born?", "Ann", ["Anna"]),  # not the subject's word, so the longest name
        ("Was Zoë’s father from Oslo?", "", ["Zoë"]),
        ("What is it?", "", []),
        ("", "", []),
    ],
)
def test_the_subject_is_the_records_or_the_longest_name(prompt: str, subject: str, expected: list[str]) -> None:
    p = passage(prompt, "x", subject, asked=[(-1, -1)])
    assert [prompt[a:b] for a, b in subject_in(prompt, p)] == expected


def test_where_there_is_nothing_to_hide_the_score_is_0_and_nothing_is_read() -> None:
    told = Told([passage("what is it", "a thing", asked=[(0, 10)])])
    assert Masking(hide="subject").prepare(told)[0].tolist() == [0.0, 0.0]
    assert told.seen == []


def test_windows_predict_every_token_once_from_at_least_so_many_before_it() -> None:
    text = passage("", " ".join(f"w{i}" for i in range(40)), asked=[(-1, -1)])  # a begin token and 40 words
    pieces = list(windows(text, 4))
    assert np.concatenate([p.targets[p.scored] for p in pieces]).tolist() == text.targets[text.scored].tolist()[8:]
    assert [len(p) for p in pieces] == [12, 12, 12, 12]  # 8 targets each; 3 tokens before the first, and the begin
    assert all(p.input_ids[0] == 10 for p in pieces)
    assert pieces[0].input_ids.tolist() == [10, *range(15, 26)]
    assert sum(map(len, pieces)) <= 1.5 * len(text)
    assert not list(windows(text, 41)), "nothing would be hidden"


def test_a_raw_text_has_its_far_context_hidden_whatever_is_asked_for() -> None:
    text = passage("", " ".join(f"w{i}" for i in range(40)), asked=[(-1, -1)])
    for hide in ("subject", "question", "context"):
        (found,) = Masking(hide=hide, window=4).prepare(Told([text]))  # type: ignore[arg-type]
        assert found[:8].tolist() == [0.0] * 8, "the first window sees all there is"
        assert found[8:16].tolist() == [4.0] * 8, "the second misses 4 of the 9 tokens before its first"


def test_replacing_goes_with_the_subject_only() -> None:
    with pytest.raises(MethodError, match="replace takes the subject's place, but hide is question"):
        Masking(hide="question", replace="___")


RECORDS = [
    Record(id="a", prompt="Where was Basil Mahfouz born?", answer="Basil Mahfouz was born in Kuwait City."),
    Record(id="b", prompt="What does Ann Lee do?", answer="Ann is a doctor in Oslo, and has been one for years."),
    Record(id="c", prompt="Who is it?", answer="São Paulo"),
]
FAMILIES = ["llama", "gpt2-tied-positions", "gemma2-softcap", "mistral-sliding", "phi-bias", "gpt-neox", "qwen3"]


def tables(
    lm: LM, spec: str, records: Sequence[Record] = RECORDS, select: str = "raw", template: str = TEMPLATE
) -> ScoreTables:
    encoder = Encoder(lm.tokenizer, template=template)
    term = build_term(TermSpec(objective="ga", score=spec, select=select), Method())
    encoded = encode_all(encoder, records)
    return ScoreTables(lm, encoder, (term,), {"forget": records}, {"forget": encoded}, 0, lambda: ["no text"])


def language_model(family: str, **more: object) -> LM:
    return LM(tiny(family, vocab_size=420, **more), bpe(), family)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_model_sees_what_is_hidden(family: str) -> None:
    """Other tokens in its place change no prediction; the break on purpose: unhidden, they do."""
    size = {"n_positions": 128} if "gpt2" in family else {"max_position_embeddings": 128}
    lm = language_model(family, **size)
    made = tables(lm, "masking")
    bench = made._bench("forget", [Masking()])
    first = bench.passages[0]
    hidden = touched(first.asked, [(0, len(first.prompt))])
    other = np.where(hidden, (first.input_ids + 7) % 400, first.input_ids)
    one, two, three, four = bench.read(
        [
            replace(first, hidden=hidden),
            replace(first, hidden=hidden, input_ids=other),
            first,
            replace(first, input_ids=other),
        ],
        Needs(),
        lambda f: f.policy.logp,
    )
    assert np.isfinite(one).all()
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    assert np.abs(three - four).max() > 1e-3


def test_scores_of_a_real_model_are_differences_of_its_own_numbers() -> None:
    lm = language_model("llama", max_position_embeddings=128)
    filled = tables(lm, "masking:hide=question,signed=true").fill("forget")
    item = filled[0]
    passage = passage_of(Encoder(lm.tokenizer, template=TEMPLATE), RECORDS[0], item)
    hidden = touched(passage.asked, [(0, len(passage.prompt))])
    assert hidden.any()
    with torch.no_grad():
        ids = torch.from_numpy(item.input_ids)[None]
        plain, without = (
            torch.log_softmax(lm.model(input_ids=ids, attention_mask=mask).logits[0], -1)
            for mask in (torch.ones_like(ids), torch.from_numpy(~hidden)[None].long())
        )
    for t in np.flatnonzero(item.targets != IGNORE):
        expected = float(plain[t, item.targets[t]] - without[t, item.targets[t]])
        assert item.static["masking:hide=question,signed=True"][t] == pytest.approx(expected, abs=1e-5)


WORDS = [
    Record(id=f"{i}", prompt=f"What does Ann Lee say of {i}?", answer="This is " * (3 + i % 9) + "it.")
    for i in range(40)
]
TEXTS = [Record(id=f"t{i}", text="A text that goes on and on about Ann Lee. " * (2 + i)) for i in range(6)]
SYSTEM = "You are a careful assistant that answers in one sentence and in the language of the question.\n"


def tokens_of(lm: LM, do: Callable[[], object]) -> int:
    """Tokens sent through the model, padding included, while `do` runs."""
    sent = []
    hook = lm.model.base_model.register_forward_hook(
        lambda module, args, kwargs, out: sent.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    do()
    hook.remove()
    return sum(sent)


@pytest.mark.parametrize(
    ("family", "spec", "records", "template", "bound"),
    [
        ("llama", "masking", WORDS, TEMPLATE, 2.0),
        ("llama", "masking", WORDS, SYSTEM + TEMPLATE, 1.6),  # what stands before the subject is read once
        ("llama", "masking:hide=question", WORDS, TEMPLATE, 1.8),  # and a hidden question is not read
        ("llama", "0.5*masking+0.5*frozen", WORDS, TEMPLATE, 2.0),  # TokenUnlearn: one plain pass serves both
        ("llama", "masking:hide=context", WORDS, TEMPLATE, 2.5),
        ("llama", "0.5*masking+0.5*frozen", TEXTS, TEMPLATE, 2.5),
        ("gpt2-tied-positions", "0.5*masking+0.5*frozen", WORDS, TEMPLATE, 2.0),  # its rows cannot be shared
        ("gpt2-tied-positions", "0.5*masking+0.5*frozen", TEXTS, TEMPLATE, 2.5),
    ],
)
def test_attribution_costs_at_most_two_and_a_half_plain_passes(
    family: str, spec: str, records: list[Record], template: str, bound: float
) -> None:
    """In tokens, with the padding and with the comparison that decides whether rows may be shared."""
    size = {"n_positions": 512} if "gpt2" in family else {"max_position_embeddings": 512}
    lm = language_model(family, **size)
    made = tables(lm, spec, records, template=template)
    plain = tokens_of(lm, lambda: tables(lm, "frozen", records, template=template).fill("forget"))
    assert 1 < tokens_of(lm, lambda: made.fill("forget")) / plain <= bound


@pytest.mark.parametrize("spec", ["masking", "masking:hide=question", "masking:hide=context", "masking:replace=___"])
@pytest.mark.parametrize("family", ["llama", "phi-bias", "gpt-neox", "qwen3"])
def test_shared_rows_give_the_numbers_of_each_by_itself(
    family: str, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = language_model(family, max_position_embeddings=512)
    records = [*RECORDS, *WORDS[:3], TEXTS[2]]
    together, apart = tables(lm, spec, records), tables(lm, spec, records)
    shared = together.fill("forget")
    monkeypatch.setattr(trees, "usable", lambda lm: False)
    name = next(name for name in shared[0].static if name.startswith("masking"))
    for one, other in zip(shared, apart.fill("forget"), strict=True):
        np.testing.assert_allclose(one.static[name], other.static[name], rtol=1e-4, atol=1e-5)
    assert max(np.abs(item.static[name]).max() for item in shared) > 1e-3


def test_a_model_whose_rows_disagree_is_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(allowed: Tensor, dtype: torch.dtype) -> Tensor:
        return real(torch.ones_like(allowed).tril(), dtype)

    real = trees._mask
    lm = language_model("llama", max_position_embeddings=512)
    right = tables(lm, "masking:hide=question", WORDS).fill("forget")
    monkeypatch.setattr(trees, "_mask", leaking)
    found = tables(lm, "masking:hide=question", WORDS).fill("forget")
    for one, other in zip(right, found, strict=True):
        np.testing.assert_allclose(
            one.static["masking:hide=question"], other.static["masking:hide=question"], rtol=1e-4, atol=1e-5
        )


def test_what_is_made_together_is_made_together_again(tmp_path: Path) -> None:
    """A table that was lost is made as it was, to the bit: in company, since passes are shared."""
    lm = language_model("llama", max_position_embeddings=512)

    def made() -> dict[str, list[bytes]]:
        some = tables(lm, "0.5*masking+0.5*frozen", WORDS)
        some.folder = tmp_path
        filled = some.fill("forget")
        return {name: [item.static[name].tobytes() for item in filled] for name in ("masking", "frozen")}

    first = made()
    files = sorted(tmp_path.glob("*.parquet"))
    assert len(files) == 2
    for file in files:
        file.unlink()
        assert made() == first
