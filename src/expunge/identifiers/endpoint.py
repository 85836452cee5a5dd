"""One endpoint that speaks OpenAI's protocol: what is sent, and what is done when it does not answer."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import SecretStr

from expunge.errors import MissingExtraError
from expunge.identifiers.address import OPENAI, Address
from expunge.identifiers.finding import IdentifierError, RefusedError
from expunge.identifiers.pacing import Gate, Stopped, backoff, retry_after
from expunge.identifiers.prompt import Message
from expunge.identifiers.replies import SCHEMA

Json = Literal["auto", "schema", "object", "none"]
_R = TypeVar("_R")
_PLAIN_HEADERS = frozenset(
    ("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "user-agent")
)
_NO_FORMAT = re.compile(
    r"response.?format|json.?schema|json.?object|json.?mode|grammar|guided|structured", re.IGNORECASE
)
_FATAL_CODES = frozenset(("insufficient_quota", "billing_not_active", "billing_hard_limit_reached"))


@dataclass(frozen=True)
class Completion:
    """One reply: its text, why it ended, and the tokens the server counted (0 where it did not say)."""

    text: str
    finish: str
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class PromptTokens:
    """What a server says of the tokens of a prompt: log-probability of each, and of the likeliest in its place.

    Both begin at the second token: nothing predicts the first.
    """

    logp: tuple[float, ...]
    best: tuple[float, ...]


@dataclass(frozen=True)
class Settings:
    """How an endpoint is asked."""

    model: str
    temperature: float | None
    max_tokens: int
    json: Json
    retries: int
    timeout: float
    longest_wait: float
    per_minute: float


@dataclass(frozen=True)
class _Problem:
    """Why a request gave no reply, whether to try again, and how long the server asked to wait."""

    text: str
    again: bool = False
    refused: bool = False
    wait: float | None = None
    adapt: Literal["json", "max_tokens"] | None = None


class Endpoint:
    """A chat endpoint with its key, its limits and what has been learnt about it. Safe to use from several threads."""

    def __init__(self, address: Address, key: SecretStr | None, settings: Settings, stop: threading.Event) -> None:
        self.address, self.settings, self.stop = address, settings, stop
        self.gate = Gate(settings.per_minute, stop)
        self.retried = 0
        self._key = key
        self._format: Json = "schema" if settings.json == "auto" else settings.json
        self._limit_name = "max_tokens"
        self._lock = threading.Lock()
        self._client = _client(address, key, settings)

    def close(self) -> None:
        """Closes the connections; requests under way fail."""
        self._client.close()

    def ask(self, messages: Sequence[Message], key: str) -> Completion:
        """A chat model's reply, asked for as `_persist` says. `key` seeds the jitter of the pauses."""
        return self._persist(lambda form, limit: self._chat(messages, form, limit), key)

    def complete(self, prompt: Sequence[int], max_tokens: int, key: str) -> Completion:
        """What the model writes after these tokens, at the temperature of the settings."""
        asked: dict[str, Any] = {"max_tokens": max_tokens, "temperature": self.settings.temperature or 0.0}
        return self._persist(lambda form, limit: self._continued(prompt, asked), key)

    def read(self, tokens: Sequence[int], key: str) -> PromptTokens:
        """The log-probabilities of these tokens; RefusedError if the server does not give them."""
        return self._persist(lambda form, limit: self._read(tokens), key)

    def _persist(self, once: Callable[[Json, str], _R | _Problem], key: str) -> _R:
        """The reply; asked again after what may pass (429, 5xx, time-outs, cut connections), with growing pauses.

        IdentifierError after the last try, or at once where trying again cannot help; Stopped if the run ended
        meanwhile.
        """
        failed, adapted = 0, 0
        while True:
            self.gate.enter()
            used = self._format, self._limit_name
            outcome = once(*used)
            if not isinstance(outcome, _Problem):
                return outcome
            if outcome.adapt and adapted < 3 and self._adapt(outcome.adapt, used):
                adapted += 1
                continue
            failed += 1
            if not outcome.again or failed > self.settings.retries:
                tries = f" after {failed} tries" if failed > 1 else ""
                kind = RefusedError if outcome.refused else IdentifierError
                raise kind(f"{self.address.site}, model '{self.settings.model}'{tries}: {outcome.text}")
            self._pause(outcome, failed, key)

    def _pause(self, problem: _Problem, failed: int, key: str) -> None:
        longest = self.settings.longest_wait
        if problem.wait is not None and problem.wait > longest:
            raise IdentifierError(
                f"{self.address.site} asks to wait {problem.wait:.0f} s, longest_wait is {longest:g} s. "
                "Run the same command later, it goes on where it stopped; or raise longest_wait."
            )
        with self._lock:
            self.retried += 1
        if problem.wait is not None:
            self.gate.pause(problem.wait)
        elif self.stop.wait(backoff(failed, key, longest)):
            raise Stopped

    def _adapt(self, what: Literal["json", "max_tokens"], used: tuple[Json, str]) -> bool:
        """True if the next request will be another one: a weaker format, or the other name of the token limit."""
        with self._lock:
            if (self._format, self._limit_name) != used:
                return True
            if what == "max_tokens" and self._limit_name == "max_tokens":
                self._limit_name = "max_completion_tokens"
                return True
            if what == "json" and self.settings.json == "auto" and self._format != "none":
                self._format = "object" if self._format == "schema" else "none"
                return True
            return False

    def _chat(self, messages: Sequence[Message], form: Json, limit_name: str) -> Completion | _Problem:
        extra: dict[str, Any] = {limit_name: self.settings.max_tokens}
        if self.settings.temperature is not None:
            extra["temperature"] = self.settings.temperature
        if form != "none":
            extra["response_format"] = _RESPONSE_FORMATS[form]
        create = self._client.chat.completions.create
        reply = self._once(lambda: create(model=self.settings.model, messages=list(messages), **extra))
        return reply if isinstance(reply, _Problem) else self._completion(reply)

    def _continued(self, prompt: Sequence[int], asked: Mapping[str, Any]) -> Completion | _Problem:
        create = self._client.completions.create
        reply = self._once(lambda: create(model=self.settings.model, prompt=list(prompt), **asked))
        if isinstance(reply, _Problem):
            return reply
        choice = _first(reply)
        text = getattr(choice, "text", None)
        if not isinstance(text, str):
            return _Problem("the answer is not a completion. Check base_url; it usually ends in /v1.", again=True)
        return Completion(self._scrubbed(text), str(getattr(choice, "finish_reason", "")), *_counted(reply))

    def _read(self, tokens: Sequence[int]) -> PromptTokens | _Problem:
        # a token is written too, because not every server answers if none is asked for; it is cut off
        asked: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "echo": True, "logprobs": 1}
        create = self._client.completions.create
        reply = self._once(lambda: create(model=self.settings.model, prompt=list(tokens), **asked))
        if isinstance(reply, _Problem):
            return reply
        found = getattr(_first(reply), "logprobs", None)
        logp, top = (getattr(found, name, None) for name in ("token_logprobs", "top_logprobs"))
        if not isinstance(logp, list) or len(logp) not in (len(tokens), len(tokens) + 1):
            return _Problem("it gives no log-probability of each token of a prompt (echo, logprobs).", refused=True)
        if not isinstance(top, list) or len(top) != len(logp):
            return _Problem("it does not say which token is likeliest (top_logprobs).", refused=True)
        own = [float(value) for value in logp[1 : len(tokens)] if isinstance(value, (int, float))]
        best = [float(max(one.values())) for one in top[1 : len(tokens)] if one]
        if not len(own) == len(best) == len(tokens) - 1:
            return _Problem("some of its log-probabilities of a prompt are missing.", refused=True)
        return PromptTokens(tuple(own), tuple(best))

    def _once(self, send: Callable[[], Any]) -> Any | _Problem:
        """One request. Nothing of the client's own exceptions survives it: they may hold headers."""
        import openai

        try:
            return send()
        except openai.APIStatusError as error:
            return self._status_problem(error.status_code, error.response.headers, error.body)
        except openai.APITimeoutError:
            return _Problem(f"no answer within {self.settings.timeout:g} s. Is it up? Else raise timeout.", again=True)
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__ if error.__cause__ else "unknown cause"
            return _Problem(f"the connection failed ({cause}). Check base_url, and that the server is up.", again=True)
        except (openai.OpenAIError, ValueError, TypeError, RuntimeError) as error:
            if self.stop.is_set():
                raise Stopped from None
            return _Problem(f"the answer is not of this protocol ({type(error).__name__}). Check base_url.", again=True)

    def _completion(self, reply: Any) -> Completion | _Problem:
        """The text of a reply; servers differ, so nothing in it is taken for granted."""
        strange = _Problem("the answer is not a chat completion. Check base_url; it usually ends in /v1.", again=True)
        choice = _first(reply)
        message = getattr(choice, "message", None)
        if message is None:
            return strange
        if getattr(message, "refusal", None):
            return _Problem("the model refuses to mark this text. Use another model or identifier.")
        text = message.content if isinstance(message.content, str) else ""
        return Completion(self._scrubbed(text), str(getattr(choice, "finish_reason", "")), *_counted(reply))

    def _status_problem(self, status: int, headers: Mapping[str, str], body: object) -> _Problem:
        detail = body if isinstance(body, Mapping) else {}
        said = self._scrubbed(" ".join(str(detail.get("message") or body or "").split()))[:300]
        code, about = str(detail.get("code")), f"{detail.get('param')} {said}"
        text = f"HTTP {status}" + (f": {said}" if said else "")
        if 300 <= status < 400:
            return _Problem(f"{text}: it redirects, which is not followed. Give the final address as base_url.")
        if status in (400, 422) and re.search("max_completion_tokens", about):
            return _Problem(text, adapt="max_tokens")
        if status in (400, 422, 501) and _NO_FORMAT.search(about):
            return _Problem(text, adapt="json")
        if status in (401, 403):
            return _Problem(f"{text}. Check the key: key_env names the environment variable that holds it.")
        if code == "context_length_exceeded" or re.search(r"context (length|window|size)", said, re.IGNORECASE):
            return _Problem(f"{text}. Set window (characters) to less, so that long texts are cut into more pieces.")
        again = status in (408, 409, 425, 429) or (status >= 500 and status != 501)
        if code in _FATAL_CODES or not again:
            return _Problem(text, refused=status in (400, 404, 405, 422, 501))
        return _Problem(text, again=True, wait=retry_after(headers))

    def _scrubbed(self, text: str) -> str:
        """The text without the key, should a server repeat it."""
        secret = self._key.get_secret_value() if self._key else ""
        return text.replace(secret, "***") if secret else text


