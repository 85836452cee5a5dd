"""Which tokens are scored, and which a span selects, on tokenizers of every family."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from expunge.data.encode import Encoded, Encoder, static_names
from expunge.data.records import Record, Span
from expunge.errors import DataError
from expunge.recipe import Data
from tests.fixtures.tokenizers import CORPUS, MAKERS

Tokenizers = Mapping[str, PreTrainedTokenizerBase]
EXACT = ("bpe", "bpe-prefix", "spm-bytes", "llama2", "chat", "chat-plain")
"""Tokenizers without a lossy normaliser: the bytes of their pieces, joined, are the text."""


def pieces(encoder: Encoder, encoded: Encoded) -> list[str]:
    return encoder.tokenizer.convert_ids_to_tokens(encoded.input_ids.tolist())


def scored(encoder: Encoder, encoded: Encoded) -> list[str]:
    """The pieces of the targets."""
    return encoder.tokenizer.convert_ids_to_tokens(encoded.targets[encoded.targets != -100].tolist())


def selected(encoded: Encoded, answer: str, name: str = "given") -> list[str]:
    """The characters of each selected token."""
    return [answer[s:e] for (s, e), w in zip(encoded.offsets, encoded.static[name], strict=True) if w > 0]


def unwanted(start: int, end: int, **more: object) -> Span:
    return replace(Span("answer", start, end), **more)


@pytest.mark.parametrize("name", MAKERS)
def test_targets_are_the_next_ids_of_the_answer_alone(name: str, tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers[name])
    encoded = encoder.encode(Record("r", "Where was she born?", "She was born in Kuwait City."))
    on = encoded.targets != -100
    assert encoded.targets[-1] == -100
    assert (encoded.targets[:-1][on[:-1]] == encoded.input_ids[1:][on[:-1]]).all()
    assert (np.diff(np.flatnonzero(on)) == 1).all()
    start, end = encoded.offsets[on].T
    assert (start[0], end[-2], tuple(encoded.offsets[on][-1])) == (0, 28, (-1, -1))
    assert (encoded.offsets[~on] == -1).all()
    assert not encoded.truncated


@pytest.mark.parametrize("name", MAKERS)
def test_an_answer_that_occurs_in_the_prompt_is_located_behind_it(name: str, tokenizers: Tokenizers) -> None:
    record = Record("r", "Kuwait City? Answer: Kuwait City", "Kuwait City", spans=(unwanted(7, 11),))
    encoded = Encoder(tokenizers[name], score_eos=False).encode(record)
    first = int(np.flatnonzero(encoded.targets != -100)[0])
    assert first > len(encoded.input_ids) // 2
    assert "".join(selected(encoded, record.answer)).strip() == "City"


def test_leading_space_belongs_to_the_token_and_the_template(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["bpe"])
    encoded = encoder.encode(Record("r", "Who?", "Kuwait City"))
    assert scored(encoder, encoded) == ["ĠKuwait", "ĠCity", "<|eos|>"]
    assert encoded.offsets[encoded.targets != -100].tolist() == [[0, 6], [6, 11], [-1, -1]]


def test_a_prefix_space_that_the_tokenizer_puts_in_is_scored_and_never_selected(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["llama2"], template="<|user|>{prompt}<|assistant|>{answer}")
    encoded = encoder.encode(Record("r", "Who?", "京是", spans=(unwanted(0, 1),)))
    assert scored(encoder, encoded)[0] == "▁"
    on = encoded.targets != -100
    assert encoded.offsets[on][0].tolist() == [0, 0]
    assert encoded.static["given"][on][0] == 0
    assert set(selected(encoded, "京是")) == {"京"}


def test_the_end_of_turn_is_scored_and_nothing_behind_it(tokenizers: Tokenizers) -> None:
    record = Record("r", "Who?", "Kuwait City")
    with_end, without = Encoder(tokenizers["chat-plain"]), Encoder(tokenizers["chat-plain"], score_eos=False)
    assert scored(with_end, with_end.encode(record))[-1] == "<|end|>"
    assert pieces(with_end, with_end.encode(record))[-1] == "Ċ"
    assert scored(without, without.encode(record))[-1] == "ĠCity"
    assert with_end.encode(record).scored == without.encode(record).scored + 1


def test_text_templates_write_the_end_token_once(tokenizers: Tokenizers) -> None:
    record = Record("r", "Who?", "City")
    for template in ("Q: {prompt} A: {answer}", "Q: {prompt} A: {answer}{eos}", "Q: {prompt} A: {answer}<|eos|>"):
        encoder = Encoder(tokenizers["bpe"], template=template)
        assert pieces(encoder, encoder.encode(record)).count("<|eos|>") == 1
    encoder = Encoder(tokenizers["bpe"], template="{prompt}: {answer}\n\n")
    assert pieces(encoder, encoder.encode(record))[-3:] == ["Ċ", "Ċ", "<|eos|>"]
    assert scored(encoder, encoder.encode(record)) == ["ĠCity", "<|eos|>"]
    encoder = Encoder(tokenizers["chat"], template="{prompt}: {answer}<|end|>")
    assert pieces(encoder, encoder.encode(record))[-1] == "<|end|>"


def test_text_templates_write_the_begin_token_once(tokenizers: Tokenizers) -> None:
    record = Record("r", "Who?", "City")
    for template in ("{prompt} {answer}", "{bos}{prompt} {answer}", "<|bos|>{prompt} {answer}"):
        encoder = Encoder(tokenizers["llama2"], template=template)
        assert pieces(encoder, encoder.encode(record)).count("<|bos|>") == 1


def test_raw_text_is_scored_whole(tokenizers: Tokenizers) -> None:
    text = "Kuwait City"
    encoder = Encoder(tokenizers["llama2"])
    encoded = encoder.encode(Record("r", text=text, spans=(Span("text", 7, 11),)))
    assert pieces(encoder, encoded) == ["<|bos|>", *scored(encoder, encoded)]
    assert scored(encoder, encoded)[-1] == "<|eos|>"
    assert "".join(selected(encoded, text)).strip() == "City"
    part = encoder.encode(Record("r", text=text, continues=True))
    assert pieces(encoder, part)[-1] != "<|eos|>"
    assert part.input_ids.tolist() == encoded.input_ids[:-1].tolist()


def test_truncation_cuts_and_says_so(tokenizers: Tokenizers) -> None:
    record = Record("r", "Where was she born?", "in Kuwait City", spans=(unwanted(10, 14),))
    whole = Encoder(tokenizers["bpe"]).encode(record)
    cut = Encoder(tokenizers["bpe"], max_length=len(whole) - 1).encode(record)
    assert cut.truncated
    assert cut.scored == whole.scored - 1
    assert cut.targets[-1] == -100
    assert cut.offsets[-1].tolist() == [-1, -1]
    assert selected(cut, record.answer) == [" City"]
    assert not Encoder(tokenizers["bpe"], max_length=len(whole)).encode(record).truncated
    gone = Encoder(tokenizers["bpe"], max_length=5).encode(record)
    assert (gone.scored, gone.truncated, len(gone)) == (0, True, 5)
    assert gone.static["given"].tolist() == [0.0] * 5


def test_cutting_only_what_is_not_scored_is_no_truncation(tokenizers: Tokenizers) -> None:
    record = Record("r", "Who?", "City")
    length = len(Encoder(tokenizers["chat-plain"]).encode(record))
    assert not Encoder(tokenizers["chat-plain"], max_length=length - 1).encode(record).truncated
    assert Encoder(tokenizers["chat-plain"], max_length=length - 2).encode(record).truncated


def test_boundary_any_and_all(tokenizers: Tokenizers) -> None:
    record = Record("r", "Where?", "in Kuwait City.", spans=(unwanted(4, 14),))
    assert selected(Encoder(tokenizers["bpe"]).encode(record), record.answer) == [" Kuwait", " City"]
    assert selected(Encoder(tokenizers["bpe"], boundary="all").encode(record), record.answer) == [" City"]


@pytest.mark.parametrize("boundary", ["any", "all"])
@pytest.mark.parametrize("name", MAKERS)
def test_exact_where_boundaries_coincide(name: str, boundary: str, tokenizers: Tokenizers) -> None:
    record = Record("r", "Where?", "born in Kuwait City on", spans=(unwanted(8, 19),))
    encoder = Encoder(tokenizers[name], boundary=boundary)  # type: ignore[arg-type]
    tokens = selected(encoder.encode(record), record.answer)
    assert "".join(tokens).replace(" ", "") == "KuwaitCity"


def test_a_token_takes_the_greatest_weight_and_kinds_stay_apart(tokenizers: Tokenizers) -> None:
    spans = (
        unwanted(0, 6, weight=0.25),
        unwanted(3, 6, weight=0.75),
        unwanted(7, 11, source="gold"),
        unwanted(0, 11, label="general"),
        Span("prompt", 0, 2),
    )
    encoded = Encoder(tokenizers["bpe"], score_eos=False).encode(Record("r", "Who?", "Kuwait City", spans=spans))
    on = encoded.targets != -100
    assert encoded.static["given"][on].tolist() == [0.75, 0.0]
    assert encoded.static["gold"][on].tolist() == [0.0, 1.0]


def test_static_names_are_present_where_asked(tokenizers: Tokenizers) -> None:
    plain, marked = Record("a", "Who?", "City"), Record("b", "Who?", "City", spans=(unwanted(0, 4, source="gold"),))
    encoder = Encoder(tokenizers["bpe"])
    assert static_names([plain]) == ()
    assert static_names([plain, marked]) == ("given@gold", "gold")
    assert encoder.encode(plain).static == {}
    assert encoder.encode(plain, static_names=["gold"]).static["gold"].sum() == 0
    with pytest.raises(DataError, match=r"no static score 'golden'. There are: gold, given"):
        encoder.encode(plain, static_names=["golden"])


def test_another_answer_replaces_text_and_drops_spans(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["chat"])
    record = Record("r", "Who?", "Kuwait City", spans=(unwanted(0, 6),))
    other = encoder.encode(record, answer="a book")
    assert other.input_ids.tolist() == encoder.encode(replace(record, answer="a book", spans=())).input_ids.tolist()
    assert other.static == {}


def test_prompt_ids_are_what_stands_in_front_of_the_answer(tokenizers: Tokenizers) -> None:
    record = Record("r", "Where was she born?", "Kuwait City")
    for name, tokenizer in tokenizers.items():
        encoder = Encoder(tokenizer)
        encoded, prompt = encoder.encode(record), encoder.prompt_ids(record)
        assert encoded.input_ids[: len(prompt)].tolist() == prompt, name
        assert encoded.targets[len(prompt) - 1] != -100, name
        bare = encoder.prompt_ids(replace(record, answer=""))
        assert prompt in (bare, [*bare, prompt[-1]]), name
    short = Encoder(tokenizers["llama2"], max_length=6)
    assert short.prompt_ids(record) == [prompt_begin(short), *Encoder(tokenizers["llama2"]).prompt_ids(record)[-5:]]
    with pytest.raises(DataError, match="record 'r' is raw text"):
        short.prompt_ids(Record("r", text="abc"))


def prompt_begin(encoder: Encoder) -> int:
    begin = encoder.tokenizer.bos_token_id
    assert isinstance(begin, int)
    return begin


def test_the_recipe_decides(tokenizers: Tokenizers) -> None:
    data = Data(template="{prompt} {answer}", max_length=7, score_eos=False, boundary="all", system_prompt=None)
    encoder = Encoder.from_recipe(tokenizers["chat"], data)
    assert (encoder.template, encoder.max_length, encoder.score_eos, encoder.boundary) == (
        "{prompt} {answer}",
        7,
        False,
        "all",
    )
    assert not encoder.uses_chat_template
    assert Encoder.from_recipe(tokenizers["chat"], Data()).uses_chat_template
    assert not Encoder.from_recipe(tokenizers["bpe"], Data()).uses_chat_template


def test_a_span_outside_of_the_answer_names_the_record(tokenizers: Tokenizers) -> None:
    with pytest.raises(DataError, match=r"record 'r7': span 2:9 is outside of its answer, which has 4 characters"):
        Encoder(tokenizers["bpe"]).encode(Record("r7", "Who?", "City", spans=(unwanted(2, 9),)))


def test_half_a_surrogate_pair_names_the_record(tokenizers: Tokenizers) -> None:
    with pytest.raises(DataError, match=r"record 'r7'.*character 2 is half of a surrogate pair \(U\+D800\)"):
        Encoder(tokenizers["bpe"], template="{answer}{prompt}").encode(Record("r7", "", "ab\ud800"))


# Random texts and spans, against the bytes of the pieces: an account of the characters that uses no offsets.

_WORDS = st.sampled_from(
    sorted({word for line in CORPUS for word in line.split(" ")} | {"ﬁ", "x\u0301", "ﷺ", "𝒳", "½"})
)
_SPACE = st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n", "\t", "", "\u3000", "\u00a0"])
_TEXT = st.lists(st.tuples(_SPACE, _WORDS | st.text("ab🎉京é\u0301 .", max_size=4)), min_size=1, max_size=8).map(
    lambda parts: "".join(space + word for space, word in parts) or "京"
)


def _byte_alphabet() -> dict[str, int]:
    """The characters that byte-level tokenizers write for bytes: printable ones as they are, the rest from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(rest)}


