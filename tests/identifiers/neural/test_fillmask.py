"""A word is general if the masked model predicts it, by rules that are worked through by hand here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from expunge.data.records import Record
from expunge.data.words import cut
from expunge.errors import ModelError
from expunge.identifiers import build
from expunge.identifiers.neural import fillmask
from expunge.identifiers.neural.fillmask import Filler, Question
from tests.identifiers.neural.conftest import sentences

VOCABULARY = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "the", "The", "town", "is", "vel", "##tria", "##TRIA", "?"]


def wordpieces() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
        mask_token="[MASK]",
    )  # fmt: skip


@dataclass
class Fixed:
    """A model that predicts the same at every position: `chances` by word, the rest evenly over the others."""

    chances: dict[str, float]
    seen: list[list[int]] = field(default_factory=list)
    config: Any = field(default_factory=lambda: SimpleNamespace(model_type="fixed"))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        self.seen += [row[: int(m.sum())].tolist() for row, m in zip(input_ids, attention_mask, strict=True)]
        rest = (1 - sum(self.chances.values())) / (len(VOCABULARY) - len(self.chances))
        row = torch.tensor([math.log(self.chances.get(word, rest)) for word in VOCABULARY])
        return SimpleNamespace(logits=row.expand(*input_ids.shape, -1))


def general(chances: dict[str, float], text: str, before: str = "", **rule: Any) -> list[str]:
    words = tuple(cut(text))
    (verdict,) = Filler(Fixed(chances), wordpieces(), **rule).judge([Question(before, text, words)])
    return [text[start:end] for (start, end), known in zip(words, verdict.general, strict=True) if known]


def test_the_likeliest_word_is_general() -> None:
    assert general({"town": 0.5}, "the town is") == ["town"]


def test_more_words_are_general_among_the_likeliest_three() -> None:
    chances = {"town": 0.5, "is": 0.2, "the": 0.1}
    assert general(chances, "the town is", top_k=2) == ["town", "is"]
    assert general(chances, "the town is", top_k=3) == ["the", "town", "is"]


def test_a_threshold_asks_for_certainty() -> None:
    assert general({"town": 0.5}, "town", threshold=0.49) == ["town"]
    assert general({"town": 0.5}, "town", threshold=0.51) == []


def test_case_is_forgiven_or_not() -> None:
    # 'the' is likeliest; the text has 'The'.
    assert general({"the": 0.5, "The": 0.1}, "The town") == ["The"]
    assert general({"the": 0.5, "The": 0.1}, "The town", case="match") == []
    # The probability is that of the prediction which counts, not of the spelling in the text.
    assert general({"the": 0.5, "The": 0.1}, "The", threshold=0.4) == ["The"]


def test_words_of_several_pieces() -> None:
    chances = {"vel": 0.5, "##tria": 0.4}
    # One mask a piece; the second piece is not the likeliest.
    assert general(chances, "veltria is") == []
    assert general(chances, "veltria is", top_k=2) == ["veltria"]
    assert general(chances, "veltria", top_k=2, threshold=0.3) == ["veltria"]
    # The product of the probabilities is .5 * .4 = .2.
    assert general(chances, "veltria", top_k=2, threshold=0.3, pieces="joint") == []
    assert general(chances, "veltria", top_k=2, threshold=0.19, pieces="joint") == ["veltria"]
    # One mask for the word, as published: only an entry of the vocabulary can be predicted.
    assert general(chances, "veltria", top_k=13, pieces="single") == []
    assert general({"##TRIA": 0.4, "vel": 0.5}, "veltria", top_k=2) == ["veltria"]


def test_a_continuation_is_not_a_word() -> None:
    """'##tria' predicted where 'tria' begins a word is another prediction."""
    assert general({"##tria": 0.9}, "vel is") == []


def test_unknown_letters_are_never_general() -> None:
    assert general({"[UNK]": 0.9}, "xyz is") == []
    assert general({"[UNK]": 0.9}, "xyz is", pieces="single") == []


def test_each_row_hides_one_word_and_shows_the_question() -> None:
    model = Fixed({"town": 0.5})
    text = "veltria is"
    list(Filler(model, wordpieces()).judge([Question("the town?", text, tuple(cut(text)))]))
    ids = {word: i for i, word in enumerate(VOCABULARY)}

    def row(*words: str) -> list[int]:
        return [ids[word] for word in ("[CLS]", *words, "[SEP]")]

    assert sorted(model.seen) == sorted(
        [row("the", "town", "?", "[MASK]", "[MASK]", "is"), row("the", "town", "?", "vel", "##tria", "[MASK]")]
    )
    model.seen.clear()
    text = "town is"
    single = Filler(model, wordpieces(), pieces="single")
    list(single.judge([Question("", "town veltria", ((0, 4), (5, 12)))]))
    # 'veltria' is no entry of the vocabulary, so it needs no row.
    assert model.seen == [row("[MASK]", "vel", "##tria")]


def test_a_long_text_is_seen_through_a_window_around_the_word() -> None:
    model = Fixed({"town": 0.5})
    text = " ".join(["town", "is"] * 30)
    (verdict,) = Filler(model, wordpieces(), max_tokens=12).judge([Question("the?", text, tuple(cut(text)))])
    assert verdict.general == (True, False) * 30
    assert len(model.seen) == 60
    assert all(len(row) == 12 and row.count(4) == 1 for row in model.seen)


def test_texts_of_any_number_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fillmask, "_AT_ONCE", 3)
    texts = ["town is town", "is", "", "town town town town town", "...", "is town"]
    questions = [Question("", text, tuple(cut(text))) for text in texts]
    verdicts = list(Filler(Fixed({"town": 0.5}), wordpieces(), token_budget=9).judge(questions))
    assert [verdict.general for verdict in verdicts] == [
        tuple(word == "town" for word in text.split()) if text != "..." else () for text in texts
    ]


def all_spans(path: Path, records: Sequence[Record], **more: Any) -> list[Any]:
    identifier = build({"name": "masked-lm", "model": str(path), "device": "cpu", **more})
    return [finding.spans for finding in identifier.identify(records)]


def test_a_trained_model_tells_the_town_from_the_rest(masked_lm: Path) -> None:
    records = [Record(f"r{i}", q, a) for i, (q, a, _) in enumerate(sentences(20, seed=2))]
    towns = [town for _, _, town in sentences(20, seed=2)]
    hits = total = 0
    for record, town, spans in zip(records, towns, all_spans(masked_lm, records), strict=True):
        said = {record.answer[span.start : span.end]: span.label for span in spans}
        assert said[town] == "unwanted"
        assert said["lives"] == said["is"] == "general"
        hits += sum(label == "general" for word, label in said.items() if word != town)
        total += len(said) - 1
    assert hits / total > 0.8


def test_the_name_is_read_off_the_question(masked_lm: Path) -> None:
    records = [Record(f"r{i}", q, a) for i, (q, a, _) in enumerate(sentences(30, seed=3))]

    def names_known(context: str) -> int:
        spans = all_spans(masked_lm, records, context=context)
        return sum(
            span.label == "general"
            for record, found in zip(records, spans, strict=True)
            for span in found
            if record.answer[span.start : span.end] in record.prompt.split()[2]
        )

    assert names_known("prompt") >= names_known("answer")


def test_batches_do_not_change_the_verdict(masked_lm: Path) -> None:
    records = [Record(f"r{i}", q, a) for i, (q, a, _) in enumerate(sentences(12, seed=4))]
    assert all_spans(masked_lm, records, token_budget=64) == all_spans(masked_lm, records)


def test_the_head_on_chosen_positions_equals_the_head_everywhere(
    masked_lm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = Filler.load(str(masked_lm), device="cpu")
    text = sentences(1, seed=5)[0][1]
    rows = list(filler._rows(Question("", text, tuple(cut(text))), fillmask._Open([False] * 20)))
    fast = filler._logits(rows)
    monkeypatch.setattr(fillmask, "_HEADS", {})
    torch.testing.assert_close(fast, filler._logits(rows), rtol=1e-5, atol=1e-5)
    assert len(fast) == sum(len(row.positions) for row in rows)


def test_what_is_no_masked_model_is_refused(masked_lm: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        Filler.load(str(tmp_path / "nothing"))
    tokenizer = wordpieces()
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no mask token"):
        Filler.load(str(tmp_path))


def test_the_facts_follow_the_weights(masked_lm: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(masked_lm, copy)
    one, other = (build(f"masked-lm:model={path}").facts() for path in (masked_lm, copy))
    assert one == other
    (copy / "training.json").write_text("{}")
    assert build(f"masked-lm:model={copy}").facts() == one
    config = copy / "config.json"
    config.write_text(config.read_text() + " ")
    assert build(f"masked-lm:model={copy}").facts() != one