def _first(reply: Any) -> Any:
    """The first choice of a reply, or None."""
    choices = getattr(reply, "choices", None)
    return choices[0] if isinstance(choices, list) and choices else None


def _counted(reply: Any) -> list[int]:
    """Tokens in and out as the server counted them, 0 where it did not."""
    usage = getattr(reply, "usage", None)
    counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    return [count if isinstance(count, int) else 0 for count in counts]


_RESPONSE_FORMATS: Mapping[str, Mapping[str, Any]] = {
    "object": {"type": "json_object"},
    "schema": {"type": "json_schema", "json_schema": {"name": "spans", "strict": True, "schema": SCHEMA}},
}


def _client(at: Address, key: SecretStr | None, settings: Settings) -> Any:
    """The openai client: no redirects, no retries of its own, and no header that this host was not meant to get.

    The key is put on each request as it leaves, so neither the client nor its log ever holds it.
    """
    try:
        import openai
    except ImportError:
        raise MissingExtraError("asking an endpoint", "llm") from None

    def dress(request: Any) -> None:
        for name in list(request.headers):
            if at.host != OPENAI and name.lower() not in _PLAIN_HEADERS:
                del request.headers[name]
        request.headers.pop("authorization", None)
        if key is not None:
            request.headers["authorization"] = f"Bearer {key.get_secret_value()}"

    transport = openai.DefaultHttpxClient(
        follow_redirects=False, trust_env=not at.local, timeout=settings.timeout, event_hooks={"request": [dress]}
    )
    return openai.OpenAI(
        api_key="none", base_url=at.url, timeout=settings.timeout, max_retries=0, http_client=transport
    )