_BYTES = _byte_alphabet()


def _piece_bytes(name: str, piece: str) -> bytes:
    if piece.startswith("<|"):
        return piece.encode()
    if name in ("spm-bytes", "llama2"):
        is_byte = len(piece) == 6 and piece.startswith("<0x")
        return bytes([int(piece[3:5], 16)]) if is_byte else piece.replace("▁", " ").encode()
    return bytes(_BYTES[char] for char in piece)


def _characters_of_pieces(name: str, all_pieces: list[str], text: str) -> list[tuple[int, int]]:
    """The characters of `text`, which the pieces spell out, that each piece has bytes of."""
    owner = [i for i, char in enumerate(text) for _ in char.encode()]
    spelled = b"".join(_piece_bytes(name, piece) for piece in all_pieces)
    position = len(owner) - len(spelled)  # a space that the tokenizer put in front
    assert -1 <= position <= 0
    assert spelled[-position:] == text.encode()
    out = []
    for piece in all_pieces:
        behind = position + len(_piece_bytes(name, piece))
        owners = owner[max(0, position) : max(0, behind)]
        out.append((owners[0], owners[-1] + 1) if owners else (0, 0))
        position = behind
    return out


Encoders = Mapping[str, tuple[Encoder, Encoder]]


@pytest.fixture(scope="module")
def encoders(tokenizers: Tokenizers) -> Encoders:
    """For each tokenizer one encoder with boundary any and one with all."""
    template = "<|user|>{prompt}<|assistant|>{answer}"
    made = {name: Encoder(t, template=template, score_eos=False, max_length=9999) for name, t in tokenizers.items()}
    return {name: (encoder, replace(encoder, boundary="all")) for name, encoder in made.items()}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=_TEXT, data=st.data())
