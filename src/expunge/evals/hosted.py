"""A model behind an address: the tables that its answers, and the log-probabilities that it gives, allow.

Prompts are sent as token ids, so that the server reads the very context that the weights would be given. Where it says
how likely each token of a prompt is, score tables hold log p and whether the token is the likeliest; what no server
says (entropy, logits) is NaN there, and the metrics that need it are absent.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from expunge import keyed
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import ModelError
from expunge.evals import generation, scoring
from expunge.evals.measure import HOLDOUT
from expunge.evals.scoring import Item, Numbers
from expunge.evals.tofu import OnProgress, Settings, told
from expunge.identifiers.address import address, key_from_environment, require_name, well_formed
from expunge.identifiers.endpoint import Completion, Endpoint, PromptTokens
from expunge.identifiers.endpoint import Settings as Limits
from expunge.identifiers.finding import RefusedError
from expunge.identifiers.replycache import ReplyCache, prompt_key
from expunge.identifiers.workers import concurrently
from expunge.runfolder import RunFolder

_FORMAT = "1"
_REPLIES = "replies"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Hosted:
    """Where a model is served, under which name, and how hard its server may be pressed.

    The key comes from the environment variable `key_env`; `base_url` is https or this machine unless `insecure`.
    """

    base_url: str
    model: str
    key_env: str = ""
    insecure: bool = False
    concurrency: int = 4
    retries: int = 5
    timeout: float = 120.0
    longest_wait: float = 120.0
    requests_per_minute: float = 0.0

    def __post_init__(self) -> None:
        well_formed(self.base_url)
        require_name(self.key_env)
        if not self.model:
            raise ModelError(f"'{self.base_url}' serves models by name, and none was given. Set --served NAME")


@dataclass(frozen=True)
class Reach:
    """What a server can do: go on from tokens, and say how likely they are; `why` it does not do the latter."""

    completes: bool
    scores: bool
    why: str = ""


@dataclass(frozen=True)
class Server:
    """A server that is being asked, and the replies that it gave in this run."""

    hosted: Hosted
    site: str
    endpoint: Endpoint
    kept: ReplyCache

    def reach(self, tokens: Sequence[int]) -> Reach:
        """What the server can do, tried on tokens that tell it nothing."""
        try:
            self.endpoint.read(tokens, "reach")
            return Reach(True, True)
        except RefusedError as error:
            why = str(error)
        try:
            self.endpoint.complete(tokens, 1, "reach")
        except RefusedError:
            return Reach(False, False, why)
        return Reach(True, False, why)

    def scored(self, row: Item) -> Numbers:
        """(statistics, scored tokens) of an answer, in the order of score tables."""
        ids = row.encoded.input_ids.tolist()
        found = self._remembered(ids, {"what": "read"}, PromptTokens, lambda key: self.endpoint.read(ids, key))
        at = np.flatnonzero(row.mask)
        logp, best = (np.array(values, np.float32)[at] for values in (found.logp, found.best))
        unknown = np.full_like(logp, np.nan)
        return np.stack([logp, unknown, unknown, unknown, unknown, (logp >= best).astype(np.float32)])

    def written(self, prompt: Sequence[int], record: Record, tokens: int, completes: bool) -> tuple[str, int, bool]:
        """(text, tokens, whether it stopped by itself) of the greedy answer to a prompt."""
        asked = {"what": "complete" if completes else "chat", "max_tokens": tokens, "prompt": record.prompt}

        def ask(key: str) -> Completion:
            if completes:
                return self.endpoint.complete(prompt, tokens, key)
            return self.endpoint.ask([{"role": "user", "content": record.prompt}], key)

        reply = self._remembered(prompt, asked, Completion, ask)
        return reply.text.strip(), reply.tokens_out, reply.finish == "stop"

    def _remembered(
        self, prompt: Sequence[int], asked: Mapping[str, object], kind: type[_T], ask: Callable[[str], _T]
    ) -> _T:
        key = prompt_key(self.hosted.base_url, self.hosted.model, asked, prompt)
        text = self.kept.get(key)
        if text is not None:
            return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(text).items()})
        reply = ask(key)
        self.kept.put(key, json.dumps(vars(reply)))
        return reply


@contextmanager
def asking(hosted: Hosted, run: RunFolder, max_new_tokens: int) -> Iterator[Server]:
    """The server of a hosted model, whose replies are kept in the run."""
    at = address(hosted.base_url, hosted.insecure)
    limits = Limits(
        model=hosted.model, temperature=0.0, max_tokens=max_new_tokens, json="none", retries=hosted.retries,
        timeout=hosted.timeout, longest_wait=hosted.longest_wait, per_minute=hosted.requests_per_minute,
    )  # fmt: skip
    endpoint = Endpoint(at, key_from_environment(hosted.key_env, at), limits, threading.Event())
    try:
        yield Server(hosted, at.site, endpoint, ReplyCache(run.file(_REPLIES)))
    finally:
        endpoint.stop.set()
        endpoint.close()


def make_tables(
    server: Server,
    reach: Reach,
    encoder: Encoder,
    sets: Mapping[str, Sequence[Record]],
    run: RunFolder,
    label: str,
    settings: Settings,
    progress: OnProgress | None = None,
) -> None:
    """Writes the score tables, if the server gives log-probabilities, and the generation tables to eval/LABEL.

    The replies that were kept go when all tables are there.
    """
    named = {"format": _FORMAT, "model": f"{server.site} {server.hosted.model}"}
    for name, records in sets.items():
        if reach.scores:
            rows = scoring.items(encoder, records, ("answer",) if name == HOLDOUT else scoring.VARIANTS)
            key = {**named, "items": scoring.content_hash(rows)}
            path = f"eval/{label}/scores/{name}.parquet"
            if keyed.key_of(run.file(path)) != key:
                numbers = _all(server, rows, server.scored, told(progress, f"{name}: scoring"))
                run.write_table(path, keyed.with_key(scoring.table_of(encoder.tokenizer, rows, numbers), key))
        asked = [record for record in records if record.prompt]
        if name != HOLDOUT and asked:
            path = f"eval/{label}/generations/{name}.parquet"
            key = {**named, "items": " ".join(r.text_hash for r in asked), "tokens": str(settings.max_new_tokens)}
            if keyed.key_of(run.file(path)) != key:
                limit, completes = settings.max_new_tokens, reach.completes

                def write(record: Record, limit: int = limit, completes: bool = completes) -> tuple[str, int, bool]:
                    return server.written(encoder.prompt_ids(record), record, limit, completes)

                written = _all(server, asked, write, told(progress, f"{name}: generating"))
                run.write_table(path, keyed.with_key(generation.table_of(asked, written), key))
    shutil.rmtree(run.file(_REPLIES), ignore_errors=True)


def _all(
    server: Server, jobs: Sequence[Any], work: Callable[[Any], _T], progress: Callable[[int, int], None] | None
) -> list[_T]:
    """The results in the order of the jobs, several of which are under way at a time."""
    done: dict[int, _T] = {}
    stop = threading.Event()
    numbered = ((index, job) for index, job in enumerate(jobs))
    for (index, _), result in concurrently(numbered, lambda one: work(one[1]), server.hosted.concurrency, stop):
        done[index] = result
        if progress is not None:
            progress(len(done), len(jobs))
    return [done[index] for index in range(len(jobs))]
