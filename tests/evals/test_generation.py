"""Greedy generation: batched equals one at a time equals the library's own, and rows stop where they should."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from expunge import decode
from expunge.data.encode import Encoder
from expunge.decode import Written, complete, stop_ids
from expunge.evals import generation, table
from tests.evals import tiny


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    encoder = Encoder(tiny.small_lm().tokenizer)
    return [encoder.prompt_ids(record) for record in tiny.records(9)]


def alone(prompt: list[int], stops: frozenset[int], limit: int) -> Written:
    """One prompt, the whole text again for every token: no cache, no padding, no mask."""
    model = tiny.small_lm().model
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token in stops:
            return Written(tuple(ids[len(prompt) :]), True)
        ids.append(token)
    return Written(tuple(ids[len(prompt) :]), False)


def common_token(prompts: list[list[int]], place: int) -> frozenset[int]:
    """Tokens that some of the prompts lead to at `place`: stops that make rows finish at different steps."""
    texts = [alone(prompt, frozenset(), 12).ids for prompt in prompts]
    return frozenset(text[place] for text in texts[::2])


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_batched_generation_equals_one_at_a_time(prompts: list[list[int]], batch_size: int) -> None:
    stops = common_token(prompts, 3)
    expected = [alone(prompt, stops, 12) for prompt in prompts]
    assert len({len(text.ids) for text in expected}) > 2  # rows do finish at different steps
    assert {text.stopped for text in expected} == {True, False}
    found = complete(tiny.small_lm(), prompts, stops, max_new_tokens=12, batch_size=batch_size)
    assert found == expected


def test_it_equals_the_library_s_own_generation(prompts: list[list[int]]) -> None:
    lm = tiny.small_lm()
    found = complete(lm, prompts, frozenset(), max_new_tokens=10)
    for prompt, text in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        whole = lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=lm.pad_id,
        )
        assert tuple(whole[0, len(prompt) :].tolist()) == text.ids


def steps(
    monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]], stops: frozenset[int], batch_size: int
) -> list[tuple[int, int, int]]:
    """(rows, tokens read, width) of each pass of the backbone."""
    seen: list[tuple[int, int, int]] = []
    backbone = decode.backbone_of(tiny.small_lm().model)

    def watched(_: object) -> object:
        def run(**settings: torch.Tensor) -> object:
            seen.append((*settings["input_ids"].shape, settings["attention_mask"].shape[1]))
            return backbone(**settings)

        return run

    monkeypatch.setattr(decode, "backbone_of", watched)
    complete(tiny.small_lm(), prompts, stops, max_new_tokens=12, batch_size=batch_size)
    return seen


def test_finished_rows_leave_the_batch(prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [rows for rows, _, _ in steps(monkeypatch, prompts, common_token(prompts, 3), 32)]
    assert sizes[0] == len(prompts)
    assert sizes[-1] < len(prompts)
    assert sizes == sorted(sizes, reverse=True)


def test_others_take_their_place_and_rows_are_no_longer_than_the_longest_text(
    prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = common_token(prompts, 3)
    texts = [alone(prompt, stops, 12).ids for prompt in prompts]
    read = steps(monkeypatch, prompts, stops, 4)
    decoded = [rows for rows, tokens, _ in read if tokens == 1]
    assert sum(tokens > 1 for _, tokens, _ in read) > -(-len(prompts) // 4)  # prompts are read while others are written
    in_batches = sum(max(map(len, texts[start : start + 4])) for start in range(0, len(texts), 4))
    assert len(decoded) < in_batches
    longest = max(len(prompt) + len(text) for prompt, text in zip(prompts, texts, strict=True))
    assert max(width for _, _, width in read) <= longest


def test_sampled_text_is_the_same_beside_any_others(prompts: list[list[int]]) -> None:
    settings: dict[str, Any] = {"max_new_tokens": 8, "temperature": 1.0, "draws": list(range(len(prompts)))}
    stops = common_token(prompts, 3)
    found = [complete(tiny.small_lm(), prompts, stops, batch_size=size, **settings) for size in (2, 32)]
    assert found[0] == found[1]
    assert found[0] != complete(tiny.small_lm(), prompts, stops, max_new_tokens=8)


def test_rows_are_not_put_beside_others_where_a_layer_keeps_a_window_alone() -> None:
    """Its keys and values are not those of all tokens, so that they could not be put side by side."""
    config = MistralConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=6,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MistralForCausalLM(config).eval()
    lm = dataclasses.replace(tiny.small_lm(), model=model)
    prompts = [[1, 2, 3, 4, 5, 6, 7, 8][: 3 + k] for k in range(6)]
    alone = [complete(lm, [prompt], frozenset(range(8)), max_new_tokens=9)[0] for prompt in prompts]
    assert len({len(text.ids) for text in alone}) > 1
    assert complete(lm, prompts, frozenset(range(8)), max_new_tokens=9, batch_size=2) == alone


def test_the_limit_and_a_stop_at_once(prompts: list[list[int]]) -> None:
    lm = tiny.small_lm()
    first = complete(lm, prompts[:2], frozenset(), max_new_tokens=1)
    assert [len(text.ids) for text in first] == [1, 1]
    assert not any(text.stopped for text in first)
    stops = frozenset(text.ids[0] for text in first)
    assert complete(lm, prompts[:2], stops, max_new_tokens=5) == [Written((), True)] * 2
    assert complete(lm, [], stops) == []


def test_the_table_holds_prompts_answers_and_texts() -> None:
    lm, records = tiny.small_lm(), tiny.records(3)
    encoder = Encoder(lm.tokenizer)
    found = generation.generate(lm, encoder, records, max_new_tokens=6)
    assert found.schema == table.GENERATIONS
    row = found.to_pylist()[1]
    assert (row["id"], row["subject"]) == ("forget-1", "forget-subject-0")
    assert row["prompt"] == records[1].prompt
    assert row["reference"] == records[1].answer
    assert row["n_tokens"] <= 6
    ids = complete(lm, [encoder.prompt_ids(records[1])], stop_ids(lm, encoder, records), max_new_tokens=6)
    assert row["generation"] == str(lm.tokenizer.decode(list(ids[0].ids), skip_special_tokens=True)).strip()


def test_stop_tokens_come_from_configuration_tokenizer_and_template() -> None:
    lm, records = tiny.small_lm(), tiny.records(2)
    encoder = Encoder(lm.tokenizer)
    end = lm.tokenizer.eos_token_id
    user = lm.tokenizer.convert_tokens_to_ids("<|user|>")
    assert end in stop_ids(lm, encoder, records)
    other = Encoder(lm.tokenizer, template="{prompt} {answer}<|user|>")
    assert user in stop_ids(lm, other, records)
    kept = lm.model.generation_config.eos_token_id
    lm.model.generation_config.eos_token_id = [7, 8]
    try:
        assert {7, 8, end} <= stop_ids(lm, encoder, records)
    finally:
        lm.model.generation_config.eos_token_id = kept


def test_the_hash_sees_prompts_and_right_answers() -> None:
    lm, records = tiny.small_lm(), tiny.records(2)
    encoder = Encoder(lm.tokenizer)
    base = generation.content_hash(lm, encoder, records)
    assert base == generation.content_hash(lm, encoder, records)
    changed = [dataclasses.replace(records[0], answer="Other."), records[1]]
    asked = [dataclasses.replace(records[0], prompt="Who?"), records[1]]
    assert len({base, *(generation.content_hash(lm, encoder, r) for r in (changed, asked))}) == 3
