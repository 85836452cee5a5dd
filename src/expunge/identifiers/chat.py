"""Spans that a chat model names: any endpoint that speaks OpenAI's protocol."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from pydantic import BeforeValidator

from expunge.data.records import Record
from expunge.errors import MethodError
from expunge.identifiers import prompt
from expunge.identifiers.address import address, key_from_environment, require_name, well_formed
from expunge.identifiers.endpoint import Completion, Endpoint, Json, Settings
from expunge.identifiers.finding import Estimate, Finding, IdentifierError, spans_of
from expunge.identifiers.locate import Range, locate
from expunge.identifiers.prompt import Window
from expunge.identifiers.replies import Reply, ReplyError, parse
from expunge.identifiers.replycache import ReplyCache, open_cache, prompt_key
from expunge.identifiers.workers import concurrently
from expunge.registry import NonNegative, Positive, method

Whole = Annotated[int, Ge(0)]
Count = Annotated[int, Gt(0)]
MaybeFloat = Annotated[float | None, BeforeValidator(lambda value: None if str(value).lower() == "none" else value)]


@dataclass(frozen=True)
class _Job:
    """One window of one record."""

    record: int
    window: Window


@dataclass(frozen=True)
class _Part:
    """What one window gave: ranges of the whole text, phrases that are not in it, counts."""

    ranges: tuple[Range, ...]
    missing: tuple[str, ...]
    counts: Mapping[str, int]


@method("identifier", "chat")
@dataclass(frozen=True)
class Chat:
    """The phrases that a chat model copies out of the answer, located in it; what it makes up is counted, not guessed.

    `base_url` is https or this machine (`insecure=true` allows plain http elsewhere). The key is read from the
    environment variable named `key_env`; without a name OPENAI_API_KEY is used, and sent to OpenAI's host alone.
    `json` is what is asked of the server: a schema, any JSON object, nothing; 'auto' begins with the schema and asks
    for less where the server refuses. What comes back is checked in any case; after `attempts` unreadable replies the
    run stops with an error. `temperature=none` leaves it to the server. `repeat` numbers repeated labellings of the
    same text, which are then asked for anew. `instructions` is a file with your own description of the task.
    Texts beyond `window` characters are cut, with `overlap`. `cache` is a folder of replies, or none.
    `price_in` and `price_out` (per million tokens) let the estimate name a cost.

    Source: TIF's generative identifier (arXiv 2506.03142). Differs: own wording, JSON, and words found by position.
    """

    reads_spans: ClassVar[bool] = False
    model: str
    base_url: str = "https://api.openai.com/v1"
    key_env: str = ""
    insecure: bool = False
    temperature: MaybeFloat = 0.0
    max_tokens: Count = 1024
    json: Json = "auto"
    instructions: str = ""
    repeat: Whole = 0
    window: Count = 6000
    overlap: Whole = 300
    ignore_case: bool = True
    whole_words: bool = True
    attempts: Count = 3
    concurrency: Count = 4
    retries: Whole = 5
    timeout: Positive = 60.0
    longest_wait: NonNegative = 120.0
    requests_per_minute: NonNegative = 0.0
    cache: str = ""
    price_in: NonNegative = 0.0
    price_out: NonNegative = 0.0

    def __post_init__(self) -> None:
        well_formed(self.base_url)
        require_name(self.key_env)
        if self.overlap * 2 > self.window:
            raise MethodError(
                f"identifier 'chat': overlap={self.overlap} is more than half of window={self.window}. Make it smaller."
            )

    def facts(self) -> Mapping[str, object]:
        return {
            "name": "chat", "model": self.model, "base_url": self.base_url, "window": self.window,
            "overlap": self.overlap, "case": self.ignore_case, "words": self.whole_words, **self._parameters(),
        }  # fmt: skip

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        at = address(self.base_url, self.insecure)
        if at.local:
            return None
        kept, instructions = open_cache(self.cache), prompt.instructions_of(self.instructions)
        requests = cached = tokens_in = tokens_out = 0
        for record in records:
            for window in prompt.windows(record.body, self.window, self.overlap):
                asked = prompt.messages(record, window, instructions)
                if kept.get(self._key(asked)) is not None:
                    cached += 1
                    continue
                requests += 1
                tokens_in += _tokens("".join(message["content"] for message in asked))
                tokens_out += min(self.max_tokens, 20 + _tokens(record.body[window[0] : window[1]]) // 2)
        priced = self.price_in > 0 or self.price_out > 0
        cost = (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6 if priced else None
        return Estimate(at.site, requests, cached, tokens_in, tokens_out, cost)

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        at = address(self.base_url, self.insecure)
        stop = threading.Event()
        endpoint = Endpoint(at, key_from_environment(self.key_env, at), self._settings(), stop)
        kept, instructions = open_cache(self.cache), prompt.instructions_of(self.instructions)
        cuts = [list(prompt.windows(record.body, self.window, self.overlap)) for record in records]
        jobs = (_Job(index, window) for index, cut in enumerate(cuts) for window in cut)

        def work(job: _Job) -> _Part:
            return self._part(endpoint, kept, records[job.record], job.window, instructions)

        parts: dict[int, list[_Part]] = {}
        try:
            yield from (Finding(record, ()) for record, cut in zip(records, cuts, strict=True) if not cut)
            for job, part in concurrently(jobs, work, self.concurrency, stop):
                done = parts.setdefault(job.record, [])
                done.append(part)
                if len(done) == len(cuts[job.record]):
                    yield _merged(records[job.record], parts.pop(job.record), f"chat:{self.model}")
        finally:
            stop.set()
            endpoint.close()

    def _part(self, endpoint: Endpoint, kept: ReplyCache, record: Record, window: Window, instructions: str) -> _Part:
        asked = prompt.messages(record, window, instructions)
        key = self._key(asked)
        reply = _readable(kept.get(key))
        counts = Counter({"from cache": 1} if reply else {})
        if reply is None:
            reply, text = self._asked(endpoint, record, asked, key, counts)
            kept.put(key, text)
        text = record.body[window[0] : window[1]]
        found: list[Range] = []
        missing: list[str] = []
        for phrase in reply.spans:
            hits = locate(
                phrase.text, text, phrase.occurrence, ignore_case=self.ignore_case, whole_words=self.whole_words
            )
            found += [(window[0] + start, window[0] + end) for start, end in hits]
            missing += [] if hits else [phrase.text]
        counts.update({"phrases": len(reply.spans), "not found": len(missing)})
        return _Part(tuple(found), tuple(missing), counts)

    def _asked(
        self, endpoint: Endpoint, record: Record, asked: list[prompt.Message], key: str, counts: Counter[str]
    ) -> tuple[Reply, str]:
        """The reply that could be read, and its text; IdentifierError after `attempts` that could not."""
        conversation, fault = asked, ""
        for attempt in range(self.attempts):
            completion = endpoint.ask(conversation, f"{key}{attempt}")
            counts.update({"requests": 1, "tokens in": completion.tokens_in, "tokens out": completion.tokens_out})
            try:
                return parse(completion.text), completion.text
            except ReplyError as error:
                fault = _fault(error, completion, self.max_tokens)
            counts["unreadable replies"] += 1
            conversation = prompt.repair(asked, completion.text, fault)
        raise IdentifierError(
            f"record '{record.id}': model '{self.model}' gave no readable reply in {self.attempts} attempts; the last: "
            f"{fault}. What was found so far is kept. Try another model, json=none, or a larger max_tokens."
        )

    def _parameters(self) -> dict[str, object]:
        """All that decides a reply beside the model, its place and the prompt."""
        return {
            "temperature": self.temperature, "max_tokens": self.max_tokens, "json": self.json, "repeat": self.repeat,
            "wording": prompt.version(prompt.instructions_of(self.instructions)),
        }  # fmt: skip

    def _key(self, asked: Sequence[prompt.Message]) -> str:
        return prompt_key(self.base_url, self.model, self._parameters(), asked)

    def _settings(self) -> Settings:
        return Settings(
            model=self.model, temperature=self.temperature, max_tokens=self.max_tokens, json=self.json,
            retries=self.retries, timeout=self.timeout, longest_wait=self.longest_wait,
            per_minute=self.requests_per_minute,
        )  # fmt: skip


def _merged(record: Record, parts: Sequence[_Part], source: str) -> Finding:
    ranges = [found for part in parts for found in part.ranges]
    missing = dict.fromkeys(phrase for part in parts for phrase in part.missing)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    return Finding(record, spans_of(record, ranges, source), dict(counts), tuple(missing))


def _readable(text: str | None) -> Reply | None:
    try:
        return None if text is None else parse(text)
    except ReplyError:
        return None


def _fault(error: ReplyError, completion: Completion, limit: int) -> str:
    return f"{error}; it was cut off at max_tokens={limit}" if completion.finish == "length" else str(error)


def _tokens(text: str) -> int:
    """A rough count: 3.5 bytes of UTF-8 each."""
    return -(-len(text.encode("utf-8", "replace")) * 2 // 7)