def test_selected_tokens_cover_the_span_and_are_minimal(encoders: Encoders, text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    wanted = {i for i in range(start, end) if not text[i].isspace()}
    record = Record("r", text, text, spans=(unwanted(start, end),))
    for name, (touching, within) in encoders.items():
        encoded = touching.encode(record)
        on = encoded.targets != -100
        ranges = encoded.offsets[on].tolist()
        chosen = (encoded.static["given"][on] > 0).tolist()
        inside = (within.encode(record).static["given"][on] > 0).tolist()
        covered = {i for (s, e), yes in zip(ranges, chosen, strict=True) if yes for i in range(s, e)}
        assert wanted <= covered | _dropped(name, text), name
        every = scored(touching, encoded)
        exact = _characters_of_pieces(name, every, text) if name in EXACT else ranges
        for (s, e), yes, whole in zip(exact, chosen, inside, strict=True):
            has = {i for i in range(s, e) if not text[i].isspace()}
            if has:
                assert bool(has & wanted) == yes, (name, text[s:e])
                assert (set(range(min(has), e)) <= set(range(start, end))) == whole, (name, text[s:e])


def _dropped(name: str, text: str) -> set[int]:
    """Characters that a lossy normaliser may leave to no token at all, where nothing stands beside them."""
    return set() if name in EXACT else {i for i, c in enumerate(text) if c in "\u0301"}


# The peer's own ids and labels.


def _rows(path: Path) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def _labels_equal(encoded: Encoded, ids: list[int], labels: list[int]) -> bool:
    n = len(encoded)
    padding_ignored = set(ids[n:]) <= {0} and set(labels[n:]) <= {-100}
    return encoded.input_ids.tolist() == ids[:n] and encoded.targets[:-1].tolist() == labels[1:n] and padding_ignored


def test_ids_and_labels_equal_the_peers(shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "parity/models/target")
    encoder = Encoder(tokenizer, template="<|user|>{prompt}<|end|><|assistant|>{answer}{eos}")
    rows = _rows(shared / "parity/data/full_small.json")
    encoded = [encoder.encode(Record(str(i), row["question"], row["answer"])) for i, row in enumerate(rows)]
    known = {tuple(item.input_ids.tolist()): item for item in encoded}
    trajectories = json.loads((shared / "parity/training/trajectories.json").read_text())["batches"]
    one = json.loads((shared / "parity/training/losses_on_one_batch.json").read_text())["batch"]
    pairs = [
        pair
        for batch in trajectories
        for side in ("forget", "retain")
        for pair in zip(batch[side]["input_ids"], batch[side]["labels"], strict=True)
    ]
    pairs += [p for s in ("forget", "retain") for p in zip(one[f"{s}_input_ids"], one[f"{s}_labels"], strict=True)]
    assert len(pairs) == 25 * 16 + 8
    for ids, labels in pairs:
        length = max(i for i, token in enumerate(ids) if token) + 1
        item = known[tuple(ids[:length])]
        assert _labels_equal(item, ids, labels)
        late = replace(item, targets=np.roll(item.targets, 1))
        assert not _labels_equal(late, ids, labels)


def test_the_small_english_model_reads_its_chat_template(shared: Path) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(shared / "models/tiny-english"))
    row = _rows(shared / "data/tofu/forget01_annotated.jsonl")[0]
    spans = tuple(unwanted(start, end) for start, end in row["target_spans"])  # type: ignore[str-unpack]
    encoded = encoder.encode(Record("r", row["question"], row["answer"], spans=spans))
    text = encoder.tokenizer.decode(encoded.input_ids.tolist())
    assert text == f"<|bos|><|user|>{row['question']}<|assistant|>{row['answer']}<|eos|>"
    assert "".join(selected(encoded, row["answer"])) == " Basil Mahfouz Al-Kuwaiti"
    assert scored(encoder, encoded)[-1] == "<|eos|>"


def test_a_weight_that_single_precision_does_not_hold_is_refused() -> None:
    encoder = Encoder(MAKERS["bpe"]())
    record = Record("r", text="In Oslo.", spans=(Span("text", 3, 7, 1e308),))
    with pytest.raises(DataError, match=r"the weight of a span must be at most 1e\+30; found 1e\+308"):
        encoder.encode(record)
