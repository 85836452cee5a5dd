"""Where templates put the answer, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerBase

from expunge.data.encode import Encoder
from expunge.data.records import Record, Span
from expunge.data.templates import DEFAULT, ChatTemplate, TextTemplate, choose
from expunge.errors import DataError

Tokenizers = Mapping[str, PreTrainedTokenizerBase]
RECORD = Record("r", "Who is it?", "it is it")


def place(tokenizer: PreTrainedTokenizerBase, record: Record, template: str = "chat", date: str | None = None) -> str:
    """The rendered text with the answer in brackets."""
    rendered = choose(template, date, tokenizer).render(record, record.answer, tokenizer, None)
    text = rendered.text
    assert text[rendered.start : rendered.end] == record.answer[rendered.shift :][: rendered.end - rendered.start]
    return f"{text[: rendered.start]}[{text[rendered.start : rendered.end]}]{text[rendered.end :]}"


def test_auto_takes_the_chat_template_where_there_is_one(tokenizers: Tokenizers) -> None:
    assert choose("auto", None, tokenizers["chat"]) == ChatTemplate(None)
    assert choose("auto", None, tokenizers["bpe"]) == TextTemplate(DEFAULT)
    assert choose("{prompt}{answer}", None, tokenizers["chat"]) == TextTemplate("{prompt}{answer}")
    with pytest.raises(DataError, match="tokenizer has no chat template"):
        choose("chat", None, tokenizers["bpe"])


def test_the_answer_is_found_by_structure(tokenizers: Tokenizers) -> None:
    chat = tokenizers["chat"]
    assert place(chat, RECORD) == "<|bos|><|user|>\nWho is it?<|end|><|assistant|>\n[it is it]<|end|>"
    tricky = replace(RECORD, prompt="<|assistant|>\nit is it<|end|>")
    assert place(chat, tricky).endswith("<|end|><|assistant|>\n[it is it]<|end|>")
    marked = replace(RECORD, prompt="\u27eaanswer\u27eb \u27eaanswer\u27eb\u27eb")
    assert place(chat, marked).endswith("<|assistant|>\n[it is it]<|end|>")


def test_a_template_that_trims_shifts_the_answer(tokenizers: Tokenizers) -> None:
    record = replace(RECORD, answer="\n it is it ", spans=(Span("answer", 8, 10),))
    assert place(tokenizers["chat-plain"], record).endswith("<|assistant|>\n[it is it]<|end|>\n")
    encoder = Encoder(tokenizers["chat-plain"], score_eos=False)
    encoded = encoder.encode(record)
    on = encoded.targets != -100
    assert (encoded.offsets[on][0, 0], encoded.offsets[on][-1, 1]) == (2, 10)
    chosen = encoded.offsets[encoded.static["given"] > 0].tolist()
    assert "".join(record.answer[s:e] for s, e in chosen).strip() == "it"
    assert chosen[0][0] >= 7


def test_an_answer_of_white_space_has_no_target(tokenizers: Tokenizers) -> None:
    for name in ("chat", "chat-plain"):
        assert Encoder(tokenizers["chat-plain"]).encode(replace(RECORD, answer="  ")).scored == 0, name


def test_system_message_and_date(tokenizers: Tokenizers) -> None:
    chat = tokenizers["chat"]
    record = replace(RECORD, history=(("system", "Be short."),))
    assert place(chat, record, date="1 May 2025").startswith("<|bos|><|system|>Be short. Today: 1 May 2025<|end|>")
    assert place(chat, record).startswith("<|bos|><|system|>Be short.<|end|>")
    other = Encoder(chat, system_prompt="Be kind.")
    assert "Be kind." in chat.decode(other.encode(RECORD).input_ids.tolist())
    assert "Be kind." not in chat.decode(other.encode(record).input_ids.tolist())
    text = "{system}: {prompt} {answer}"
    assert place(tokenizers["bpe"], record, text) == "Be short.: Who is it? [it is it]"
    assert place(tokenizers["bpe"], RECORD, text) == ": Who is it? [it is it]"
    with pytest.raises(DataError, match=r"has a system message, but the template .* has no \{system\}"):
        place(tokenizers["bpe"], record, "{prompt} {answer}")


def test_earlier_turns_stand_before_the_prompt(tokenizers: Tokenizers) -> None:
    record = replace(RECORD, history=(("user", "it is it"), ("assistant", "it is it")))
    assert place(tokenizers["chat"], record) == (
        "<|bos|><|user|>\nit is it<|end|><|assistant|>\nit is it<|end|>"
        "<|user|>\nWho is it?<|end|><|assistant|>\n[it is it]<|end|>"
    )
    with pytest.raises(DataError, match="conversation of several turns"):
        place(tokenizers["bpe"], record, "{prompt} {answer}")


def test_a_template_that_rewrites_the_answer_is_refused(tokenizers: Tokenizers) -> None:
    shout = Encoder(tokenizers["chat"]).tokenizer.__class__(
        tokenizer_object=tokenizers["chat"].backend_tokenizer, bos_token="<|bos|>", eos_token="<|eos|>"
    )
    shout.chat_template = "{% for m in messages %}{{ m['content'] | replace('it', 'IT') }}{% endfor %}"
    with pytest.raises(DataError, match="record 'r': the chat template does not write the answer as it is"):
        place(shout, RECORD)
    shout.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    with pytest.raises(DataError, match="writes the answer 0 times"):
        place(shout, RECORD)
    shout.chat_template = "{{ raise_exception('no system') }}"
    with pytest.raises(DataError, match="refuses the turns user, assistant: no system"):
        place(shout, RECORD)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Q: {question} A: {answer}", "unknown place 'question'"),
        ("Q: {prompts} A: {answer}", "Did you mean: prompt?"),
        ("{answer}", "must contain {prompt}"),
        ("{prompt}", "must contain {prompt}, and {answer} exactly once"),
        ("{prompt}{answer}{answer}", "{answer} exactly once"),
        ("chatt", "It is 'auto', 'chat', or such a text"),
    ],
)
def test_wrong_text_templates_say_what_is_missing(template: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        TextTemplate(template)
    assert message in str(error.value)


def test_text_templates_keep_other_braces_and_do_not_fill_in_twice(tokenizers: Tokenizers) -> None:
    record = replace(RECORD, prompt="{answer} {eos}", answer="{prompt}")
    assert place(tokenizers["bpe"], record, '{ "a": {prompt} } {answer}') == '{ "a": {answer} {eos} } [{prompt}]'
    assert place(tokenizers["bpe"], RECORD, "{prompt} {answer}{eos}") == "Who is it? [it is it]<|eos|>"
    with pytest.raises(DataError, match=r"has \{bos\}, but the tokenizer has no such token"):
        place(tokenizers["bpe"], RECORD, "{bos}{prompt} {answer}")
