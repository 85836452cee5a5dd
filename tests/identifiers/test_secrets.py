"""The key goes to its host in one header, and nowhere else: no file, no log, no message, no traceback."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from expunge.data.records import Record
from expunge.identifiers import IdentifierError, annotate, build
from expunge.identifiers.address import Address, address, key_from_environment
from tests.identifiers.chatserver import Say, error, serving

pytest.importorskip("openai", reason="needs the extra llm")
KEY = "sk-Zq7-not-a-real-key-91c4"
RECORDS = [Record(f"r{i}", "Q?", f"Trade {i}: florist.") for i in range(3)]
FLORIST = Say('{"spans": ["florist"]}')


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_TEST_KEY", KEY)
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, f"{name}-belongs-to-openai")


def settings(url: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"name": "chat", "model": "m", "base_url": url, "cache": str(tmp_path / "cache"), "retries": 1,
            "longest_wait": 0.02, "key_env": "EXPUNGE_TEST_KEY", **more}  # fmt: skip


def leaks(tmp_path: Path, caplog: pytest.LogCaptureFixture, *texts: str) -> list[str]:
    """Every place that holds the key."""
    places = {str(path): path.read_bytes().decode("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()}
    logged = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    places |= {"log": "\n".join(logged), **{f"text {i}": text for i, text in enumerate(texts)}}
    return [name for name, text in places.items() if KEY in text]


def everything(raised: BaseException) -> str:
    """The traceback below the test itself with the values of all local variables, causes and contexts included."""
    assert raised.__traceback__ is not None
    shown, seen = [], raised.with_traceback(raised.__traceback__.tb_next)
    while seen is not None:
        lines = traceback.TracebackException.from_exception(seen, capture_locals=True).format()
        assert len(list(traceback.walk_tb(seen.__traceback__))) > 2
        shown.append("".join(lines) + repr(seen) + repr(seen.args))
        seen = seen.__cause__ or seen.__context__  # type: ignore[assignment]
    return "".join(shown)


def test_the_key_is_sent_and_appears_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(lambda n, asked: Say(f'{KEY} is my key. {{"spans": ["florist"]}}')) as server:
        identifier = build(settings(server.url, tmp_path))
        annotate(RECORDS, identifier, tmp_path / "a.jsonl")
    assert [headers["authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 3
    assert (tmp_path / "a.jsonl").is_file()
    assert any((tmp_path / "cache").rglob("*.json"))
    assert leaks(tmp_path, caplog, repr(identifier), str(identifier), str(identifier.facts())) == []


@pytest.mark.parametrize(
    "trouble",
    [
        Say(status=401, body=error(f"Incorrect API key provided: {KEY}.")),
        Say(status=500, body=error(f"crash while serving Bearer {KEY}")),
        Say(status=400, body=f"<pre>authorization: Bearer {KEY}</pre>", headers={"Content-Type": "text/html"}),
        Say(cut=True),
        Say(wait=0.8),
        Say(f"{KEY} is no JSON"),
        Say(body=f'{{"error": "{KEY}'),
        Say(status=429, body=error(KEY), headers={"Retry-After": "999"}),
        Say(status=307, headers={"Location": "/elsewhere"}, body=f"go {KEY}"),
    ],
    ids=["401", "500", "html", "cut", "time-out", "malformed", "no json", "429", "redirect"],
)
def test_no_failure_shows_the_key(tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: Say) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(lambda n, asked: FLORIST if n == 0 else trouble) as server:
        identifier = build(settings(server.url, tmp_path, concurrency=1, timeout=0.4 if trouble.wait else 30))
        with pytest.raises(IdentifierError) as raised:
            annotate(RECORDS, identifier, tmp_path / "a.jsonl")
    assert leaks(tmp_path, caplog, everything(raised.value)) == []


def test_only_plain_headers_go_to_another_host(tmp_path: Path) -> None:
    with serving(lambda n, asked: FLORIST) as server:
        list(build(settings(server.url, tmp_path, key_env="")).identify(RECORDS[:1]))
    (headers,) = server.headers
    assert not [value for value in headers.values() if "belongs-to-openai" in value]
    assert set(headers) <= {"host", "accept", "accept-encoding", "connection", "content-length", "content-type",
                            "user-agent"}  # fmt: skip


def test_openai_s_key_is_for_openai_alone() -> None:
    there = Address("https://api.openai.com/v1", "https://api.openai.com", "api.openai.com", False)
    elsewhere = Address("https://example.org/v1", "https://example.org", "example.org", False)
    assert key_from_environment("", elsewhere) is None
    key = key_from_environment("", there)
    assert key is not None
    assert key.get_secret_value() == "OPENAI_API_KEY-belongs-to-openai"
    assert "belongs" not in repr(key)


def test_a_key_that_is_not_set_is_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(IdentifierError, match="environment variable 'EXPUNGE_NO_SUCH_KEY' is not set"):
        list(build(settings("http://127.0.0.1:9/v1", tmp_path, key_env="EXPUNGE_NO_SUCH_KEY")).identify(RECORDS))


@pytest.mark.parametrize(
    ("url", "insecure", "says"),
    [
        ("http://192.0.2.1/v1", False, "unencrypted"),
        ("http://169.254.169.254/v1", True, "link-local"),
        ("https://169.254.169.254/v1", False, "link-local"),
        ("https://[fe80::1]/v1", False, "link-local"),
        ("http://[::ffff:169.254.169.254]/v1", True, "link-local"),
        ("http://0.0.0.0:8000/v1", True, "unspecified"),
        ("https://[v1/", False, "no web address"),
        ("file:///etc/passwd", False, "no web address"),
    ],
)
def test_addresses_that_must_not_be_asked(url: str, insecure: bool, says: str) -> None:
    with pytest.raises(IdentifierError, match=says):
        address(url, insecure)


def test_addresses_that_may_be_asked() -> None:
    assert address("http://127.0.0.1:8000/v1/", False) == Address(
        "http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", "127.0.0.1", True
    )
    assert address("http://[::1]:8000/v1", False).local
    assert not address("https://192.0.2.1/v1", False).local
    assert not address("http://192.0.2.1/v1", True).local
